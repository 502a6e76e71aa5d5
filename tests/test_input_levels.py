"""The C table from picture levels to input values has the rounding of the build, for each level."""

from __future__ import annotations

import re

import numpy as np

from calibration.pictures.preprocess import normalize, quantize_input
from pipeline.console import NoBars
from pipeline.cortex_m.input_levels import levels_header
from pipeline.engine.work import model_file
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from recreate_model.tflite.model_view import read_model


def test_each_level_equals_the_input_the_build_makes_from_it(finished_build: Request) -> None:
    """A picture of a single level gives a single input value, which is the entry in the table."""
    recipe, machine = resolve(finished_build, NoBars(), may_fetch=False)
    model = (machine.out / recipe.name / model_file(recipe)).read_bytes()
    quantization = read_model(model).input.quantization
    assert quantization is not None
    (numbers,) = re.findall(r"\{\n(.*?)\n\};", levels_header(model, "small"), re.DOTALL)
    table = [int(number) for number in numbers.split(",")]
    assert len(table) == 256
    for level, expected in enumerate(table):
        pixels = np.full((8, 8, 3), level, np.uint8)
        value = normalize(pixels, recipe.preprocess, 8)
        found = quantize_input(value, quantization.scales[0], quantization.zero_points[0])
        assert set(found.ravel().tolist()) == {expected}


def test_rounding_away_from_zero_gives_another_table(finished_build: Request) -> None:
    """This is why there is a table: C's roundf differs from it in many entries, by one step at most."""
    recipe, machine = resolve(finished_build, NoBars(), may_fetch=False)
    model = (machine.out / recipe.name / model_file(recipe)).read_bytes()
    (numbers,) = re.findall(r"\{\n(.*?)\n\};", levels_header(model, "small"), re.DOTALL)
    table = np.asarray([int(number) for number in numbers.split(",")])
    quantization = read_model(model).input.quantization
    assert quantization is not None
    values = (np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)) / np.float32(quantization.scales[0])
    away = np.copysign(np.floor(np.abs(values) + np.float32(0.5)), values) + quantization.zero_points[0]
    differing = np.abs(np.clip(away, -128, 127) - table)
    assert differing.max() == 1
    assert np.count_nonzero(differing) > 20

"""The model, the inputs and the expected outputs of the platform checks."""

from __future__ import annotations

import numpy as np

from calibration.pictures.inputs import Inputs
from calibration.pictures.preprocess import quantize_input
from calibration.pictures.sources import ProceduralSource
from pipeline.cortex_m.test_vector import noise
from pipeline.engine.work import Machine
from pipeline.platforms.evidence import Subject
from recreate_model.recipe import Recipe
from recreate_model.support.arrays import Array
from recreate_model.tflite.full_integer import picture_size
from recreate_model.tflite.interpret import Runner
from recreate_model.tflite.model_view import read_model


def subject(recipe: Recipe, machine: Machine, model: bytes, count: int) -> Subject:
    """The subject with `count` inputs from `int8_inputs` and the outputs of the reference kernels for them.

    Raises:
        InputError: a picture cannot be read, or was changed.
    """
    inputs, source = int8_inputs(recipe, machine, model, count)
    runner = Runner(model, "reference")
    expected = np.concatenate([runner.run(value[np.newaxis])[0] for value in inputs])
    return Subject(recipe.name, model, inputs, expected, source, trained=recipe.checkpoint.kind != "seeded")


def int8_inputs(recipe: Recipe, machine: Machine, model: bytes, count: int) -> tuple[Array, str]:
    """Inputs of the INT8 model, int8 (count, height, width, 3), and the kind of their source.

    They are the recipe's first evaluation pictures, or procedural pictures if the recipe has fewer than `count`. For a
    model that does not take pictures they are noise in the shape of its input.

    Raises:
        InputError: a picture cannot be read, or was changed.
    """
    view = read_model(model)
    if not picture_size(view):
        return np.concatenate([noise(view, number) for number in range(count)]), "noise"
    quantization = view.input.quantization
    assert quantization is not None  # the input of an int8 model
    (scale,), (zero_point,) = quantization.scales, quantization.zero_points
    pictures, source = recipe.evaluation.pictures[:count], machine.pictures
    if len(pictures) < count:
        source = ProceduralSource()
        pictures = tuple(source.pictures(0, count))
    loader = Inputs(source, recipe.preprocess, recipe.model.resolution)
    values = [quantize_input(loader.load(picture)[0], scale, zero_point) for picture in pictures]
    return np.concatenate(values), source.kind

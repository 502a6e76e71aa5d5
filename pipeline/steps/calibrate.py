"""Stage `calibrate`: pictures -> a manifest of them, and the rounded range of every activation."""

from __future__ import annotations

from calibration import manifest
from calibration.pictures.inputs import Inputs
from calibration.ranges import range_table
from calibration.ranges.distributions import choose_spans, distributions
from calibration.ranges.measure import measure
from calibration.ranges.range_methods import RangeMethod
from pipeline.engine.work import FREEZE_FILE, MANIFEST_FILE, RANGES_FILE, Machine, Work, float_model_file
from recreate_model.quantize import convert
from recreate_model.recipe import MIN_MAX, Picture, Recipe, as_json
from recreate_model.support.errors import InputError


def run(work: Work) -> None:
    recipe, table = work.recipe, work.machine.ranges
    float_model = work.inputs[float_model_file(recipe)].read_bytes()
    graph_sha256: str = work.read_json(FREEZE_FILE)["graph_sha256"]
    if table is None:
        table, pictures = measured_ranges(recipe, work.machine, float_model, graph_sha256)
        made_for = {
            "network": recipe.network,
            "source": recipe.calibration.kind,
            "preprocess": as_json(recipe.preprocess),
        }
        work.write(MANIFEST_FILE, manifest.to_json(pictures, made_for))
    else:
        # The recorded ranges of the published recipe are not tied to a float graph: they were recovered from the file.
        if not recipe.toolchain:
            check_fits(table, recipe.network, graph_sha256, recipe.preprocess.crop)
        convert.check_ranges(table.spans, float_model)
    work.write(RANGES_FILE, range_table.to_json(table))


def measured_ranges(
    recipe: Recipe, machine: Machine, float_model: bytes, graph_sha256: str
) -> tuple[range_table.Ranges, tuple[Picture, ...]]:
    """The rounded range of every activation on the recipe's calibration pictures, and the pictures with their digests.

    Args:
        float_model: the recipe's network as a float `.tflite`.
        graph_sha256: of its float graph.

    Raises:
        InputError: a picture that cannot be read, or that changed since it was chosen; or a range that is not finite.
    """
    inputs = Inputs(machine.pictures, recipe.preprocess, recipe.model.resolution)
    method = RangeMethod.parse(recipe.calibration.range_method)
    pictures, workers = recipe.calibration.pictures, machine.workers
    with machine.progress.bar("measuring ranges", len(pictures)) as advance:
        if method.kind == MIN_MAX:
            measured = measure(float_model, inputs, pictures, workers, advance)
            spans = measured.spans
        else:
            measured = found = distributions(float_model, inputs, pictures, workers, advance)
            spans = choose_spans(method, found, float_model)
    names = convert.activations(float_model)
    rounded = range_table.round_mantissa(spans, recipe.calibration.mantissa_bits)
    table = range_table.Ranges(
        spans={name: (float(low), float(high)) for name, (low, high) in zip(names, rounded, strict=True)},
        network=recipe.network,
        graph_sha256=graph_sha256,
        preprocess=recipe.preprocess.crop,
        mantissa_bits=recipe.calibration.mantissa_bits,
        pictures=tuple(picture.sha256 for picture in measured.pictures),
        range_method=recipe.calibration.range_method,
    )
    convert.check_ranges(table.spans, float_model)
    return table, measured.pictures


def check_fits(table: range_table.Ranges, network: str, graph_sha256: str, crop: str) -> None:
    """Raises InputError unless a range table was made for this network, float graph and preprocessing.

    Other weights of the same architecture have other ranges, and so do pictures that are cut differently.
    """
    for what, expected, found in (
        ("network", network, table.network),
        ("float graph with SHA-256", graph_sha256, table.graph_sha256),
        # A table recovered from a published file does not record how the pictures were cut.
        ("preprocessing", crop, table.preprocess or crop),
    ):
        if expected != found:
            raise InputError(
                expected=f"a range table for the {what} {expected}",
                found=f"one for {found}",
                next_step="give the table's own --model, --checkpoint and --preprocess, or another --ranges",
            )

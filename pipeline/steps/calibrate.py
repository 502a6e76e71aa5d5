"""Stage `calibrate`: pictures -> the manifest of what was used, and the rounded range of every activation."""

from __future__ import annotations

from calibration import manifest
from calibration.pictures.inputs import Inputs
from calibration.ranges import range_table
from calibration.ranges.distributions import choose_spans, distributions
from calibration.ranges.measure import measure
from calibration.ranges.range_methods import RangeMethod
from pipeline.engine.work import FREEZE_FILE, MANIFEST_FILE, RANGES_FILE, Work, float_model_file
from recreate_model.quantize import convert
from recreate_model.recipe import MIN_MAX, as_json
from recreate_model.support.errors import InputError


def run(work: Work) -> None:
    float_model = work.inputs[float_model_file(work.recipe)].read_bytes()
    given = work.machine.ranges
    # The recorded ranges of the published recipe belong to a file, and its checkpoint is yet to be proved.
    table = _measured(work, float_model) if given is None else given if work.recipe.toolchain else _fitting(work, given)
    convert.check_ranges(table.spans, float_model)
    work.write(RANGES_FILE, range_table.to_json(table))


def _measured(work: Work, float_model: bytes) -> range_table.Ranges:
    recipe = work.recipe
    inputs = Inputs(work.machine.source, recipe.preprocess, recipe.model.resolution)
    method = RangeMethod.parse(recipe.calibration.range_method)
    pictures, workers = recipe.calibration.pictures, work.machine.workers
    with work.machine.progress.bar("measuring ranges", len(pictures)) as advance:
        if method.kind == MIN_MAX:
            measured = measure(float_model, inputs, pictures, workers, advance)
            spans = measured.spans
        else:
            measured = found = distributions(float_model, inputs, pictures, workers, advance)
            spans = choose_spans(method, found, float_model)
    made_for = {
        "network": recipe.network,
        "source": recipe.calibration.kind,
        "preprocess": as_json(recipe.preprocess),
    }
    work.write(MANIFEST_FILE, manifest.to_json(measured.pictures, made_for))
    names = convert.activations(float_model)
    rounded = range_table.round_mantissa(spans, recipe.calibration.mantissa_bits)
    return range_table.Ranges(
        spans={name: (float(low), float(high)) for name, (low, high) in zip(names, rounded, strict=True)},
        network=recipe.network,
        graph_sha256=_graph_sha256(work),
        preprocess=recipe.preprocess.crop,
        mantissa_bits=recipe.calibration.mantissa_bits,
        pictures=tuple(picture.sha256 for picture in measured.pictures),
        range_method=recipe.calibration.range_method,
    )


def _fitting(work: Work, table: range_table.Ranges) -> range_table.Ranges:
    # Other weights of the same architecture have other ranges, and so have pictures cut in another way.
    for what, expected, found in (
        ("network", work.recipe.network, table.network),
        ("float graph with SHA-256", _graph_sha256(work), table.graph_sha256),
        # Of a published file's pictures nobody knows how they were cut.
        ("preprocessing", work.recipe.preprocess.crop, table.preprocess or work.recipe.preprocess.crop),
    ):
        if expected != found:
            raise InputError(
                expected=f"a range table for the {what} {expected}",
                found=f"one for {found}",
                next_step="give the table's own --model, --checkpoint and --preprocess, or another --ranges",
            )
    return table


def _graph_sha256(work: Work) -> str:
    digest: str = work.read_json(FREEZE_FILE)["graph_sha256"]
    return digest

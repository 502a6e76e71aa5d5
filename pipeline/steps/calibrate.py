"""Stage `calibrate`: pictures -> the manifest of what was used, and the rounded range of every activation."""

from __future__ import annotations

from calibration import ranges
from calibration.inputs import Inputs
from calibration.measure import measure
from pipeline.work import MANIFEST_FILE, RANGES_FILE, Work, float_model_file
from recreate_model import convert
from recreate_model.digest import digest_bytes, readable_json
from recreate_model.errors import InputError
from recreate_model.recipe import as_json


def run(work: Work) -> None:
    float_model = work.inputs[float_model_file(work.recipe)].read_bytes()
    names = convert.activations(float_model)
    table = _measured(work, float_model, list(names)) if work.machine.calibration_source else _given(work)
    convert.check_ranges(table.spans, names)
    work.write(RANGES_FILE, ranges.to_json(table))


def _measured(work: Work, float_model: bytes, names: list[str]) -> ranges.Ranges:
    recipe, source = work.recipe, work.machine.calibration_source
    assert source is not None
    inputs = Inputs(source, recipe.preprocess, recipe.model.resolution)
    with work.machine.progress.bar("measuring ranges", len(recipe.calibration.pictures)) as advance:
        measured = measure(float_model, inputs, recipe.calibration.pictures, work.machine.jobs, advance)
    manifest = readable_json(
        {
            "network": recipe.network,
            "source": recipe.calibration.kind,
            "preprocess": as_json(recipe.preprocess),
            "pictures": [as_json(picture) for picture in measured.pictures],
        }
    )
    work.write(MANIFEST_FILE, manifest)
    rounded = ranges.round_mantissa(measured.spans, recipe.calibration.mantissa_bits)
    return ranges.Ranges(
        spans={name: (float(low), float(high)) for name, (low, high) in zip(names, rounded, strict=True)},
        network=recipe.network,
        picture_count=len(measured.pictures),
        manifest_sha256=digest_bytes(manifest.encode()),
        mantissa_bits=recipe.calibration.mantissa_bits,
    )


def _given(work: Work) -> ranges.Ranges:
    table = ranges.from_json(work.machine.ranges, "the file given with --ranges")
    # Other weights of the same architecture have other ranges: fitting names are not enough.
    if table.network != work.recipe.network:
        raise InputError(
            expected=f"a range table of {work.recipe.network}",
            found=f"one of {table.network}",
            next_step="give the table's own --model and --checkpoint, or another --ranges",
        )
    return table

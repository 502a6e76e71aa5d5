"""Stage `quantize`: the float model and its ranges -> the INT8 model."""

from __future__ import annotations

from calibration.ranges import range_table
from pipeline.engine.work import CONVERSION_FILE, RANGES_FILE, Work, archive_graph_file, float_model_file, model_file
from pipeline.request import published_recipe
from pipeline.request.published_recipe import CorrectionSource
from recreate_model.quantize import convert
from recreate_model.support.digest import readable_json


def run(work: Work) -> None:
    table = range_table.from_json(work.read(RANGES_FILE), RANGES_FILE)
    float_model = work.inputs[float_model_file(work.recipe)].read_bytes()
    with work.machine.progress.bar("quantizing"):
        model = (
            _published(work, float_model, table)
            if work.recipe.toolchain
            else convert.quantize(float_model, table.spans)
        )
    work.write(model_file(work.recipe), model)


def _published(work: Work, float_model: bytes, table: range_table.Ranges) -> bytes:
    machine = work.machine
    made = published_recipe.make(
        work.inputs[archive_graph_file(work.recipe)].read_bytes(),
        table,
        convert.activations(float_model),
        CorrectionSource(machine.corrections, machine.published),
        machine.progress,
    )
    work.write(CONVERSION_FILE, readable_json(made.document()))
    return made.model

"""Stage `quantize`: the float model and its ranges -> the INT8 model."""

from __future__ import annotations

from calibration import ranges
from pipeline.work import RANGES_FILE, Work, float_model_file, model_file
from recreate_model import convert


def run(work: Work) -> None:
    table = ranges.from_json(work.read(RANGES_FILE), RANGES_FILE)
    float_model = work.inputs[float_model_file(work.recipe)].read_bytes()
    with work.machine.progress.bar("quantising"):
        model = convert.quantize(float_model, table.spans)
    work.write(model_file(work.recipe), model)

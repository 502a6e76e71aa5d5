"""Stage `evaluate`: accuracy on pictures that calibration did not use."""

from __future__ import annotations

from calibration.pictures.inputs import Inputs
from pipeline.claims.evaluate import Proportion, evaluate
from pipeline.engine.work import EVALUATE_FILE, Work, float_model_file
from pipeline.request.given import check_classes, check_pictures
from recreate_model.recipe import as_json
from recreate_model.support.digest import Json, digest_json, readable_json
from recreate_model.tflite.model_view import read_model


def run(work: Work) -> None:
    recipe, machine = work.recipe, work.machine
    check_pictures(work)
    if recipe.given:
        check_classes(read_model(work.model))
    with machine.progress.bar("evaluating", len(recipe.evaluation.pictures)) as advance:
        result = evaluate(
            None if recipe.given else work.inputs[float_model_file(recipe)].read_bytes(),
            work.model,
            Inputs(machine.pictures, recipe.preprocess, recipe.model.resolution),
            recipe.evaluation.pictures,
            machine.workers,
            advance,
        )
    document = {
        "build": recipe.name,
        "source": recipe.evaluation.kind,
        "pictures": len(recipe.evaluation.pictures),
        "left_out_as_calibrated": recipe.evaluation.overlap,
        "pictures_sha256": digest_json(as_json(recipe.evaluation.pictures)),
        "kernels": "xnnpack",
        "float_top1": _json(result.float_top1),
        "int8_top1": _json(result.int8_top1),
        "agreement": _json(result.agreement),
    }
    work.write(EVALUATE_FILE, readable_json(document))


def _json(proportion: Proportion | None) -> Json:
    if proportion is None:
        return None
    low, high = proportion.interval
    return {
        "hits": proportion.hits,
        "n": proportion.n,
        "value": round(proportion.value, 6),
        "interval_95": [round(low, 6), round(high, 6)],
    }

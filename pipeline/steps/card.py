"""Stage `card`: README.md and definition.yaml beside the model, from the results of the other stages."""

from __future__ import annotations

import json
from importlib.metadata import version

from pipeline import card
from pipeline.keys import tools_here
from pipeline.work import EVALUATE_FILE, VELA_FILE, Work
from recreate_model.digest import Json, digest_file

_DATASETS = {
    "folder": "pictures of the user's folder that calibration did not use",
    "procedural": "procedural pictures",
}
# What a user takes away; lock.json lists everything.
_DEPLOYED = (".tflite", ".c", ".h", ".txt")


def run(work: Work) -> None:
    evaluation = json.loads(work.inputs[EVALUATE_FILE].read_text())
    variants = json.loads(work.inputs[VELA_FILE].read_text())["variants"]
    accuracy = _accuracy(evaluation)
    files = [(path, digest_file(file)) for path, file in sorted(work.inputs.items()) if path.endswith(_DEPLOYED)]
    (tensorflow,) = tools_here(("tensorflow",))
    readme = card.card_readme(
        work.recipe,
        work.model,
        accuracy,
        _agreement(evaluation),
        [_ethos_u(variants)],
        files,
        tools={"TensorFlow": version(tensorflow), "Vela": version("ethos-u-vela")},
    )
    work.write("README.md", readme)
    work.write("definition.yaml", card.card_definition(work.recipe, work.model, accuracy, files))


def _accuracy(evaluation: Json) -> card.Accuracy | None:
    top1 = evaluation["int8_top1"]
    if top1 is None:
        return None
    low, high = top1["interval_95"]
    return card.Accuracy(top1["value"], low, high, top1["n"], _DATASETS[evaluation["source"]])


def _agreement(evaluation: Json) -> str | None:
    agreement = evaluation["agreement"]
    if agreement is None:
        return None
    return f"{agreement['value']:.3f} of {agreement['n']} {_DATASETS[evaluation['source']]}"


def _ethos_u(variants: Json) -> card.Evidence:
    targets = ", ".join(variant["target"]["accelerator"] for variant in variants)
    least = min(variant["npu_share"] for variant in variants)
    return card.Evidence(
        "Ethos U", "compiled", f"by Vela for {targets}; at least {least:.0%} of the operators on the NPU"
    )

"""Stage `card`: README.md and definition.yaml beside the model, from the results of the other stages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version

from pipeline.card import card
from pipeline.claims.claim import BACKGROUND
from pipeline.engine.keys import tools_here
from pipeline.engine.work import (
    CONVERSION_FILE,
    EVALUATE_FILE,
    PLATFORMS_FILE,
    VELA_FILE,
    VERIFY_FILE,
    Work,
    float_model_file,
    left_out_file,
)
from pipeline.platforms import ethos_u
from pipeline.platforms.evidence import Evidence, from_json
from pipeline.request.published_recipe import sentence
from recreate_model.support.digest import Json, digest_file

# Names on the card, and keys in definition.yaml; a data set has its own name.
_DATASETS = {"folder": "user-folder", "tfrecord": "user-tfrecords", "procedural": "procedural-pictures"}
_OVERLAP_UNKNOWN = " (some may have calibrated)"
# Files that the card does not list: figures, reports and settings. lock.json lists all of them.
_NOT_LISTED = (".json", ".csv", ".md", ".svg", ".yaml", ".ini", ".pb")


def run(work: Work) -> None:
    evaluation = work.read_json(EVALUATE_FILE) if EVALUATE_FILE in work.inputs else None
    variants = work.read_json(VELA_FILE)["variants"] if VELA_FILE in work.inputs else []
    # The top-1 of an untrained network says nothing about the model that the card describes.
    trained = work.recipe.checkpoint.kind != "seeded"
    accuracy = _measured(evaluation, "int8_top1") if trained else None
    left_out = {float_model_file(work.recipe)}
    deployed = (path for path in work.inputs if not path.endswith(_NOT_LISTED) and path not in left_out)
    paths = sorted(deployed, key=_natural)
    files = [(path, digest_file(work.inputs[path])) for path in paths]
    tools = {"Vela": version("ethos-u-vela")}
    if not work.recipe.given:
        (tensorflow,) = tools_here(("tensorflow",))
        tools = {"TensorFlow": work.recipe.toolchain or version(tensorflow), **tools}
    verified = work.read_json(VERIFY_FILE)["rows"]
    readme = card.card_readme(
        work.recipe,
        work.model,
        accuracy,
        _measured(evaluation, "agreement"),
        _evidence(work, variants),
        files,
        variants=variants,
        refuted=[row["what"] for row in verified if row["verdict"] == "differs"],
        remarks=[f"Class 0: {row['why']}." for row in verified if row["what"] == BACKGROUND],
        left_out=list(_left_out(work)),
        tools=tools,
        conversion=sentence(work.read_json(CONVERSION_FILE)) if CONVERSION_FILE in work.inputs else "",
    )
    work.write("README.md", readme)
    work.write("definition.yaml", card.card_definition(work.recipe, work.model, accuracy, files))


def _left_out(work: Work) -> Iterator[str]:
    """A sentence on each stage that was left out of the build."""
    for path in work.inputs:
        if path.startswith(left_out_file("").removesuffix(".json")):
            reason = work.read_json(path)
            yield f"Left out: `{reason['stage']}`, which needs {reason['expected']}; the model has {reason['found']}."


def _measured(evaluation: Json, name: str) -> card.Measured | None:
    figure = evaluation and evaluation[name]
    if figure is None:
        return None
    low, high = figure["interval_95"]
    dataset = _DATASETS.get(evaluation["source"], evaluation["source"])
    if evaluation["left_out_as_calibrated"] is None:
        dataset += _OVERLAP_UNKNOWN
    return card.Measured(figure["value"], low, high, figure["n"], dataset)


def _evidence(work: Work, variants: Json) -> list[Evidence]:
    """The evidence of `platforms`; if it did not run, what the build itself shows."""
    if PLATFORMS_FILE in work.inputs:
        return [from_json(row) for row in work.read_json(PLATFORMS_FILE)["rows"]]
    return ethos_u.check(variants)


def _natural(path: str) -> list[str | int]:
    """Sorts ethos-u55-32 before ethos-u55-128."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)]

"""Stage `freeze`: float weights -> the folded float graph (GraphDef) and the float model (.tflite)."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import PurePosixPath

from absl import logging

from pipeline.engine.work import FREEZE_FILE, Work, archive_graph_file, float_model_file
from recreate_model.floats import checkpoint, float_forms
from recreate_model.floats.checkpoint import FloatWeights
from recreate_model.floats.frozen_graph import read_layers
from recreate_model.network import mobilenet_v2, seeded
from recreate_model.prove.background_row import with_background_of
from recreate_model.prove.membership import check_member
from recreate_model.quantize import convert
from recreate_model.recipe import Model
from recreate_model.support.digest import Json, digest_bytes, readable_json
from recreate_model.support.errors import InputError
from recreate_model.tflite.full_integer import check_full_integer
from recreate_model.tflite.model_view import read_file, read_model

_FILLED = (
    "the checkpoint has none (background): its weights are zero and its bias is the smallest of the others, so it wins "
    "only where all 1000 score below that"
)


def run(work: Work) -> None:
    recipe = work.recipe
    with work.machine.progress.bar("freezing the float graph"):
        weights, background = _weights(work)
        graph = mobilenet_v2.frozen_graph(recipe.model, weights.values)
        model = convert.convert_float(graph)
    if recipe.toolchain:
        work.write(archive_graph_file(recipe), _own_graph(weights, recipe.model))
    path = float_model_file(recipe)
    work.write(str(PurePosixPath(path).with_suffix(".pb")), graph)
    work.write(path, model)
    document: dict[str, Json] = {
        "network": recipe.network,
        "graph_sha256": digest_bytes(graph),
        "variables": len(weights.values),
        "archive_frozen_graph": weights.comparison and asdict(weights.comparison),
    }
    if background:
        logging.warning("class 0: %s", background)
        document["background"] = background
    work.write(FREEZE_FILE, readable_json(document))


def _own_graph(weights: FloatWeights, model: Model) -> bytes:
    """The checkpoint's frozen graph, checked to be one that can be converted."""
    if weights.frozen_graph is None:
        raise InputError(
            expected="a checkpoint with its frozen graph, which the published converter takes",
            found="a checkpoint without one",
            next_step="give the official archive, or leave --recipe out",
        )
    read_layers(weights.frozen_graph, model, "the checkpoint's frozen graph")
    return weights.frozen_graph


def _weights(work: Work) -> tuple[FloatWeights, str]:
    """The float weights, and what class 0 is if the checkpoint has none."""
    recipe, file = work.recipe, work.machine.checkpoint
    if file is None:
        return checkpoint.FloatWeights(seeded.seeded_weights(recipe.model, recipe.checkpoint.seed)), ""
    weights = float_forms.read_weights(file, recipe.model)
    given = work.machine.background
    if given is None:
        return weights, "" if weights.background else _FILLED
    if weights.background:
        raise InputError(
            expected=f"{file} to have no class 0, as --background {given} would replace it",
            found="a checkpoint with class 0",
            next_step="leave --background out",
        )
    data = read_file(given)
    if digest_bytes(data) != recipe.checkpoint.background:
        raise InputError(
            expected=f"{given} to have SHA-256 {recipe.checkpoint.background}",
            found="another digest: the file changed during the build",
            next_step="run again",
        )
    view = read_model(data, str(given))
    check_full_integer(view, str(given))
    check_member(view, recipe.model, str(given))
    taken = with_background_of(weights.values, recipe.model, view)
    said = f"the checkpoint has none (background): it is that of the INT8 model with SHA-256 {digest_bytes(data)}"
    return replace(weights, values=taken), said

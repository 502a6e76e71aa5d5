"""Stage `freeze`: float weights -> the folded float graph (GraphDef) and the float model (.tflite)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import PurePosixPath

from pipeline.work import FREEZE_FILE, Work, archive_graph_file, float_model_file
from recreate_model import checkpoint, convert, network, seeded
from recreate_model.checkpoint import FloatWeights
from recreate_model.digest import digest_bytes, readable_json
from recreate_model.errors import InputError
from recreate_model.frozen_graph import read_layers
from recreate_model.recipe import Model


def run(work: Work) -> None:
    recipe = work.recipe
    with work.machine.progress.bar("freezing the float graph"):
        archive = work.machine.checkpoint
        if archive is None:
            weights = checkpoint.FloatWeights(seeded.seeded_weights(recipe.model, recipe.checkpoint.seed))
        else:
            weights = checkpoint.read_archive(archive, recipe.model)
        graph = network.frozen_graph(recipe.model, weights.values)
        model = convert.convert_float(graph)
    if recipe.toolchain:
        work.write(archive_graph_file(recipe), _own_graph(weights, recipe.model))
    path = float_model_file(recipe)
    work.write(str(PurePosixPath(path).with_suffix(".pb")), graph)
    work.write(path, model)
    document = {
        "network": recipe.network,
        "graph_sha256": digest_bytes(graph),
        "variables": len(weights.values),
        "archive_frozen_graph": weights.comparison and asdict(weights.comparison),
    }
    work.write(FREEZE_FILE, readable_json(document))


def _own_graph(weights: FloatWeights, model: Model) -> bytes:
    """The checkpoint's frozen graph, which must be one that can be converted."""
    if weights.frozen_graph is None:
        raise InputError(
            expected="a checkpoint with its frozen graph, which the published converter takes",
            found="none in it",
            next_step="give the official archive, or leave --recipe out",
        )
    read_layers(weights.frozen_graph, model, "the checkpoint's frozen graph")
    return weights.frozen_graph

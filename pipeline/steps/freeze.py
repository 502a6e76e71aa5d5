"""Stage `freeze`: float weights -> the folded float graph (GraphDef) and the float model (.tflite)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import PurePosixPath

from absl import logging

from pipeline.work import FREEZE_FILE, Work, float_model_file
from recreate_model import checkpoint, convert, float_forms, network, seeded
from recreate_model.background import BACKGROUND_FILLED
from recreate_model.digest import digest_bytes, readable_json


def run(work: Work) -> None:
    recipe = work.recipe
    with work.machine.progress.bar("freezing the float graph"):
        file = work.machine.checkpoint
        if file is None:
            weights = checkpoint.FloatWeights(seeded.seeded_weights(recipe.model, recipe.checkpoint.seed))
        else:
            weights = float_forms.read_weights(file, recipe.model)
        graph = network.frozen_graph(recipe.model, weights.values)
        model = convert.convert_float(graph)
    path = float_model_file(recipe)
    work.write(str(PurePosixPath(path).with_suffix(".pb")), graph)
    work.write(path, model)
    document = {
        "network": recipe.network,
        "graph_sha256": digest_bytes(graph),
        "variables": len(weights.values),
        "archive_frozen_graph": weights.comparison and asdict(weights.comparison),
    }
    if not weights.background:
        logging.warning("%s", BACKGROUND_FILLED)
        document["background"] = BACKGROUND_FILLED
    work.write(FREEZE_FILE, readable_json(document))

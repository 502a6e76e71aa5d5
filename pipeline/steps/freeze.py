"""Stage `freeze`: float weights -> the folded float graph (GraphDef) and the float model (.tflite)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from absl import logging

from pipeline.engine.work import FREEZE_FILE, Work, archive_graph_file, float_model_file
from recreate_model.floats import float_forms
from recreate_model.floats.checkpoint import FloatWeights
from recreate_model.floats.frozen_graph import read_layers
from recreate_model.network import architecture
from recreate_model.network.spec import Model
from recreate_model.prove.background_row import with_background_of
from recreate_model.prove.membership import check_member
from recreate_model.quantize import convert
from recreate_model.recipe import Recipe
from recreate_model.support.digest import Json, digest_bytes, readable_json
from recreate_model.support.errors import InputError
from recreate_model.tflite.full_integer import check_full_integer
from recreate_model.tflite.model_view import read_file, read_model

_FILLED = (
    "the checkpoint has none (background): its weights are zero and its bias is the smallest of the others, so it wins "
    "only where all 1000 score below that"
)


@dataclass(frozen=True, eq=False)
class Frozen:
    """A float network with BatchNorm folded.

    Attributes:
        graph: the frozen graph, a serialized GraphDef.
        model: the same as a float `.tflite`.
        background: what class 0 is where the checkpoint has none; else empty.
    """

    weights: FloatWeights
    graph: bytes
    model: bytes
    background: str

    @property
    def graph_sha256(self) -> str:
        """SHA-256 of the graph, by which a range table names the weights it belongs to."""
        return digest_bytes(self.graph)


def frozen(recipe: Recipe, file: Path | None, background: Path | None) -> Frozen:
    """Reads the float weights of a recipe and folds them.

    Args:
        file: with the float weights; None for seeded ones.
        background: the INT8 model that class 0 is taken from; None where none is given.

    Raises:
        InputError: a file that has no such weights, or is not the recipe's.
        ToolError: TensorFlow's converter failed.
    """
    weights, origin = _weights(recipe, file, background)
    graph = architecture.frozen_graph(recipe.model, weights.values)
    if origin:
        logging.warning("class 0: %s", origin)
    return Frozen(weights, graph, convert.convert_float(graph), origin)


def run(work: Work) -> None:
    recipe, machine = work.recipe, work.machine
    with machine.progress.bar("freezing the float graph"):
        found = frozen(recipe, machine.checkpoint, machine.background)
    weights = found.weights
    if recipe.toolchain:
        work.write(archive_graph_file(recipe), _own_graph(weights, recipe.model))
    path = float_model_file(recipe)
    work.write(str(PurePosixPath(path).with_suffix(".pb")), found.graph)
    work.write(path, found.model)
    document: dict[str, Json] = {
        "network": recipe.network,
        "graph_sha256": found.graph_sha256,
        "variables": len(weights.values),
        "archive_frozen_graph": weights.comparison and asdict(weights.comparison),
    }
    if found.background:
        document["background"] = found.background
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


def _weights(recipe: Recipe, file: Path | None, given: Path | None) -> tuple[FloatWeights, str]:
    """The float weights, and what class 0 is if the checkpoint has none."""
    weights = float_forms.load_weights(file, recipe.model, recipe.checkpoint.seed)
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
    origin = f"the checkpoint has none (background): it is that of the INT8 model with SHA-256 {digest_bytes(data)}"
    return replace(weights, values=taken), origin

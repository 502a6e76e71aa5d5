"""`--recipe published`: the published model from its checkpoint, by the publisher's converter and recorded ranges.

For: the published bytes. The archive's own frozen graph is converted as it is, and where this CPU folds BatchNorm to
other last bits than the publisher's did, the folding factors are moved: by a recorded table, or as the published file
shows. Every constant comes from the checkpoint. Not for: another member of the family, or a calibration of one's own.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
from absl import logging

from calibration.ranges import range_table
from calibration.ranges.range_table import Ranges, from_json
from pipeline.claims import published_files
from pipeline.engine import user_files
from pipeline.progress import Progress
from pipeline.request.request import CALIBRATION, OPTIONS, PUBLISHED, Request, flag
from recreate_model.compare.verdict import Verdict, printable
from recreate_model.floats.frozen_graph import as_values, read_layers
from recreate_model.network.spec import MOBILENET_V2, PUBLISHED_MODEL, RESOURCES, Model
from recreate_model.prove import corrections, toolchain
from recreate_model.prove.conversion import ANY_SPAN, Conversion, conversion_of
from recreate_model.prove.corrections import CorrectionTable
from recreate_model.prove.prove import Checkpoint, Proof, prove
from recreate_model.prove.rebuild import Corrections, by_table
from recreate_model.prove.toolchain import Toolchain
from recreate_model.support.digest import Json, digest_bytes
from recreate_model.support.errors import CheckError, InputError, PipelineError, ResourceError, UsageError
from recreate_model.support.resources import cache_folder

TOOLCHAIN = MOBILENET_V2.published.toolchain
_CALIBRATION = range_table.__name__.removesuffix(".ranges.range_table")
_RANGES = files(_CALIBRATION) / "recorded" / f"{PUBLISHED_MODEL.name}_published.json"
_SOURCE = "the checkpoint's frozen graph"


@dataclass(frozen=True, eq=False)
class Steering:
    """What shows how the publisher's CPU folded, where this one folds otherwise.

    Attributes:
        table: a file with recorded moves; None for none.
        published: path of the published model, or of a folder with it; None for the cache or a mirror.
    """

    table: Path | None
    published: Path | None


@dataclass(frozen=True, eq=False)
class Made:
    """The published model, made from a checkpoint.

    Attributes:
        sha1_untouched: of what the converter gives where this CPU folds.
        moved_by: `table of moves` or `published model`; empty where nothing was moved.
        steering_sha256: of the table's or the published model's file; empty where nothing was moved.
    """

    model: bytes
    graph_sha256: str
    sha1_untouched: str
    moved_by: str = ""
    steering_sha256: str = ""
    moves: Corrections | None = None

    def document(self) -> Json:
        """All but the model as plain JSON."""
        return {
            "converter": toolchain.parse(TOOLCHAIN)[0].name,
            "graph_sha256": self.graph_sha256,
            "sha1_untouched": self.sha1_untouched,
            "moved_by": self.moved_by,
            "steering_sha256": self.steering_sha256,
            "moved": self.moves and asdict(self.moves),
        }


def check_options(request: Request, names: Collection[str]) -> None:
    """Refuses options that contradict the recipe.

    Args:
        names: of the options that were typed.

    Raises:
        UsageError: one of them was.
    """
    if request.recipe != PUBLISHED:
        if "moves" in names:
            raise UsageError(
                expected=f"--moves beside --recipe {PUBLISHED}, whose folding factors it records",
                found=f"--recipe {request.recipe}",
                next_step=f"give --recipe {PUBLISHED}, or leave --moves out",
            )
        return
    if found := [flag(name) for name, option in OPTIONS.items() if option.group is CALIBRATION and name in names]:
        raise UsageError(
            expected=f"no option of calibration beside --recipe {PUBLISHED}, whose ranges are recorded",
            found=", ".join(found),
            next_step=f"leave {found[0]} out, or --recipe",
        )
    if Model.parse(request.model) != PUBLISHED_MODEL:
        raise UsageError(
            expected=f"--recipe {PUBLISHED} with --model {PUBLISHED_MODEL.width}_{PUBLISHED_MODEL.resolution}, the one "
            "whose ranges are recorded",
            found=f"--model {request.model}",
            next_step="leave --model out, or --recipe",
        )
    if request.checkpoint == "seeded":
        raise UsageError(
            expected=f"--recipe {PUBLISHED} with the trained weights",
            found="--checkpoint seeded",
            next_step="give --checkpoint official, or the path of the archive",
        )


def check_files(request: Request, names: Collection[str]) -> None:
    """Looks at files that were typed, so that a build never keeps one that is nothing.

    Raises:
        InputError: `--moves` is no table, or `--published` names nothing.
    """
    if "moves" in names and request.moves:
        _read_moves(request.moves)
    if "published" in names and request.published and not request.published.exists():
        raise InputError(
            expected="--published to name the published model, or a folder with it",
            found=f"nothing at {request.published}",
            next_step="give its path, or leave --published out",
        )


def recorded_ranges() -> tuple[Ranges, str]:
    """The ranges that were recovered from the published file, and the SHA-256 of the table."""
    data = _RANGES.read_bytes()
    return from_json(data.decode(), _RANGES.name), digest_bytes(data)


def _read_moves(path: Path) -> tuple[CorrectionTable, str]:
    """The table of moves in a file, and the file's SHA-256; raises InputError where it is none."""
    wanted = f"--moves {path} to be a table of moves"
    text = user_files.read_text(path, wanted, "give one that `python -m pipeline prove --record` wrote")
    return corrections.from_json(text, str(path)), digest_bytes(text.encode())


def make(graph: bytes, ranges: Ranges, names: Collection[str], steering: Steering, progress: Progress) -> Made:
    """Makes the published model.

    Args:
        graph: the checkpoint's frozen graph, serialized.
        names: of the activations, in the order of the graph; one without a range in the table needs none.

    Raises:
        InputError: a graph of another network, or a table of another graph.
        CheckError: the checkpoint does not give the published model, or the table does not.
        ResourceError: this CPU folds otherwise, and nothing is at hand that shows how the publisher's did.
        ToolError: the converter failed.
    """
    (chain,) = toolchain.parse(TOOLCHAIN)
    values = as_values(read_layers(graph, PUBLISHED_MODEL, _SOURCE))
    python = toolchain.ensure(chain, cache_folder(), lambda sentence: logging.warning("%s", sentence))
    spans = np.array([ranges.spans.get(name, ANY_SPAN) for name in names], np.float32)
    conversion = conversion_of(chain, python, graph, PUBLISHED_MODEL, values, spans)
    untouched = conversion.untouched.models[0]
    made = Made(untouched, digest_bytes(graph), digest_bytes(untouched, "sha1"))
    if made.sha1_untouched == MOBILENET_V2.published.sha1:
        return made
    if steering.table:
        return _by_table(made, *_read_moves(steering.table), conversion)
    published = _published(steering.published, made.sha1_untouched, progress)
    return _by_model(made, published, Checkpoint(PUBLISHED_MODEL, values, graph), chain, python)


def _by_table(untouched: Made, table: CorrectionTable, table_sha256: str, conversion: Conversion) -> Made:
    for what, expected, found in (
        ("the frozen graph with SHA-256", untouched.graph_sha256, table.graph_sha256),
        ("the model with SHA-256", RESOURCES["published-model"].sha256, table.model_sha256),
        ("TensorFlow", TOOLCHAIN, table.toolchain),
    ):
        if expected != found:
            raise InputError(
                expected=f"a table of moves for {what} {expected}",
                found=f"one for {printable(found)}",
                done="no model was made",
                next_step="record one from the published model and this checkpoint: `python -m pipeline prove MODEL "
                "--checkpoint PATH --record FILE`",
            )
    model, moved = by_table(table.shifts, conversion)
    if (found := digest_bytes(model, "sha1")) != MOBILENET_V2.published.sha1:
        raise CheckError(
            expected=f"the table of moves to give SHA-1 {MOBILENET_V2.published.sha1}",
            found=f"{found}: a shift was changed, or the table was recorded with another converter",
            done="no model was made",
            next_step="record the table again with `python -m pipeline prove --record FILE`",
        )
    return replace(untouched, model=model, moved_by="table of moves", steering_sha256=table_sha256, moves=moved)


def _published(path: Path | None, sha1: str, progress: Progress) -> bytes:
    """The published model."""
    if path is None:
        try:
            data, _ = published_files.model(None, progress)
        except ResourceError as error:
            raise ResourceError(
                expected=f"TensorFlow {TOOLCHAIN} to give SHA-1 {MOBILENET_V2.published.sha1}, or the published model, "
                "which shows whether this CPU folds BatchNorm to other last bits",
                found=f"SHA-1 {sha1}, and no published model ({error.found})",
                done="no model was made",
                next_step="give the published model with --published PATH, or a recorded table with --moves FILE",
            ) from error
        return data
    file = published_files.given(path).model
    if file.data is None or (found := digest_bytes(file.data, "sha1")) != MOBILENET_V2.published.sha1:
        raise InputError(
            expected=f"--published to name the published model, SHA-1 {MOBILENET_V2.published.sha1}",
            found=f"nothing in {path}" if file.data is None else f"SHA-1 {found} at {file.where}",
            done="no model was made",
            next_step=f"get it from {file.resource.urls[0]}",
        )
    return file.data


def _by_model(untouched: Made, published: bytes, checkpoint: Checkpoint, chain: Toolchain, python: Path) -> Made:
    """As `prove` makes a published file again."""
    found = prove(published, "the published model", checkpoint, (chain,), lambda _: python)
    if found.verdict is not Verdict.IDENTICAL:
        raise _unproved(found)
    last, sha256 = found.attempts[-1], digest_bytes(published)
    return replace(
        untouched, model=last.model, moved_by="published model", steering_sha256=sha256, moves=last.corrections
    )


def _unproved(found: Proof) -> PipelineError:
    last = found.attempts[-1]
    if last.failure is not None:
        return last.failure
    if found.refutations:
        first, count = found.refutations[0], len(found.refutations)
        numbers = f"{count:,} number{'' if count == 1 else 's'} refute it"
        what = f"{first.number} there, where the checkpoint gives {first.expected}; {numbers}"
    else:
        what = f"every number explained, and other bytes: {printable(last.first_difference)}"
    return CheckError(
        expected="the checkpoint to give the published model",
        found=what,
        done="no model was made",
        next_step="give the official archive, or leave --recipe out for a model of these weights",
    )


def moved_sentence(moves: Json) -> str:
    """What a CPU that folds otherwise made necessary; `moves` is a `rebuild.Corrections` as JSON."""
    units = f"{moves['ulps']} unit{'' if moves['ulps'] == 1 else 's'}"
    return (
        f"this CPU folds BatchNorm to other last bits: {moves['channels']:,} of {moves['of']:,} folding factors moved, "
        f"to within {units} in the last place of the exact ones, which changed {moves['weights']:,} weights, "
        f"{moves['scales']:,} scales and {moves['biases']:,} biases"
    )


def sentence(document: Json) -> str:
    """What `Made.document` says, for people."""
    said = f"by {document['converter']} from the checkpoint's own frozen graph"
    if document["moved"] is None:
        return f"{said}; no folding factor was moved"
    return f"{said}; {moved_sentence(document['moved'])}; steered by the {document['moved_by']}"

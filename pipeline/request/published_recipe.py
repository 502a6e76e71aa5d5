"""`--recipe published`: the published model from its checkpoint, by the publisher's converter and recorded ranges.

For: the published bytes. The archive's own frozen graph is converted as it is. If this CPU folds BatchNorm to other
last bits than the publisher's, the folding factors are corrected: by a recorded table, or so that the result equals the
published file. Every constant comes from the checkpoint. Not for: another member of the family, or another calibration.
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
class CorrectionSource:
    """Where the corrections come from, if this CPU folds differently than the publisher's.

    Attributes:
        table: a file with recorded corrections; None for none.
        published: path of the published model, or of a folder with it; None for the cache or a mirror.
    """

    table: Path | None
    published: Path | None


@dataclass(frozen=True, eq=False)
class Made:
    """The published model, made from a checkpoint.

    Attributes:
        sha1_uncorrected: SHA-1 of what the converter gives on this CPU.
        corrected_by: `recorded table` or `published model`; empty if nothing was corrected.
        source_sha256: of the table's or the published model's file; empty if nothing was corrected.
    """

    model: bytes
    graph_sha256: str
    sha1_uncorrected: str
    corrected_by: str = ""
    source_sha256: str = ""
    corrections: Corrections | None = None

    def document(self) -> Json:
        """All but the model as plain JSON."""
        return {
            "converter": toolchain.parse(TOOLCHAIN)[0].name,
            "graph_sha256": self.graph_sha256,
            "sha1_uncorrected": self.sha1_uncorrected,
            "corrected_by": self.corrected_by,
            "source_sha256": self.source_sha256,
            "corrections": self.corrections and asdict(self.corrections),
        }


def check_options(request: Request, names: Collection[str]) -> None:
    """Refuses options that contradict the recipe.

    Args:
        names: of the options that were typed.

    Raises:
        UsageError: one of them was.
    """
    if request.recipe != PUBLISHED:
        if "corrections" in names:
            raise UsageError(
                expected=f"--corrections beside --recipe {PUBLISHED}, whose folding factors they correct",
                found=f"--recipe {request.recipe}",
                next_step=f"give --recipe {PUBLISHED}, or leave --corrections out",
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
        InputError: `--corrections` is no table, or `--published` names nothing.
    """
    if "corrections" in names and request.corrections:
        _read_table(request.corrections)
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


def _read_table(path: Path) -> tuple[CorrectionTable, str]:
    """The table of corrections in a file, and the file's SHA-256; raises InputError for another file."""
    wanted = f"--corrections {path} to be a table of corrections"
    text = user_files.read_text(path, wanted, "give one that `python -m pipeline prove --record` wrote")
    return corrections.from_json(text, str(path)), digest_bytes(text.encode())


def make(graph: bytes, ranges: Ranges, names: Collection[str], source: CorrectionSource, progress: Progress) -> Made:
    """Makes the published model.

    Args:
        graph: the checkpoint's frozen graph, serialized.
        names: of the activations, in the order of the graph; one without a range in the table needs none.

    Raises:
        InputError: a graph of another network, or a table of another graph.
        CheckError: the checkpoint does not give the published model, or the table does not.
        ResourceError: this CPU folds differently, and neither a table nor the published model is available.
        ToolError: the converter failed.
    """
    (chain,) = toolchain.parse(TOOLCHAIN)
    values = as_values(read_layers(graph, PUBLISHED_MODEL, _SOURCE))
    python = toolchain.ensure(chain, cache_folder(), lambda sentence: logging.warning("%s", sentence))
    spans = np.array([ranges.spans.get(name, ANY_SPAN) for name in names], np.float32)
    conversion = conversion_of(chain, python, graph, PUBLISHED_MODEL, values, spans)
    untouched = conversion.untouched.models[0]
    made = Made(untouched, digest_bytes(graph), digest_bytes(untouched, "sha1"))
    if made.sha1_uncorrected == MOBILENET_V2.published.sha1:
        return made
    if source.table:
        return _by_table(made, *_read_table(source.table), conversion)
    published = _published(source.published, made.sha1_uncorrected, progress)
    return _by_model(made, published, Checkpoint(PUBLISHED_MODEL, values, graph), chain, python)


def _by_table(untouched: Made, table: CorrectionTable, table_sha256: str, conversion: Conversion) -> Made:
    for what, expected, found in (
        ("the frozen graph with SHA-256", untouched.graph_sha256, table.graph_sha256),
        ("the model with SHA-256", RESOURCES["published-model"].sha256, table.model_sha256),
        ("TensorFlow", TOOLCHAIN, table.toolchain),
    ):
        if expected != found:
            raise InputError(
                expected=f"a table of corrections for {what} {expected}",
                found=f"one for {printable(found)}",
                done="no model was made",
                next_step="record one from the published model and this checkpoint: `python -m pipeline prove MODEL "
                "--checkpoint PATH --record FILE`",
            )
    model, corrected = by_table(table.shifts, conversion)
    if (found := digest_bytes(model, "sha1")) != MOBILENET_V2.published.sha1:
        raise CheckError(
            expected=f"the table of corrections to give SHA-1 {MOBILENET_V2.published.sha1}",
            found=f"{found}: a correction was changed, or the table was recorded with another converter",
            done="no model was made",
            next_step="record the table again with `python -m pipeline prove --record FILE`",
        )
    return replace(
        untouched, model=model, corrected_by="recorded table", source_sha256=table_sha256, corrections=corrected
    )


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
                next_step="give the published model with --published PATH, or a recorded table with --corrections FILE",
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
        untouched, model=last.model, corrected_by="published model", source_sha256=sha256, corrections=last.corrections
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


def corrections_sentence(corrections: Json) -> str:
    """What was corrected, in a sentence; `corrections` is a `rebuild.Corrections` as JSON."""
    units = f"{corrections['ulps']} unit{'' if corrections['ulps'] == 1 else 's'}"
    return (
        f"this CPU folds BatchNorm to other last bits than the publisher's: {corrections['channels']:,} of "
        f"{corrections['of']:,} folding factors corrected by up "
        f"to {units} in the last place, which changed {corrections['weights']:,} weights, "
        f"{corrections['scales']:,} scales and {corrections['biases']:,} biases"
    )


def sentence(document: Json) -> str:
    """What `Made.document` says, for people."""
    text = f"by {document['converter']} from the checkpoint's own frozen graph"
    if document["corrections"] is None:
        return f"{text}; no folding factor was corrected"
    return f"{text}; {corrections_sentence(document['corrections'])}; taken from the {document['corrected_by']}"

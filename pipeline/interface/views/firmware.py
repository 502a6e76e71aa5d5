"""What `firmware` prints of a board's run: its comparison with the reference kernels, as rows, JSON and tables."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from pipeline.claims.claim import Row, claim, holds
from pipeline.console import Block
from pipeline.cortex_m.firmware.boards import Board
from pipeline.cortex_m.firmware.image import Best, Run, tool_versions
from pipeline.platforms.evidence import Subject, bit_exact
from recreate_model.support.arrays import Array
from recreate_model.support.digest import Json


def rows(run: Run, subject: Subject, labels: Sequence[str]) -> list[Row]:
    """What the board computed, compared with what this machine computes."""
    found = bit_exact(run.outputs, subject.expected)
    best = [_best(scores, labels) for scores in subject.expected]
    agreeing = sum(one == other for one, other in zip(run.best, best, strict=True))
    return [
        claim("CRC-32 of the array", f"{zlib.crc32(subject.model):08x}", f"{run.crc32:08x}", "computed on the board"),
        claim("scores", f"{found.n} of {found.n} {found.kind}", str(found), "against LiteRT's reference kernels"),
        claim(
            "five best", f"{found.n} of {found.n} pictures", f"{agreeing} of {found.n} pictures", "with their labels"
        ),
    ]


def published_row(outputs: Array, published: Array) -> Row:
    """The published output, compared with what the board computed from the published input; both int8 (classes)."""
    equal, total = int((outputs == published).sum()), published.size
    why = "the published test vector, behind the other pictures"
    return claim("published output", f"{total} of {total} bytes", f"{equal} of {total} bytes", why)


def document(board: Board, run: Run, subject: Subject, table: Sequence[Row]) -> Json:
    """All of it as plain JSON."""
    return {
        "board": board.name,
        "core": board.core,
        "tools": list(tool_versions()),
        "build": subject.name,
        "pictures": subject.source,
        "holds": holds(table),
        "rows": [vars(row) for row in table],
        "seconds": round(run.seconds, 3),
        "runs": [
            {"instructions": count, "best": [vars(one) for one in best]}
            for count, best in zip(run.instructions, run.best, strict=True)
        ],
    }


def blocks(document: Json) -> list[Block]:
    """The same as lines and tables."""
    headline = (
        f"{document['build']} on {document['board']} ({document['core']}), emulated: {', '.join(document['tools'])}"
    )
    compared = [[row["what"], row["verdict"], row["found"], row["why"]] for row in document["rows"]]
    best = [
        [str(number) * (place == 0), f"{one['number']}", f"{one['score']}", one["label"]]
        for number, run in enumerate(document["runs"])
        for place, one in enumerate(run["best"])
    ]
    counts = ", ".join(f"{run['instructions']:,}" for run in document["runs"])
    return [
        headline,
        ("", ("property", "verdict", "value", "why"), compared),
        (f"five best of each picture ({document['pictures']})", ("picture", "class>", "score>", "label"), best),
        f"Instructions: {counts}. The emulator counts instructions, not cycles.",
    ]


def _best(scores: Array, labels: Sequence[str]) -> tuple[Best, ...]:
    """The five best classes; of equal scores the first is better."""
    ranked = map(int, np.argsort(-scores.astype(np.int32), kind="stable")[:5])
    return tuple(Best(at, int(scores[at]), labels[at] if at < len(labels) else "no label") for at in ranked)

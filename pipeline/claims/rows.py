"""What a comparison says, row by row: the one form for every command that compares with a claim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from recreate_model.support.errors import CheckError

Verdict = Literal["match", "differs", "not claimed", "not checked"]

BACKGROUND = "class 0"  # what the row on it is called, of a model whose checkpoint has none


@dataclass(frozen=True)
class Row:
    """One property: what is claimed, what was found, and why it is or is not a claim, or could not be checked."""

    what: str
    expected: str
    found: str
    verdict: Verdict
    why: str


def claim(what: str, expected: str, found: str, why: str) -> Row:
    """A row that matches only if both are the same."""
    return Row(what, expected, found, "match" if expected == found else "differs", why)


def holds(table: Iterable[Row]) -> bool:
    """Whether nothing that is claimed differs."""
    return all(row.verdict != "differs" for row in table)


def raise_unless_holds(table: Sequence[Row], done: str, next_step: str) -> None:
    """Raises CheckError, naming the first row that differs, and what the command did besides looking."""
    differing = [row for row in table if row.verdict == "differs"]
    if differing:
        first = differing[0]
        raise CheckError(
            expected=f"{first.what} to be {first.expected}",
            found=f"{first.found} ({first.why}), the first of {len(differing)} that differ",
            done=done,
            next_step=next_step,
        )

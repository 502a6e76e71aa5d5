"""Rows of a comparison: the one form for every command that compares something with a claim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from recreate_model.support.errors import CheckError

Verdict = Literal["match", "differs", "not claimed", "not checked"]

BACKGROUND = "class 0"  # name of the row about it, for a model whose checkpoint has no such class


@dataclass(frozen=True)
class Row:
    """One property.

    Attributes:
        what: its name.
        expected: what is claimed; empty if nothing is.
        found: what the file has.
        why: the source of the claim, or why it is not claimed or not checked.
    """

    what: str
    expected: str
    found: str
    verdict: Verdict
    why: str


def claim(what: str, expected: str, found: str, why: str) -> Row:
    """A row that matches only if `expected` and `found` are equal."""
    return Row(what, expected, found, "match" if expected == found else "differs", why)


def holds(table: Iterable[Row]) -> bool:
    """Whether no claimed property differs."""
    return all(row.verdict != "differs" for row in table)


def raise_unless_holds(table: Sequence[Row], done: str, next_step: str) -> None:
    """Raises CheckError with the first row that differs.

    Args:
        done: what the command left as it was or kept, for the error.
    """
    differing = [row for row in table if row.verdict == "differs"]
    if differing:
        first = differing[0]
        raise CheckError(
            expected=f"{first.what} to be {first.expected}",
            found=f"{first.found} ({first.why}), the first of {len(differing)} that differ",
            done=done,
            next_step=next_step,
        )

"""The rows of a comparison with what is claimed, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.claims.rows import Row
from pipeline.console import WIDE, empty_table, screen
from recreate_model.support.digest import Json

if TYPE_CHECKING:
    from rich.console import Console


def print_rows(title: str, rows: Sequence[Row]) -> None:
    """The rows of a comparison that is no stage."""
    print_row_table(screen(), title, [vars(row) for row in rows])


def print_row_table(console: Console, title: str, rows: Sequence[Json]) -> None:
    table = empty_table(title, "property", "verdict", "value", "why")
    for row in rows:
        style = {"match": "green", "differs": "bold red"}.get(row["verdict"], "")
        table.add_row(row["what"], row["verdict"], _value(row, console.width >= WIDE), row["why"], style=style)
    console.print(table)


def _value(row: Json, wide: bool) -> str:
    """What was found, and beside it what was expected where that is something else."""
    # What differs is never cut: the difference may be at the end.
    length = 1000 if row["verdict"] == "differs" else 64 if wide else 24
    shown = [_short(row[key], length) for key in ("found", "expected")]
    if row["verdict"] == "match" or not row["expected"]:
        return shown[0]
    noun = {"differs": "expected", "not checked": "stated"}.get(row["verdict"], "published")
    return ", ".join(filter(None, (shown[0], f"{noun} {shown[1]}")))


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."

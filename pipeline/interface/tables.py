"""Tables of what is no block: the rows of a comparison, and what is up to date."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.claims.rows import Row
from pipeline.console import WIDE, empty_table, screen
from pipeline.engine.runner import Freshness
from recreate_model.support.digest import Json

if TYPE_CHECKING:
    from rich.console import Console


def print_status(rows: Sequence[Freshness]) -> None:
    """One line a stage."""
    table = empty_table("", "stage", "state", "why")
    for row in rows:
        more = f" and {len(row.reasons) - 1} more (explain {row.stage})" if len(row.reasons) > 1 else ""
        table.add_row(row.stage, row.state, (row.reasons[0] if row.reasons else "") + more)
    screen().print(table)


def print_explanation(rows: Sequence[Freshness]) -> None:
    """Every reason of each row."""
    console = screen()
    for row in rows:
        console.print(f"{row.stage} is {row.state}" + (", because:" if row.reasons else ": nothing changed"))
        for reason in row.reasons:
            console.print(f"  {reason}")


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

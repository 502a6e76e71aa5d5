"""What `status` and `explain` say: which stages are up to date, and why the others are not."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.console import empty_table, screen
from pipeline.engine.runner import Freshness


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

"""What people see: progress on standard error, tables or JSON on standard output."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from absl import logging

from pipeline.claims.rows import Row
from pipeline.engine.runner import Freshness
from pipeline.engine.work import Progress
from recreate_model.support.digest import Json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Of a table with whole hashes; a narrower terminal gets their beginnings.
WIDE = 140
# A line, or a table: its title, its columns and its rows.
Block = str | tuple[str, Sequence[str], Sequence[Sequence[str]]]


class Bars:
    """Progress on standard error where that is a terminal; silence elsewhere."""

    def __init__(self) -> None:
        # A descriptor of its own: what is printed while a tool's output is captured would be captured with it.
        self._stream = os.fdopen(os.dup(2), "w")

    @contextlib.contextmanager
    def bar(self, description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A bar over `total` items, or a spinner where the number is unknown; a line with the time stays."""
        if not self._stream.isatty():
            yield lambda count: None
            return
        from rich import progress as rich

        columns = [rich.SpinnerColumn(), rich.TextColumn("{task.description}"), rich.TimeElapsedColumn()]
        if total is not None:
            columns[2:2] = [rich.BarColumn(), rich.MofNCompleteColumn(), rich.TimeRemainingColumn()]
        start = time.monotonic()
        with rich.Progress(*columns, console=screen(self._stream), transient=True) as shown:
            task = shown.add_task(description, total=total)
            yield lambda count: shown.advance(task, count)
        print(f"{description}: {time.monotonic() - start:.1f} s", file=self._stream, flush=True)


class NoBars:
    """No progress at all, for --quiet."""

    @contextlib.contextmanager
    def bar(self, description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Does nothing, with nothing to see."""
        yield lambda count: None


def progress(silent: bool) -> Progress:
    """Bars, or none at all."""
    return NoBars() if silent else Bars()


def waiting(folder: Path) -> None:
    """Says that another process holds the build folder."""
    logging.warning("another run is at work in %s; waiting for it", folder)


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


def print_blocks(blocks: Sequence[Block]) -> None:
    """Lines and tables, from top to bottom."""
    console = screen()
    for block in blocks:
        if isinstance(block, str):
            console.print(block, soft_wrap=True)  # commands are copied from here
            continue
        title, columns, rows = block
        table = empty_table(title, *columns)
        table.show_header = any(columns)
        for row in rows:
            table.add_row(*row)
        console.print(table)


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


def empty_table(title: str, *columns: str) -> Table:
    """An empty table; a column whose name ends in `>` is aligned to the right."""
    from rich import box
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name.rstrip(">"), justify="right" if name.endswith(">") else "left", overflow="fold")
    return table


def screen(stream: IO[str] | None = None) -> Console:
    from rich.console import Console

    # File names are shown as they are, whatever brackets or colons they have.
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        # Into a file or a pipe nothing needs to wrap.
        console.width = max(console.width, 200)
    return console

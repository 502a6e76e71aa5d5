"""What people see: progress on standard error, tables or JSON on standard output."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from absl import logging

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Of a table with whole hashes; a narrower terminal gets their beginnings.
WIDE = 140
# A line, or a table: its title, its columns and its rows.
Block = str | tuple[str, Sequence[str], Sequence[Sequence[str]]]


class Progress(Protocol):
    """Shows how far a long step is."""

    def bar(self, description: str, total: int | None = None) -> AbstractContextManager[Callable[[int], None]]:
        """A bar over `total` items, or a spinner where the number is unknown; the function given advances it."""


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

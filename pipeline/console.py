"""What people see: progress on standard error, lines and tables on standard output.

On a terminal, a table is laid out in its width and no word is split. Into a file or a pipe, a table is tab-separated:
one header line, then one line for each row.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from absl import logging

from pipeline.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console

# Messages name the program as a checkout starts it. An installed copy has a command of its own, as `pipeline` is a part
# of another package there.
_CHECKOUT_PROGRAM, INSTALLED_PROGRAM = "python -m pipeline", "recreate-model"
PROGRAM = _CHECKOUT_PROGRAM if __name__.split(".")[0] == "pipeline" else INSTALLED_PROGRAM

# Columns of a terminal that shows whole digests; a narrower one shows as many of their digits.
WIDE = 140
SHORT_DIGEST = 10
# A line, or a table: its title, its columns and its rows. A column whose name ends in `>` is aligned to the right and
# its cells are not wrapped. The title is for the terminal alone.
Block = str | tuple[str, Sequence[str], Sequence[Sequence[str]]]

_GAP = "  "  # between columns
_NARROW = 20  # a column that is no wider is not wrapped where others can be
_TRIED = 100  # rows of a table that are looked at to choose the widths of its columns
_INDENT = 4  # of the columns of a row that is shown as a list
_STYLES = {
    "green": ("match", "fresh", "ran", "compiled"),
    "yellow": ("stale", "missing", "warning"),
    "bold red": ("differs", "failed"),
}


class Verbatim(str):
    """A line to copy, such as a command: it is never wrapped."""

    __slots__ = ()


class Bars:
    """Progress on standard error where that is a terminal; silence elsewhere."""

    def __init__(self) -> None:
        # A descriptor of its own: what is printed while a tool's output is captured would be captured with it.
        self._stream = os.fdopen(os.dup(2), "w")

    @contextlib.contextmanager
    def bar(self, description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A bar over `total` items, or a spinner where the number is unknown; nothing of it stays."""
        if not self._stream.isatty():
            yield lambda count: None
            return
        from rich import progress as rich

        columns = [rich.SpinnerColumn(), rich.TextColumn("{task.description}"), rich.TimeElapsedColumn()]
        if total is not None:
            columns[2:2] = [rich.BarColumn(), rich.MofNCompleteColumn(), rich.TimeRemainingColumn()]
        with rich.Progress(*columns, console=_screen(self._stream), transient=True) as shown:
            task = shown.add_task(description, total=total)
            yield lambda count: shown.advance(task, count)


class NoBars:
    """No progress at all, for --quiet."""

    @contextlib.contextmanager
    def bar(self, description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Shows nothing."""
        yield lambda count: None


def progress(silent: bool) -> Progress:
    """Bars, or none if `silent`."""
    return NoBars() if silent else Bars()


def waiting(folder: Path) -> None:
    """Says that another process holds the build folder."""
    logging.warning("another run is using %s; waiting for it to end", folder)


def is_wide() -> bool:
    """Whether standard output has room for whole digests: a file, a pipe or a wide terminal."""
    return not sys.stdout.isatty() or _screen().width >= WIDE


def print_blocks(blocks: Sequence[Block]) -> None:
    """Prints lines and tables from top to bottom."""
    if not sys.stdout.isatty():
        for line in (line for block in blocks for line in plain_lines(block)):
            print(for_this_program(line))
        return
    from rich.text import Text

    console = _screen()
    before: Block = ""
    for number, block in enumerate(blocks):
        lines = terminal_lines(block, console.width)
        if number and not (isinstance(block, str) and isinstance(before, str)):
            console.print()
        for line in lines:
            text = Text(for_this_program(line))
            for style, words in _STYLES.items():
                # A whole cell, and no word of a sentence.
                text.highlight_regex(rf"(?:^|(?<=  ))(?:{'|'.join(words)})(?=  |$)", style)
            if not isinstance(block, str) and line == block[0]:
                text.stylize("bold")
            console.print(text, soft_wrap=True)
        before = block


def plain_lines(block: Block) -> list[str]:
    """A block for a file or a pipe: a line as it is; a table as a header line and one line for each row, no title."""
    if isinstance(block, str):
        return [block]
    _, columns, rows = block
    table = [[name.removesuffix(">") for name in columns], *rows] if any(columns) else rows
    return ["\t".join(" ".join(cell.split()) for cell in row) for row in table]


def terminal_lines(block: Block, width: int) -> list[str]:
    """A block for a terminal of `width` columns: words are never split, and paths only behind a `/`.

    A table that cannot be as narrow as that is shown row by row, as a list of columns and values.
    """
    if isinstance(block, Verbatim):
        return [block]
    if isinstance(block, str):
        return _wrap(block, width)
    title, columns, rows = block
    titles = _wrap(title, width) if title else []
    widths = _widths(columns, rows, width)
    if widths is None:
        return [*titles, *(line for row in rows for line in _listed(columns, row, width))]
    lines = list(titles)
    if any(columns):
        lines += _row([name.removesuffix(">") for name in columns], columns, widths, header=True)
        lines.append("-" * (sum(widths) + len(_GAP) * (len(widths) - 1)))
    return lines + [line for row in rows for line in _row(row, columns, widths)]


def _widths(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """The width of each column, so that the table fits; None where the longest words of its columns do not."""
    room = width - len(_GAP) * (len(columns) - 1)
    natural: list[int] = []
    whole: list[int] = []
    least: list[int] = []
    for index, name in enumerate(columns):
        header = name.removesuffix(">")
        cells = [row[index] for row in rows]
        longest = max((_cells(line) for cell in cells for line in cell.split("\n")), default=0)
        words = [word for cell in cells for word in cell.split()]
        parts = [part for word in words for part in _parts(word)]
        of_header = max(map(_cells, header.split()), default=0)
        natural.append(max(longest, _cells(header)))
        for found, pieces in ((whole, words), (least, parts)):
            needed = longest if name.endswith(">") else max(map(_cells, pieces), default=0)
            found.append(max(needed, of_header))
    if sum(natural) <= room:
        return natural
    short = [width if width <= _NARROW else 0 for width in natural]
    starts = [list(map(max, short, whole)), whole, list(map(max, short, least)), least]
    shared = [found for start in starts if sum(start) <= room for found in _shares(start, natural, room)]
    return min(shared, key=lambda widths: _cost(widths, natural, columns, rows[:_TRIED]), default=None)


def _cost(widths: Sequence[int], natural: Sequence[int], columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """The lines of the table, and one more for each cell that is wrapped in a narrow column."""
    narrow = [index for index, width in enumerate(natural) if width <= _NARROW]
    wrapped = sum(_cells(row[index]) > widths[index] for row in rows for index in narrow)
    return wrapped + sum(len(_row(row, columns, widths)) for row in rows)


def _shares(narrowest: Sequence[int], natural: Sequence[int], room: int) -> Iterator[list[int]]:
    """Ways to widen columns to no more than they need: all alike, or one of them first and the others alike."""
    yield _share(narrowest, natural, room)
    for index, least in enumerate(narrowest):
        widened = list(narrowest)
        widened[index] = min(natural[index], least + room - sum(narrowest))
        yield _share(widened, natural, room)


def _share(narrowest: Sequence[int], natural: Sequence[int], room: int) -> list[int]:
    """Widens columns alike, as far as there is room and none further than it needs."""

    def limited(limit: int) -> list[int]:
        return [max(least, min(most, limit)) for least, most in zip(narrowest, natural, strict=True)]

    return limited(max(limit for limit in range(room + 1) if sum(limited(limit)) <= room))


def _row(row: Sequence[str], columns: Sequence[str], widths: Sequence[int], header: bool = False) -> list[str]:
    """The lines of one row; a header stands on the line above its rule."""
    cells = [_wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
    height = max(map(len, cells), default=0)
    lines = []
    for at in range(height):
        parts = []
        for cell, name, width in zip(cells, columns, widths, strict=True):
            index = at - (height - len(cell)) if header else at
            text = cell[index] if 0 <= index < len(cell) else ""
            space = " " * (width - _cells(text))
            parts.append(space + text if name.endswith(">") else text + space)
        lines.append(_GAP.join(parts).rstrip())
    return lines


def _listed(columns: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    """One row as a list: its first cell, then each other column with its value."""
    lines = _wrap(row[0] or columns[0].removesuffix(">"), width)
    for name, cell in zip(columns[1:], row[1:], strict=True):
        if cell:
            head = f"{name.removesuffix('>')}: " if name else ""
            lines += [" " * _INDENT + line for line in _wrap(head + cell, width - _INDENT)]
    return lines


def _wrap(text: str, width: int) -> list[str]:
    """Breaks a text at spaces, and a word that is wider than a line behind its slashes, where it has any."""
    lines = []
    for paragraph in text.split("\n"):
        indent = paragraph[: len(paragraph) - len(paragraph.lstrip(" "))]
        line, empty = indent, True
        for word in paragraph.split():
            for number, piece in enumerate(_pieces(word, width)):
                joint = "" if empty else " "
                if not empty and (number or _cells(line + joint + piece) > width):
                    lines.append(line)
                    line, joint = indent, ""
                line += joint + piece
                empty = False
        lines.append(line)
    return lines


def _pieces(word: str, width: int) -> list[str]:
    """The word, or as few pieces that end in a slash as fit."""
    if _cells(word) <= width:
        return [word]
    pieces = [""]
    for part in _parts(word):
        if pieces[-1] and _cells(pieces[-1] + part) > width:
            pieces.append("")
        pieces[-1] += part
    return pieces


def _parts(word: str) -> list[str]:
    return re.findall(r"[^/]*/+|[^/]+", word)


def _cells(text: str) -> int:
    """Columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _screen(stream: IO[str] | None = None) -> Console:
    from rich.console import Console

    # File names are shown as they are, whatever brackets or colons they have.
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def for_this_program(text: str) -> str:
    """A text with the program's name as it was started here."""
    return text.replace(_CHECKOUT_PROGRAM, PROGRAM)

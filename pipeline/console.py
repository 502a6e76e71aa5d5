"""What people see: progress on standard error, tables or JSON on standard output."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pipeline.runner import Freshness, Outcome
from pipeline.work import EVALUATE_FILE, VELA_FILE, VERIFY_FILE
from recreate_model.digest import Json, digest_file
from recreate_model.recipe import Recipe

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Narrower than this, hashes would wrap; a terminal that is narrower wraps them itself.
_MIN_WIDTH = 100


class Bars:
    """Progress bars on standard error where that is a terminal; silence elsewhere."""

    def __init__(self) -> None:
        # A descriptor of its own: what is printed while a tool's output is captured would be captured with it.
        self._stream = os.fdopen(os.dup(2), "w")

    @contextlib.contextmanager
    def bar(self, description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A bar over `total` items, or a spinner where the number is unknown, gone when the step is done."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        if not self._stream.isatty():
            yield lambda count: None
            return
        columns = [SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
        if total is not None:
            columns[2:2] = [BarColumn(), MofNCompleteColumn()]
        with Progress(*columns, console=_console(self._stream), transient=True) as progress:
            task = progress.add_task(description, total=total)
            yield lambda count: progress.advance(task, count)


class NoBars:
    """No progress at all, for --quiet."""

    @contextlib.contextmanager
    def bar(self, description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Does nothing, with nothing to see."""
        yield lambda count: None


def print_build(folder: Path, recipe: Recipe, outcomes: Sequence[Outcome], wanted: Sequence[str]) -> None:
    """The reports of the stages asked for, then the closing table of what was made."""
    console = _console()
    reports = {"verify": _print_verify, "evaluate": _print_evaluate, "vela": _print_vela}
    for stage in wanted:
        if stage in reports and any(outcome.stage == stage for outcome in outcomes):
            reports[stage](console, folder)
    table = _table(f"{recipe.name} in {folder}", "stage", "state", "file", "bytes>", "SHA-1")
    for outcome in outcomes:
        for row, path in enumerate(outcome.outputs):
            file = folder / path
            stage, state = (outcome.stage, outcome.state) if row == 0 else ("", "")
            table.add_row(stage, state, path, f"{file.stat().st_size:,}", digest_file(file, "sha1"))
    console.print(table)
    if all(outcome.state == "reused" for outcome in outcomes):
        console.print("Nothing to do: every file is up to date, its key and its digest checked.")


def build_json(folder: Path, recipe: Recipe, outcomes: Sequence[Outcome], status: int) -> Json:
    """The same as a JSON document."""
    return {
        "status": status,
        "build": recipe.name,
        "recipe": recipe.id,
        "folder": str(folder),
        "stages": [
            {
                "stage": outcome.stage,
                "state": outcome.state,
                "why": outcome.why,
                "holds": outcome.holds,
                "files": [
                    {
                        "path": path,
                        "bytes": (folder / path).stat().st_size,
                        "sha1": digest_file(folder / path, "sha1"),
                        "sha256": sha256,
                    }
                    for path, sha256 in outcome.outputs.items()
                ],
            }
            for outcome in outcomes
        ],
    }


def print_status(rows: Sequence[Freshness]) -> None:
    """One line a stage."""
    table = _table("", "stage", "state", "why")
    for row in rows:
        more = f" and {len(row.reasons) - 1} more (explain {row.stage})" if len(row.reasons) > 1 else ""
        table.add_row(row.stage, row.state, (row.reasons[0] if row.reasons else "") + more)
    _console().print(table)


def print_explanation(rows: Sequence[Freshness]) -> None:
    """Every reason of each row."""
    console = _console()
    for row in rows:
        console.print(f"{row.stage} is {row.state}" + (", because:" if row.reasons else ": nothing changed"))
        for reason in row.reasons:
            console.print(f"  {reason}")


def _print_verify(console: Console, folder: Path) -> None:
    table = _table("verify", "property", "verdict", "expected", "found", "why")
    for row in _load(folder, VERIFY_FILE)["rows"]:
        style = {"match": "green", "differs": "bold red"}.get(row["verdict"], "")
        table.add_row(
            row["what"], row["verdict"], _short(row["expected"]), _short(row["found"]), row["why"], style=style
        )
    console.print(table)


def _print_evaluate(console: Console, folder: Path) -> None:
    document = _load(folder, EVALUATE_FILE)
    table = _table("evaluate", "", "value>", "95 % interval", "hits of n>")
    for title, name in (("float top-1", "float_top1"), ("INT8 top-1", "int8_top1"), ("agreement", "agreement")):
        figure = document[name]
        if figure is None:
            table.add_row(
                title, "not measured", "the pictures have no labels" if document["pictures"] else "no pictures"
            )
        else:
            low, high = figure["interval_95"]
            table.add_row(
                title, f"{figure['value']:.4f}", f"{low:.4f} to {high:.4f}", f"{figure['hits']} of {figure['n']}"
            )
    console.print(table)


def _print_vela(console: Console, folder: Path) -> None:
    table = _table(
        "vela", "target", "memory mode", "NPU operators>", "SRAM KiB>", "flash KiB>", "cycles>", "inferences/s>"
    )
    for row in _load(folder, VELA_FILE)["variants"]:
        table.add_row(*vela_row(row))
    console.print(table)
    console.print("Cycles and inferences per second are Vela's estimates, not measurements on a device.")


def vela_row(row: Json) -> list[str]:
    """One variant of vela.json as the cells of a table."""
    operators = row["npu_operators"] + len(row["cpu_operators"])
    return [
        row["target"]["accelerator"],
        row["target"]["memory_mode"],
        f"{row['npu_operators']} of {operators}",
        f"{row['sram_kib']:,.0f}",
        f"{row['flash_kib']:,.0f}",
        f"{row['cycles']:,.0f}",
        f"{row['inferences_per_second']:,.1f}",
    ]


def _load(folder: Path, path: str) -> Json:
    return json.loads((folder / path).read_text())


def _short(text: str) -> str:
    return text if len(text) <= 48 else f"{text[:45]}..."


def _table(title: str, *columns: str) -> Table:
    """An empty table; a column whose name ends in `>` is aligned to the right."""
    from rich import box
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name.rstrip(">"), justify="right" if name.endswith(">") else "left", overflow="fold")
    return table


def _console(stream: IO[str] | None = None) -> Console:
    from rich.console import Console

    # File names are shown as they are, whatever brackets or colons they have.
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and console.width < 160:
        # Into a file or a pipe nothing needs to wrap.
        console.width = 160
    elif console.width < _MIN_WIDTH:
        console.width = _MIN_WIDTH
    return console

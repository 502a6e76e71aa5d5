"""What people see: progress on standard error, tables or JSON on standard output."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from absl import logging

from pipeline.c_array import identifier
from pipeline.ethos_u.targets import variant_name
from pipeline.rows import Row
from pipeline.runner import Freshness, Outcome
from pipeline.work import EVALUATE_FILE, PLATFORMS_FILE, PROVENANCE_FILE, VELA_FILE, VERIFY_FILE, Progress, model_file
from recreate_model.digest import Json, digest_file
from recreate_model.recipe import MIN_MAX, Recipe, Target

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Of a table with whole hashes; a narrower terminal gets their beginnings.
_WIDE = 140
# A line, or a table: its title, its columns and its rows.
Block = str | tuple[str, Sequence[str], Sequence[Sequence[str]]]
_RESULTS = {"verify": VERIFY_FILE, "evaluate": EVALUATE_FILE, "vela": VELA_FILE, "platforms": PLATFORMS_FILE}


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
        with rich.Progress(*columns, console=_console(self._stream), transient=True) as shown:
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


def announce(freshness: Freshness) -> None:
    """Says when a build is about to be replaced because the options differ: a forgotten one is easily meant."""
    changed = [reason.removeprefix("recipe ") for reason in freshness.reasons if reason.startswith("recipe ")]
    if changed:
        logging.warning(
            "%s is made again, with other options than the recorded build had (%s); options are not remembered",
            freshness.stage,
            "; ".join(changed),
        )


def print_build(folder: Path, recipe: Recipe, outcomes: Sequence[Outcome], wanted: Sequence[str]) -> None:
    """The results of the stages asked for, then the closing table of what was made, then where to look."""
    console = _console()
    printers = {
        "verify": _print_verify,
        "evaluate": _print_evaluate,
        "vela": _print_vela,
        "platforms": _print_platforms,
    }
    for stage in wanted:
        if stage in printers:
            printers[stage](console, recipe, _load(folder, _RESULTS[stage]))
    table = _table(f"{folder} (* is {recipe.network})", "stage", "state", "file", "bytes>", "SHA-1")
    digits = 40 if console.width >= _WIDE else 12
    for outcome in outcomes:
        for row, path in enumerate(outcome.outputs):
            file = folder / path
            stage, state = (outcome.stage, outcome.state) if row == 0 else ("", "")
            shown = path.replace(recipe.network, "*").replace(identifier(recipe.network), "*")
            table.add_row(stage, state, shown, f"{file.stat().st_size:,}", digest_file(file, "sha1")[:digits])
    console.print(table)
    if all(outcome.state == "reused" for outcome in outcomes):
        console.print("Nothing to do: every file is up to date, its key and its digest checked.")
    made = {path for outcome in outcomes for path in outcome.outputs}
    for what, path in (("model", model_file(recipe)), ("card", "README.md"), ("provenance", PROVENANCE_FILE)):
        if path in made:
            console.print(f"{what:<10} {folder / path}", soft_wrap=True)
    if recipe.calibration.cuts_outliers:
        console.print(f"ranges     by {recipe.calibration.range_method}; golden.json claims bytes of {MIN_MAX} alone")
    if recipe.checkpoint.kind == "seeded":
        console.print("SEEDED weights: the network is not trained and recognises nothing.", style="bold yellow")


def build_json(folder: Path, recipe: Recipe, outcomes: Sequence[Outcome], wanted: Sequence[str], status: int) -> Json:
    """The same as a JSON document."""
    return {
        "status": status,
        "build": recipe.name,
        "recipe": recipe.id,
        "checkpoint": recipe.checkpoint.kind,
        "range_method": recipe.calibration.range_method,
        "folder": str(folder),
        "results": {stage: _load(folder, path) for stage, path in _RESULTS.items() if stage in wanted},
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


def print_blocks(blocks: Sequence[Block]) -> None:
    """Lines and tables, from top to bottom."""
    console = _console()
    for block in blocks:
        if isinstance(block, str):
            console.print(block, soft_wrap=True)  # commands are copied from here
            continue
        title, columns, rows = block
        table = _table(title, *columns)
        table.show_header = any(columns)
        for row in rows:
            table.add_row(*row)
        console.print(table)


def print_rows(title: str, rows: Sequence[Row]) -> None:
    """The rows of a comparison that is no stage."""
    _print_rows(_console(), title, [vars(row) for row in rows])


def _print_verify(console: Console, recipe: Recipe, document: Json) -> None:
    _print_rows(console, f"verify {recipe.name}", document["rows"])


def _print_rows(console: Console, title: str, rows: Sequence[Json]) -> None:
    table = _table(title, "property", "verdict", "value", "why")
    for row in rows:
        style = {"match": "green", "differs": "bold red"}.get(row["verdict"], "")
        table.add_row(row["what"], row["verdict"], _value(row, console.width >= _WIDE), row["why"], style=style)
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


def _print_evaluate(console: Console, recipe: Recipe, document: Json) -> None:
    table = _table(f"evaluate {recipe.name}", "", "value>", "95 % interval", "hits of n>")
    for title, name in (("float top-1", "float_top1"), ("INT8 top-1", "int8_top1"), ("agreement", "agreement")):
        figure = document[name]
        if figure is None:
            why = "no picture has a label" if document["pictures"] else "no pictures are left"
            table.add_row(title, "not measured", why)
        else:
            low, high = figure["interval_95"]
            hits = f"{figure['hits']} of {figure['n']}"
            table.add_row(title, f"{figure['value']:.4f}", f"{low:.4f} to {high:.4f}", hits)
    if left_out := document["left_out_as_calibrated"]:
        table.add_row("left out", f"{left_out}", "pictures that calibrated")
    console.print(table)


def _print_vela(console: Console, recipe: Recipe, document: Json) -> None:
    columns = ["target", "on the NPU>", "SRAM KiB>", "DRAM KiB>", "flash KiB>", "inferences/s>"]
    if console.width >= _WIDE:
        columns += ["cycles>", "memory mode", "system config"]
    table = _table(f"vela {recipe.name}", *columns)
    for row in document["variants"]:
        target = row["target"]
        cells = [
            variant_name(Target(**target)),
            f"{row['npu_operators']} of {row['npu_operators'] + len(row['cpu_operators'])}",
            *(f"{row[area]:,.0f}" for area in ("sram_kib", "dram_kib", "flash_kib")),
            f"{row['inferences_per_second']:,.1f}",
            f"{row['cycles']:,}",
            target["memory_mode"],
            target["system_config"],
        ]
        table.add_row(*cells[: len(columns)])
    console.print(table)
    console.print("Memory, cycles and inferences per second are Vela's estimates, not measurements on a device.")


def _print_platforms(console: Console, recipe: Recipe, document: Json) -> None:
    table = _table(
        f"platforms {recipe.name}, on {document['pictures']} pictures",
        *("platform", "evidence", "what was done, on what", "with", "pictures>", "agreement", "s>", "remarks"),
    )
    for row in document["rows"]:
        agreement = row["agreement"]
        rest = [("", row["note"]), ("failed: ", row["fault"]), ("missing: ", row["missing"])]
        table.add_row(
            row["platform"],
            row["status"] if row["holds"] else f"{row['status']}, FAILED",
            f"{row['what']}; {row['device']}" if row["device"] else row["what"],
            ", ".join(row["tools"]),
            "" if row["pictures"] is None else str(row["pictures"]),
            f"{agreement['hits']} of {agreement['n']} {agreement['kind']}" if agreement else "",
            "" if row["seconds"] is None else f"{row['seconds']:.3f}",
            "; ".join(f"{head}{text}" for head, text in rest if text),
            style="bold red" if not row["holds"] else "green" if row["ticks"] else "",
        )
    console.print(table)
    console.print("Seconds are of one inference on the device named, most of them emulated: never of the real one.")


def _load(folder: Path, path: str) -> Json:
    return json.loads((folder / path).read_text(encoding="utf-8"))


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


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
    if not console.is_terminal:
        # Into a file or a pipe nothing needs to wrap.
        console.width = max(console.width, 200)
    return console

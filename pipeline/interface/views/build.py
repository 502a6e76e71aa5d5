"""What people see of a build: the results of its stages, what was made, and what was left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import logging

from pipeline.c_array import identifier
from pipeline.console import WIDE, empty_table, screen
from pipeline.engine.runner import Freshness, Outcome
from pipeline.engine.work import (
    CONVERSION_FILE,
    EVALUATE_FILE,
    PLATFORMS_FILE,
    PROVENANCE_FILE,
    VELA_FILE,
    VERIFY_FILE,
    model_file,
)
from pipeline.ethos_u.targets import variant_name
from pipeline.interface.views.rows import print_row_table
from pipeline.platforms.evidence import Agreement
from pipeline.request import published_recipe
from recreate_model.recipe import MIN_MAX, Recipe, Target
from recreate_model.support.digest import Json, digest_file
from recreate_model.support.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

_RESULTS = {"verify": VERIFY_FILE, "evaluate": EVALUATE_FILE, "vela": VELA_FILE, "platforms": PLATFORMS_FILE}


def announce(freshness: Freshness) -> None:
    """Says when a stage's files are about to be replaced because the options differ."""
    changed = [reason.removeprefix("recipe ") for reason in freshness.reasons if reason.startswith("recipe ")]
    if changed:
        logging.warning(
            "%s is made again, with other options than the build had (%s)",
            freshness.stage,
            "; ".join(changed),
        )


def left_out_error(outcome: Outcome, folder: Path) -> InputError:
    """What to end with where a stage that was asked for by its name is left out of a build."""
    return InputError(
        expected=f"the model of {folder} to be one that `{outcome.stage}` can work on",
        found=outcome.why,
        done="its other files are kept",
        next_step="give another model; `all` leaves out what a given one does not allow",
    )


def print_build(folder: Path, recipe: Recipe, outcomes: Sequence[Outcome], wanted: Sequence[str]) -> None:
    """The results of the stages asked for, then the closing table of what was made, then where to look."""
    console = screen()
    printers = {
        "verify": _print_verify,
        "evaluate": _print_evaluate,
        "vela": _print_vela,
        "platforms": _print_platforms,
    }
    made = {path for outcome in outcomes for path in outcome.outputs}
    for stage in wanted:
        if stage in printers and _RESULTS[stage] in made:
            printers[stage](console, recipe, _load(folder, _RESULTS[stage]))
    table = empty_table(f"{folder} (* is {recipe.network})", "stage", "state", "file", "bytes>", "SHA-1")
    digits = 40 if console.width >= WIDE else 12
    for outcome in outcomes:
        for row, path in enumerate(outcome.outputs):
            file = folder / path
            stage, state = (outcome.stage, outcome.state) if row == 0 else ("", "")
            shown = path.replace(recipe.network, "*").replace(identifier(recipe.network), "*")
            table.add_row(stage, state, shown, f"{file.stat().st_size:,}", digest_file(file, "sha1")[:digits])
    console.print(table)
    for outcome in outcomes:
        if outcome.state == "left out":
            console.print(f"left out   {outcome.stage}: {outcome.why}", soft_wrap=True)
    if all(outcome.state != "built" for outcome in outcomes):
        console.print("Nothing to do: every file is up to date, its key and its digest checked.")
    for what, path in (("model", model_file(recipe)), ("card", "README.md"), ("provenance", PROVENANCE_FILE)):
        if path in made:
            console.print(f"{what:<10} {folder / path}", soft_wrap=True)
    if recipe.calibration.cuts_outliers:
        console.print(f"ranges     by {recipe.calibration.range_method}; golden.json claims bytes of {MIN_MAX} alone")
    if CONVERSION_FILE in made:
        console.print(f"converted  {published_recipe.sentence(_load(folder, CONVERSION_FILE))}", soft_wrap=True)
    if recipe.given:
        console.print(f"given, SHA-256 {recipe.checkpoint.sha256}: the model was not built here")
    if recipe.checkpoint.kind == "seeded":
        console.print("SEEDED weights: the network is not trained and recognises nothing.", style="bold yellow")


def build_json(folder: Path, recipe: Recipe, outcomes: Sequence[Outcome], wanted: Sequence[str], status: int) -> Json:
    """The same as a JSON document."""
    made = {path for outcome in outcomes for path in outcome.outputs}
    return {
        "status": status,
        "build": recipe.name,
        "recipe": recipe.id,
        "checkpoint": recipe.checkpoint.kind,
        "range_method": recipe.calibration.range_method,
        "folder": str(folder),
        **({"conversion": _load(folder, CONVERSION_FILE)} if CONVERSION_FILE in made else {}),
        "results": {
            stage: _load(folder, path)
            for stage, path in _RESULTS.items()
            if stage in wanted and any(path in outcome.outputs for outcome in outcomes)
        },
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


def _print_verify(console: Console, recipe: Recipe, document: Json) -> None:
    print_row_table(console, f"verify {recipe.name}", document["rows"])


def _print_evaluate(console: Console, recipe: Recipe, document: Json) -> None:
    table = empty_table(f"evaluate {recipe.name}", "", "value>", "95 % interval", "hits of n>")
    for title, name in (("float top-1", "float_top1"), ("INT8 top-1", "int8_top1"), ("agreement", "agreement")):
        figure = document[name]
        if figure is None:
            why = "no picture has a label" if document["pictures"] else "no pictures are left"
            why = "a given model has no float model" if recipe.given and name != "int8_top1" else why
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
    if console.width >= WIDE:
        columns += ["cycles>", "memory mode", "system config"]
    table = empty_table(f"vela {recipe.name}", *columns)
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
    table = empty_table(
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
            str(Agreement(**agreement)) if agreement else "",
            "" if row["seconds"] is None else f"{row['seconds']:.3f}",
            "; ".join(f"{head}{text}" for head, text in rest if text),
            style="bold red" if not row["holds"] else "green" if row["ticks"] else "",
        )
    console.print(table)
    console.print("Seconds are of one inference on the device named, most of them emulated: never of the real one.")


def _load(folder: Path, path: str) -> Json:
    return json.loads((folder / path).read_text(encoding="utf-8"))

"""The results of the stages that look at a model: `verify`, `evaluate`, `vela` and `platforms`, as tables and figures.

A stage's tables are printed where it was named; its figure is one short line, for `all` and while a build runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Mapping
from pathlib import Path

from pipeline.c_array import identifier
from pipeline.console import Block, is_wide
from pipeline.engine.work import (
    EVALUATE_FILE,
    MANIFEST_FILE,
    PLATFORMS_FILE,
    RANGES_FILE,
    STANDALONE_FOLDER,
    VELA_FILE,
    VERIFY_FILE,
    model_file,
)
from pipeline.ethos_u.targets import variant_name
from pipeline.interface.views import rows
from pipeline.platforms.evidence import STATUSES, Agreement
from recreate_model.recipe import Recipe, Target
from recreate_model.support.digest import Json

RESULTS = {"verify": VERIFY_FILE, "evaluate": EVALUATE_FILE, "vela": VELA_FILE, "platforms": PLATFORMS_FILE}


def load(folder: Path, path: str) -> Json:
    """A JSON file of the build."""
    return json.loads((folder / path).read_text(encoding="utf-8"))


def blocks(stage: str, folder: Path, recipe: Recipe) -> list[Block]:
    """The tables of one of RESULTS."""
    return _BLOCKS[stage](recipe, load(folder, RESULTS[stage]))


def figure(stage: str, folder: Path, recipe: Recipe, outputs: Mapping[str, str]) -> str:
    """The one figure of a stage that matters most; empty where there is none.

    Args:
        outputs: the stage's files, by path.
    """
    if stage in _FIGURES and RESULTS[stage] in outputs:
        return _FIGURES[stage](load(folder, RESULTS[stage]))
    if stage in ("quantize", "given") and model_file(recipe) in outputs:
        return f"{(folder / model_file(recipe)).stat().st_size:,} bytes"
    if stage == "calibrate" and RANGES_FILE in outputs:
        ranges = f"{len(load(folder, RANGES_FILE)['activations'])} ranges"
        if MANIFEST_FILE not in outputs:
            return ranges
        return f"{ranges} on {_counted(len(load(folder, MANIFEST_FILE)['pictures']), 'picture')}"
    if stage == "standalone" and (arena := standalone_arena(folder, recipe, outputs)):
        return f"arena of {arena:,} bytes"
    if stage == "fetch":
        return f"{recipe.checkpoint.form or recipe.checkpoint.kind} weights"
    return ""


def standalone_arena(folder: Path, recipe: Recipe, outputs: Container[str]) -> int:
    """Bytes of RAM that the standalone runtime needs beside its stack, from its header; 0 if the build has none."""
    path = f"{STANDALONE_FOLDER}/{identifier(recipe.name)}_run.h"
    if path not in outputs:
        return 0
    found = re.search(r"_RUN_ARENA_BYTES (\d+)$", (folder / path).read_text(encoding="utf-8"), re.M)
    return int(found[1]) if found else 0


def top1(recipe: Recipe, document: Json) -> str:
    """Top-1 of the INT8 model with n and interval, or why there is none, from `evaluate.json`."""
    if recipe.checkpoint.kind == "seeded":
        return "none claimed: the weights are untrained"
    found = document["int8_top1"]
    if found is None:
        return f"not measured: {_no_figure(document)}"
    beside = "" if document["float_top1"] is None else f"; float {document['float_top1']['value']:.4f}"
    low, high = found["interval_95"]
    return f"{found['value']:.4f} on {found['n']:,} pictures, 95 % interval {low:.4f} to {high:.4f}{beside}"


def fastest(document: Json) -> str:
    """The fastest Ethos-U variant and its estimate, from `vela.json`."""
    best = max(document["variants"], key=lambda row: row["inferences_per_second"])
    return f"{variant_name(Target.from_json(best['target']))}: {best['inferences_per_second']:,.1f} inferences/s"


def _verify_figure(document: Json) -> str:
    return rows.counts(document["rows"])


def _evaluate_figure(document: Json) -> str:
    found, name = (
        (document["int8_top1"], "top-1")
        if document["int8_top1"] is not None
        else (document["agreement"], "same class as float")
    )
    return _no_figure(document) if found is None else f"{name} {found['value']:.4f}, {found['hits']} of {found['n']}"


def _no_figure(document: Json) -> str:
    return "no picture has a label" if document["pictures"] else "there were no pictures"


def _platforms_figure(document: Json) -> str:
    found = [_evidence(row) for row in document["rows"]]
    return ", ".join(f"{found.count(status)} {status}" for status in ("failed", *STATUSES) if status in found)


_FIGURES: dict[str, Callable[[Json], str]] = {
    "verify": _verify_figure,
    "evaluate": _evaluate_figure,
    "vela": fastest,
    "platforms": _platforms_figure,
}


def _verify(recipe: Recipe, document: Json) -> list[Block]:
    return rows.blocks(f"verify {recipe.name}", document["rows"])


def _evaluate(recipe: Recipe, document: Json) -> list[Block]:
    table = []
    for title, name in (("float top-1", "float_top1"), ("INT8 top-1", "int8_top1"), ("agreement", "agreement")):
        found = document[name]
        if found is None:
            why = "a given model has no float model" if recipe.given and name != "int8_top1" else _no_figure(document)
            table.append((title, "not measured", why, ""))
        else:
            low, high = found["interval_95"]
            hits = f"{found['hits']} of {found['n']}"
            table.append((title, f"{found['value']:.4f}", f"{low:.4f} to {high:.4f}", hits))
    if left_out := document["left_out_as_calibrated"]:
        table.append(("left out", f"{left_out}", "pictures that calibrated", ""))
    return [(f"evaluate {recipe.name}", ("figure", "value>", "95 % interval", "hits of n>"), table)]


def _vela(recipe: Recipe, document: Json) -> list[Block]:
    columns = ["target", "on the NPU>", "SRAM KiB>", "DRAM KiB>", "flash KiB>", "inferences/s>"]
    if is_wide():
        columns += ["cycles>", "memory mode", "system config"]
    table = []
    for row in document["variants"]:
        target = row["target"]
        cells = [
            variant_name(Target.from_json(target)),
            f"{row['npu_operators']} of {row['npu_operators'] + len(row['cpu_operators'])}",
            *(f"{row[area]:,.0f}" for area in ("sram_kib", "dram_kib", "flash_kib")),
            f"{row['inferences_per_second']:,.1f}",
            f"{row['cycles']:,}",
            target["memory_mode"],
            target["system_config"],
        ]
        table.append(cells[: len(columns)])
    remark = "Memory, cycles and inferences per second are Vela's estimates, not measurements on a device."
    return [(f"vela {recipe.name}", columns, table), remark]


def _platforms(recipe: Recipe, document: Json) -> list[Block]:
    """A table of four columns; what more there is to say of a row is a note of its number."""
    table, notes = [], []
    noted: dict[str, int] = {}  # tools -> the note that names them
    for number, row in enumerate(document["rows"], 1):
        what = f"{row['what']}; {row['device']}" if row["device"] else row["what"]
        agreement = str(Agreement(**row["agreement"])) if row["agreement"] else ""
        table.append((row["platform"], _evidence(row), f"{what} [{number}]", agreement))
        tools = ", ".join(row["tools"])
        first = noted.setdefault(tools, number)
        notes.append((f"[{number}]", _note(row, tools if first == number or not tools else f"tools as [{first}]")))
    return [
        (f"platforms {recipe.name}", ("platform", "evidence", "what ran", "agreement"), table),
        ("", ("note", "tools, seconds, remarks"), notes),
        f"Pictures: {document['pictures']}. Seconds are for one inference on the device named, which is emulated in "
        "most rows. No figure is that of a real device.",
    ]


def _evidence(row: Json) -> str:
    return str(row["status"]) if row["holds"] else "failed"


def _note(row: Json, tools: str) -> str:
    pictures = "" if row["pictures"] is None else _counted(row["pictures"], "picture")
    seconds = "" if row["seconds"] is None else f"{row['seconds']:.3f} s"
    parts = [
        tools,
        ", ".join(filter(None, (pictures, seconds))),
        row["note"],
        row["fault"] and f"failed: {row['fault']}",
        row["missing"] and f"missing: {row['missing']}",
    ]
    return "; ".join(filter(None, parts))


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


_BLOCKS: dict[str, Callable[[Recipe, Json], list[Block]]] = {
    "verify": _verify,
    "evaluate": _evaluate,
    "vela": _vela,
    "platforms": _platforms,
}

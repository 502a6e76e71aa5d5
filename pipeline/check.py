"""The reproducibility check: one recipe built twice under different conditions must give the same bytes.

The two builds run in separate processes and fresh folders, and differ in everything that must not matter: working
directory, locale, time zone, hash seed, thread counts and number of worker processes. Their artifacts are compared with
each other and with golden.json, in the order of the stages, so that the first difference is the cause of the others. If
an optional tool is missing, the files that depend on it are compared between the two builds only, with a warning.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import logging

from pipeline import console
from pipeline.engine import golden
from pipeline.engine.keys import is_installed
from pipeline.engine.stages import ALL
from pipeline.engine.store import Store
from pipeline.engine.work import VERIFY_FILE, Stage
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from recreate_model.compare.diff import compare
from recreate_model.compare.elements import first_difference
from recreate_model.recipe import Recipe
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import CheckError, PipelineError, ResourceError, ToolError

# The folder that holds `recreate_model`: the checkout, or site-packages.
_ROOT = Path(__file__).resolve().parents[__name__.count(".")]
_TIME_LIMIT = 1800  # seconds for one build; it takes about fifteen
_RECORD_ROUNDS = 3


@dataclass(frozen=True)
class Conditions:
    """What one build runs under."""

    name: str
    jobs: int
    environment: Mapping[str, str]


CONDITIONS = (
    Conditions(
        "one",
        1,
        {
            # With both switched off Python takes this locale at its word, and reads and writes ASCII by default.
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
            "TZ": "UTC",
            "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1",
            "TF_NUM_INTRAOP_THREADS": "1",
        },
    ),
    Conditions(
        "two",
        2,
        {
            "LC_ALL": "C.UTF-8",
            "TZ": "Asia/Kathmandu",
            "PYTHONHASHSEED": "4711",
            "OMP_NUM_THREADS": "4",
            "TF_NUM_INTRAOP_THREADS": "4",
            "TF_ENABLE_ONEDNN_OPTS": "0",
        },
    ),
)


@dataclass(frozen=True)
class Difference:
    """An artifact that is not the same: `left` and `right` say of what, `where` says how."""

    path: str
    left: str
    right: str
    where: str


def run(model: str, record: bool, as_json: bool, quiet: bool) -> int:
    """Builds twice, compares, reports, and returns 0.

    Raises:
        CheckError: two files differ, or a claim does not hold.
        ResourceError: `record` without an optional tool.
        ToolError: a build failed.
    """
    missing = missing_tools()
    if record and missing:
        raise _cannot_record(missing)
    progress = console.progress(quiet or as_json)
    recipe, _ = resolve(Request(model=model, checkpoint="seeded", images="procedural"), progress, may_fetch=False)
    with tempfile.TemporaryDirectory(prefix="recreate_model-check-") as scratch:
        folders = []
        for conditions in CONDITIONS:
            with progress.bar(f"build {conditions.name} of {len(CONDITIONS)}"):
                folders.append(_build(model, recipe, conditions, Path(scratch)))
        differences = list(between(*folders))
        if record and not differences:
            _record(model, recipe, folders[0], Path(scratch))
        claims = golden.artifacts(recipe)
        unmeasured = without_tools(missing, folders[0])
        if claims is not None:
            claims = {path: digest for path, digest in claims.items() if path not in unmeasured}
            differences += against(claims, folders[0], unmeasured)
        count = len(digests(folders[0]))
        holds = json.loads((folders[0] / VERIFY_FILE).read_text(encoding="utf-8"))["holds"]
    if claims is None:
        logging.warning(
            "golden.json has no entry for %s; the two builds are compared with each other only", recipe.name
        )
    elif unmeasured:
        logging.warning(
            "not compared with golden.json, as %s is not installed: %s",
            _named(unmeasured),
            ", ".join(unmeasured),
        )
    if as_json:
        rows = [vars(difference) for difference in differences]
        print(
            json.dumps({"build": recipe.name, "recipe": recipe.id, "artifacts": count, "differences": rows}, indent=2)
        )
    if differences:
        raise _failed(recipe, differences)
    if not holds:
        raise CheckError(
            expected=f"every claim about {recipe.name} to hold",
            found="one that does not, in both builds",
            done="nothing was kept",
            next_step=f"run `python -m pipeline verify --model {model} --checkpoint seeded --images procedural`",
        )
    if not (quiet or as_json):
        compared = "; golden.json has no entry to compare with"
        if claims is not None:
            compared = f"; the {len(claims)} that golden.json has are as recorded"
        print(f"{recipe.name}: {count} artifacts, built twice, byte for byte the same{compared}")
    return 0


def digests(folder: Path, stages: Sequence[Stage] = ALL) -> dict[str, str]:
    """Path -> SHA-256 of every artifact of a build, in the order of the stages."""
    records = Store(folder).records()
    return {
        path: sha256
        for stage in stages
        if stage.name in records
        for path, sha256 in records[stage.name].outputs.items()
    }


def recorded(folder: Path) -> dict[str, str]:
    """Those of `digests` that golden.json has: not the files of a witness, which record code and versions of tools."""
    return digests(folder, [stage for stage in ALL if not stage.witness])


def missing_tools(stages: Sequence[Stage] = ALL) -> dict[str, tuple[str, ...]]:
    """Stage -> missing optional tools, its own and those of every stage it needs; only stages that lack one."""
    missing: dict[str, tuple[str, ...]] = {}
    for stage in stages:
        needed = [tool for need in stage.needs for tool in missing.get(need, ())]
        own = [tool for tool in stage.optional_tools if not is_installed(tool)]
        if tools := tuple(dict.fromkeys((*needed, *own))):
            missing[stage.name] = tools
    return missing


def without_tools(missing: Mapping[str, tuple[str, ...]], folder: Path) -> dict[str, tuple[str, ...]]:
    """Path -> missing tools, for every artifact of the stages that lack one, except witnesses."""
    stages = [stage for stage in ALL if stage.name in missing and not stage.witness]
    return {path: missing[stage.name] for stage in stages for path in digests(folder, [stage])}


def between(one: Path, two: Path) -> Iterator[Difference]:
    """Every artifact that differs between two build folders, by its bytes."""
    left, right = digests(one), digests(two)
    for path in left | right:
        if path not in left or path not in right:
            yield Difference(path, left.get(path, "missing"), right.get(path, "missing"), "only one build has it")
            continue
        a, b = (one / path).read_bytes(), (two / path).read_bytes()
        if a != b:
            yield Difference(path, digest_bytes(a), digest_bytes(b), describe(path, a, b))


def against(claims: Mapping[str, str], folder: Path, but: Container[str] = ()) -> Iterator[Difference]:
    """Every artifact of a build with another digest than in golden.json, except those in `but`."""
    found = {path: digest for path, digest in recorded(folder).items() if path not in but}
    for path in {**found, **claims}:
        if found.get(path) != claims.get(path):
            yield Difference(
                path, claims.get(path, "missing"), found.get(path, "missing"), "golden.json against this build"
            )


def describe(path: str, a: bytes, b: bytes) -> str:
    """Where two contents differ: the decisive difference of two models, or the first byte."""
    if path.endswith(".tflite"):
        return str(compare(a, b, (path, path)).decisive[0])
    return f"from byte {first_difference(a, b)} of {len(a)} and {len(b)}"


def _build(model: str, recipe: Recipe, conditions: Conditions, scratch: Path) -> Path:
    """One build in a process of its own; the code is found by PYTHONPATH, as the working directory is elsewhere."""
    out, cwd = scratch / conditions.name / "out", scratch / conditions.name / "elsewhere"
    cwd.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", __package__, "all", "--model", model, "--checkpoint", "seeded"]
    command += ["--images", "procedural", "--jobs", str(conditions.jobs), "--out", str(out), "--quiet"]
    environment = {**os.environ, **conditions.environment, "PYTHONPATH": str(_ROOT)}
    try:
        result = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=_TIME_LIMIT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _build_failed(conditions, f"none after {_TIME_LIMIT} s") from error
    folder = out / recipe.folder
    # Status 1 is a claim that does not hold; the comparison, which comes first, is more exact about it.
    if result.returncode not in (0, 1) or Store(folder).records().keys() != {stage.name for stage in ALL}:
        raise _build_failed(conditions, f"status {result.returncode}: {result.stderr.strip()[-500:]}")
    return folder


def _record(model: str, recipe: Recipe, folder: Path, scratch: Path) -> None:
    """Writes golden.json. It is an input of verify.json, so the digests are final after one more build."""
    for _ in range(_RECORD_ROUNDS):
        found = recorded(folder)
        if golden.artifacts(recipe) == found:
            return
        golden.record(recipe, found)
        _build(model, recipe, CONDITIONS[0], scratch)
    raise ToolError(
        expected=f"golden.json to settle within {_RECORD_ROUNDS} builds",
        found="digests that change with every one",
        next_step="look at what verify.json depends on",
    )


def _named(missing: Mapping[str, tuple[str, ...]]) -> str:
    return ", ".join(sorted({tool for tools in missing.values() for tool in tools}))


def _cannot_record(missing: Mapping[str, tuple[str, ...]]) -> ResourceError:
    # Otherwise golden.json would record the files as they are without it.
    return ResourceError(
        expected="every optional tool to be installed where golden.json is recorded",
        found=f"no {_named(missing)}",
        done="golden.json was left as it is",
        next_step="python -m pip install -r requirements/runtime.lock",
    )


def _build_failed(conditions: Conditions, found: str) -> ToolError:
    return ToolError(
        expected=f"build {conditions.name} of the check to end with a result",
        found=found,
        next_step="run `python -m pipeline all --checkpoint seeded --images procedural` by hand",
    )


def _failed(recipe: Recipe, differences: list[Difference]) -> PipelineError:
    first = differences[0]
    return CheckError(
        expected=f"{first.path} of {recipe.name} to be {first.left}",
        found=f"{first.right} ({first.where}), the first of {len(differences)} differences",
        done="nothing was kept",
        next_step="find what changed; if it was meant, run `python -m pipeline check --record`, review golden.json",
    )

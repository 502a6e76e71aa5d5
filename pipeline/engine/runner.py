"""Runs stages in order, each only when its key or its files changed."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.engine.keys import KeyParts, key_parts
from pipeline.engine.store import Record, Store, as_json
from pipeline.engine.work import REPORTED, Machine, Stage, Work, left_out_file
from recreate_model.recipe import Recipe
from recreate_model.support.digest import Json, readable_json
from recreate_model.support.errors import CheckError, InputError, ResourceError, reason


@dataclass(frozen=True)
class Outcome:
    """The result of one stage.

    Attributes:
        state: `reused`, `built`, or `left out` if the stage cannot work on the model.
        why: why the stage was built or left out.
        outputs: path in the build folder -> SHA-256.
        holds: False if the stage found a claim that does not hold.
    """

    stage: str
    state: str
    why: str
    outputs: Mapping[str, str]
    holds: bool


@dataclass(frozen=True)
class Freshness:
    """Whether a stage would run again: `state` is `fresh`, `stale` or `missing`; `reasons` say why."""

    stage: str
    state: str
    reasons: tuple[str, ...]


def with_needs(names: Collection[str], stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The named stages and everything they need, in the order of the table."""
    wanted = set(names)
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted.update(stage.needs)
    return tuple(stage for stage in stages if stage.name in wanted)


def build(
    stages: Sequence[Stage],
    recipe: Recipe,
    machine: Machine,
    force: Collection[str],
    on_wait: Callable[[], None],
    on_build: Callable[[Freshness], None] = lambda freshness: None,
    on_done: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Brings stages up to date.

    Args:
        stages: in the order of the table, with every stage that one of them needs.
        force: names of stages to run even if they are up to date.
        on_wait: called once if another process holds the build folder.
        on_build: called before a stage runs, with the reasons.
        on_done: called when a stage is up to date, with its result.

    Raises:
        PipelineError: from a stage, or because of the file system.
    """
    store = Store(machine.out / recipe.folder)
    outcomes: list[Outcome] = []
    with _file_system_errors(store), store.exclusive(on_wait):
        records: dict[str, Record] = store.records()
        for stage in stages:
            used = _used(store, stage, recipe, records)
            parts = _key_parts(stage, recipe, records, used)
            freshness = _freshness(store, stage, parts, records.get(stage.name))
            forced = "requested with --force" if stage.name in force else ""
            forced = "it depends on the tools of this machine" if stage.on_demand else forced
            why = "; ".join(freshness.reasons) or forced
            if why:
                on_build(freshness)
                records[stage.name] = _run(store, stage, parts, recipe, machine, _witnessed(stage, records, used))
            outcomes.append(_outcome(store, stage, records[stage.name], why))
            on_done(outcomes[-1])
    return outcomes


def _outcome(store: Store, stage: Stage, record: Record, why: str) -> Outcome:
    if left_out_file(stage.name) in record.outputs:
        reason = json.loads((store.folder / left_out_file(stage.name)).read_text(encoding="utf-8"))
        why = f"expected {reason['expected']}; found {reason['found']}"
        return Outcome(stage.name, "left out", why, record.outputs, holds=True)
    return Outcome(stage.name, "built" if why else "reused", why, record.outputs, _holds(store, stage))


def _holds(store: Store, stage: Stage) -> bool:
    if not stage.verdict:
        return True
    return bool(json.loads((store.folder / stage.verdict).read_text(encoding="utf-8"))["holds"])


def inspect(stages: Sequence[Stage], recipe: Recipe, machine: Machine) -> list[Freshness]:
    """What `build` would do: the freshness of each stage."""
    store = Store(machine.out / recipe.folder)
    with _file_system_errors(store):
        records = store.records()
    result: list[Freshness] = []
    # Stage that is not fresh -> the changes that caused it, in this stage or an earlier one.
    roots: dict[str, tuple[str, ...]] = {}
    for stage in stages:
        blocked = [need for need in stage.needs if need in roots]
        if blocked and stage.name in records:
            causes = dict.fromkeys(cause for need in blocked for cause in roots[need])
            freshness = Freshness(stage.name, "stale", tuple(causes))
        elif blocked:
            freshness = Freshness(stage.name, "missing", ("never built",))
        else:
            parts = _key_parts(stage, recipe, records, _used(store, stage, recipe, records))
            freshness = _freshness(store, stage, parts, records.get(stage.name))
        if freshness.state != "fresh":
            direct = tuple(f"{stage.name}: {reason}" for reason in freshness.reasons)
            roots[stage.name] = freshness.reasons if blocked and freshness.state == "stale" else direct
        result.append(freshness)
    return result


def left_out(stages: Sequence[Stage], recipe: Recipe, machine: Machine) -> list[str]:
    """Stages on demand whose files are outdated, so that the stages that want them were built without them."""
    records = Store(machine.out / recipe.folder).records()
    found: dict[str, None] = {}
    for stage in stages:
        record = records.get(stage.name)
        inputs = record.parts.inputs if record and record.parts else {}
        for want in stage.wants:
            if want.name in records and not records[want.name].outputs.keys() <= inputs.keys():
                found[want.name] = None
    return list(found)


def _freshness(store: Store, stage: Stage, parts: KeyParts, record: Record | None) -> Freshness:
    if record is None:
        return Freshness(stage.name, "missing", ("never built",))
    if record.parts is None:
        return Freshness(stage.name, "missing", ("an earlier run was stopped while it replaced these files",))
    if changes := parts.changes_since(record.parts):
        return Freshness(stage.name, "stale", tuple(changes))
    if damaged := store.damaged(record):
        return Freshness(stage.name, "stale", tuple(f"{path} is missing or changed" for path in damaged))
    return Freshness(stage.name, "fresh", ())


def _run(
    store: Store, stage: Stage, parts: KeyParts, recipe: Recipe, machine: Machine, witnessed: Mapping[str, Json]
) -> Record:
    inputs = {path: store.folder / path for path in parts.inputs}
    with store.scratch() as scratch:
        work = Work(recipe, machine, inputs, scratch, witnessed)
        try:
            importlib.import_module(stage.module).run(work)
        except (InputError, CheckError) as error:
            if stage.any_model or not recipe.given:
                raise
            shutil.rmtree(scratch)
            reason = {"stage": stage.name, "expected": error.expected, "found": error.found}
            work.write(left_out_file(stage.name), readable_json(reason))
        return store.publish(stage.name, parts, scratch)


def _used(store: Store, stage: Stage, recipe: Recipe, records: Mapping[str, Record]) -> tuple[str, ...]:
    """Names of the stages whose files are inputs of a stage: those it needs, and those it wants that are up to date."""
    used = list(stage.needs)
    for want in stage.wants:
        if _is_fresh(store, want, recipe, records):
            # Behind everything it was made from, so that a witness lists the stages in the order of the table.
            used.insert(1 + max(used.index(need) for need in want.needs), want.name)
    return tuple(used)


def _is_fresh(store: Store, stage: Stage, recipe: Recipe, records: Mapping[str, Record]) -> bool:
    if any(need not in records for need in (*stage.needs, stage.name)):
        return False
    parts = _key_parts(stage, recipe, records, stage.needs)
    return _freshness(store, stage, parts, records[stage.name]).state == "fresh"


def _key_parts(stage: Stage, recipe: Recipe, records: Mapping[str, Record], used: Sequence[str]) -> KeyParts:
    outputs = ((path, digest) for need in used for path, digest in records[need].outputs.items())
    inputs = {path: digest for path, digest in outputs if stage.reports or path not in REPORTED}
    witnessed = _witnessed(stage, records, used)
    return key_parts(stage, recipe, inputs, {need: entry["key"] for need, entry in witnessed.items()})


def _witnessed(stage: Stage, records: Mapping[str, Record], used: Sequence[str]) -> dict[str, Json]:
    return {need: as_json(records[need]) for need in used} if stage.witness else {}


@contextlib.contextmanager
def _file_system_errors(store: Store) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _file_system_error(error, store) from error


def _file_system_error(error: OSError, store: Store) -> ResourceError:
    next_steps = {
        errno.ENOSPC: "free some space, or give another folder with --out",
        errno.EFBIG: "raise the limit on file sizes, or give another folder with --out",
        errno.EACCES: "make the folder writable, or give another with --out",
        errno.EROFS: "give a writable folder with --out",
    }
    where = str(error.filename or store.folder)
    if not where.startswith(str(store.folder)):
        # Not in the build folder, so --out changes nothing: most likely in the temporary folder.
        next_steps = {errno.ENOSPC: "free some space there, or set TMPDIR to another folder"}
    return ResourceError(
        expected=f"to read and write {where}",
        found=reason(error),
        done="finished stages are kept, the unfinished one left no file",
        next_step=next_steps.get(error.errno or 0, "look at that path, or give another folder with --out"),
    )

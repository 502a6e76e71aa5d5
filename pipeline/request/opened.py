"""A build as a command works on it: what was typed and what the build keeps of its options, put together.

For: one way from a command line to a recipe, for every command on a build. Not for: running stages (`runner`).
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.console import Progress
from pipeline.engine import runner
from pipeline.engine.stages import GIVEN, MAKING, MODEL_STAGE, stages_of
from pipeline.engine.store import Record, Store
from pipeline.engine.work import Machine, Stage, model_file
from pipeline.ethos_u.targets import merged, spell
from pipeline.request import published_recipe
from pipeline.request.given import check_options
from pipeline.request.options import keep_options, kept_options, settle, warn_of_pictures
from pipeline.request.request import PICTURE_OPTIONS, PUBLISHED_OPTIONS, Request, flag, typed
from pipeline.request.resolve import complete, start
from recreate_model.recipe import Recipe, Target
from recreate_model.support.errors import InputError, UsageError

# Commands that make models: their options are those of the build from then on.
_MAKERS = ("all", *MAKING)
# Commands that only look: nothing is stale afterwards that was not before, so they may be given anything.
_LOOKING = ("status", "explain")
# `vela --sram`: it has targets of its own, and leaves those of the build alone.
TRYING = "vela --sram"
# Stages after which the options of a build are known to be those of its files.
_SETTLED = (MODEL_STAGE, GIVEN.name, "evaluate", "vela")


@dataclass(frozen=True)
class Opened:
    """A build that a command works on.

    Attributes:
        request: with the options that the build keeps.
    """

    request: Request
    recipe: Recipe
    machine: Machine

    @property
    def folder(self) -> Path:
        return self.machine.out / self.recipe.folder

    @property
    def stages(self) -> tuple[Stage, ...]:
        return stages_of(self.recipe)

    @property
    def model_stage(self) -> str:
        """Name of the stage that makes the INT8 model, or takes the one given."""
        return GIVEN.name if self.recipe.given else MODEL_STAGE

    def model(self) -> bytes | None:
        """The INT8 model as the build has it, up to date or not; None where there is none, or not as it was made."""
        record = Store(self.folder).records().get(self.model_stage)
        if record is None or record.parts is None or Store(self.folder).damaged(record):
            return None
        return (self.folder / model_file(self.recipe)).read_bytes()

    def keep(self, outcome: runner.Outcome) -> None:
        """Keeps the options of a build of which a stage has become up to date."""
        if outcome.stage in _SETTLED:
            keep_options(self.folder, self.request)

    def refuse_to_make(self) -> None:
        """Raises InputError where the build's own model is not there or not up to date: who checks does not make it."""
        if self.recipe.given:
            return
        rows = runner.inspect(runner.with_needs((self.model_stage,), self.stages), self.recipe, self.machine)
        for row in rows:
            if row.state == "fresh":
                continue
            there = row.stage in Store(self.folder).records()
            raise InputError(
                expected=f"{self.folder} to hold a model that is up to date, as this command makes none",
                found=f"`{row.stage}` {row.state}: {row.reasons[0]}" if there else "none",
                done="no model was made or changed",
                next_step="python -m pipeline all, with the same options",
            )


def open_build(arguments: argparse.Namespace, command: str, progress: Progress, may_fetch: bool) -> Opened:
    """The build that a command line is about.

    Args:
        command: that was typed; it decides which of the build's options may be given otherwise.
        may_fetch: as for `resolve`.

    Raises:
        UsageError: an option contradicts the build. And whatever `resolve` raises.
    """
    names = typed(arguments)
    check_options(command, names, MAKING)
    request = Request.given(arguments)
    published_recipe.check_options(request, names)
    published_recipe.check_files(request, names)
    begun = start(request, progress, may_fetch)
    folder = request.out / begun.recipe.folder
    records = Store(folder).records()
    kept = kept_options(folder)
    warn_of_pictures(names, kept or {})
    free = command in (*_MAKERS, *_LOOKING) or arguments.force
    request = settle(request, names, kept, None if free else _own(command, begun.recipe, kept or {}))
    had = _targets(records)
    if command == "vela" and had and "optimize" in names and "targets" not in names:
        request = replace(request, targets=spell(had))
    recipe, machine = complete(request, begun, progress)
    recipe = replace(recipe, targets=_chosen(command, names, had, recipe.targets, free))
    return Opened(request, recipe, machine)


def _own(command: str, recipe: Recipe, kept: Mapping[str, object]) -> Collection[str]:
    """The options that a command may change, as nothing but its own stage depends on them."""
    if command == "evaluate":
        # Where ranges are measured, the pictures are the model's.
        free = ("limit", *PICTURE_OPTIONS) if recipe.given or recipe.toolchain or "ranges" in kept else ("limit",)
        return (*PUBLISHED_OPTIONS, *free)
    return (*PUBLISHED_OPTIONS, "vela_config") if command in ("vela", TRYING) else PUBLISHED_OPTIONS


def _targets(records: Mapping[str, Record]) -> tuple[Target, ...]:
    """Those of the variants in a build; none where it has none."""
    record = records.get("vela")
    if record is None or record.parts is None:
        return ()
    return tuple(Target(**target) for target in record.parts.recipe["targets"])


def _chosen(
    command: str, names: Collection[str], had: tuple[Target, ...], found: tuple[Target, ...], free: bool
) -> tuple[Target, ...]:
    """The targets of a build: those it has, unless others were typed; `vela` adds those to it.

    Args:
        had: by the build.
        found: what was typed, or the default.
        free: whether the command may give the build other options.
    """
    wanted = [name for name in ("targets", "optimize", "vela_config") if name in names]
    if not had or (wanted and free):
        return found
    if not wanted or command == TRYING:
        return had
    if command == "vela":
        return merged(had, found)
    if set(found) != set(had):
        raise UsageError(
            expected=f"the targets that this build has, {spell(had)}",
            found=f"other ones, by {flag(wanted[0])}",
            done="the build is as it was",
            next_step=f"leave {flag(wanted[0])} out; `vela` adds variants to a build, and `all` replaces them",
        )
    return had

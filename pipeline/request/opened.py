"""The build that a command works on: typed options combined with those that the build keeps.

For: one way from a command line to a recipe, for every command on a build. Not for: running stages (`runner`).
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.engine import runner
from pipeline.engine.stages import GIVEN, MAKING, MODEL_STAGE, stages_of
from pipeline.engine.store import Record, Store
from pipeline.engine.work import Machine, Stage, model_file
from pipeline.ethos_u.targets import merged, spell
from pipeline.progress import Progress
from pipeline.request import published_recipe
from pipeline.request.given import check_options
from pipeline.request.options import keep_options, kept_options, settle, warn_of_pictures
from pipeline.request.request import OPTIONS, PICTURE_OPTIONS, PUBLISHED_OPTIONS, Request, flag, typed
from pipeline.request.resolve import complete, start
from recreate_model.recipe import Recipe, Target
from recreate_model.support.errors import InputError, UsageError

# Commands that make models: the build keeps their options from then on.
_MAKERS = ("all", *MAKING)
# Commands that change nothing, so any options are allowed.
_INSPECTING = ("status", "explain")
# `vela --sram` has targets of its own, and leaves those of the build alone.
TRYING = "vela --sram"
# Once one of these stages is up to date, the options are those of the build's files.
_KEEPING = (MODEL_STAGE, GIVEN.name, "evaluate", "vela")


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
        """The build's INT8 model, up to date or not; None if it has none, or the file was changed."""
        record = Store(self.folder).records().get(self.model_stage)
        if record is None or record.parts is None or Store(self.folder).damaged(record):
            return None
        return (self.folder / model_file(self.recipe)).read_bytes()

    def keep(self, outcome: runner.Outcome) -> None:
        """Keeps the options of the build, once the stages that depend on them are up to date."""
        if outcome.stage in _KEEPING:
            keep_options(self.folder, self.request)

    def refuse_to_make(self) -> None:
        """Raises InputError unless the build's model is up to date, for commands that check it and must not make it."""
        if self.recipe.given:
            return
        rows = runner.inspect(runner.with_needs((self.model_stage,), self.stages), self.recipe, self.machine)
        for row in rows:
            if row.state == "fresh":
                continue
            exists = row.stage in Store(self.folder).records()
            raise InputError(
                expected=f"an up-to-date model in {self.folder}, as this command does not make one",
                found=f"`{row.stage}` {row.state}: {row.reasons[0]}" if exists else "none",
                done="no model was made or changed",
                next_step="python -m pipeline all, with the same options",
            )


def open_build(arguments: argparse.Namespace, command: str, progress: Progress, may_fetch: bool) -> Opened:
    """The build that a command line is about.

    Args:
        command: the command that was typed; it decides which options of the build it may change.
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
    free = command in (*_MAKERS, *_INSPECTING) or arguments.force
    request = settle(request, names, kept, None if free else _own(command, begun.recipe, kept or {}))
    had = _targets(records)
    if command == "vela" and had and "optimize" in names and "targets" not in names:
        request = replace(request, targets=spell(had))
    recipe, machine = complete(request, begun, progress)
    recipe = replace(recipe, targets=_chosen(command, names, had, recipe.targets, free))
    return Opened(request, recipe, machine)


def _own(command: str, recipe: Recipe, kept: Mapping[str, object]) -> Collection[str]:
    """Names of the options that a command may change, as only its own stage depends on them."""
    stage = "vela" if command == TRYING else command
    own = tuple(name for name, option in OPTIONS.items() if option.changed_by == stage)
    # If ranges are measured, the pictures decide the model.
    if command == "evaluate" and (recipe.given or recipe.toolchain or "ranges" in kept):
        own += PICTURE_OPTIONS
    return (*PUBLISHED_OPTIONS, *own)


def _targets(records: Mapping[str, Record]) -> tuple[Target, ...]:
    """The targets of the variants in a build."""
    record = records.get("vela")
    if record is None or record.parts is None:
        return ()
    return tuple(Target.from_json(target) for target in record.parts.recipe["targets"])


def _chosen(
    command: str, names: Collection[str], had: tuple[Target, ...], found: tuple[Target, ...], free: bool
) -> tuple[Target, ...]:
    """The targets of a build: those it has, unless others were typed; `vela` adds to them.

    Args:
        had: targets that the build has.
        found: targets that were typed, or the default.
        free: whether the command may change the options of the build.
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
            found=f"others, from {flag(wanted[0])}",
            done="the build was not changed",
            next_step=f"leave {flag(wanted[0])} out; `vela` adds variants to a build, and `all` replaces them",
        )
    return had

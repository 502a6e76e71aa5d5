"""The commands that run stages, and `status` and `explain`, which say what would run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pipeline.engine.stages import STAGES
from pipeline.interface.commands import answer, bring_up_to_date

if TYPE_CHECKING:
    from pipeline.engine.runner import Outcome
    from pipeline.request.opened import Opened

# Commands that examine a model and never make one.
_CHECKING = ("verify", "evaluate", "platforms")


def build(arguments: argparse.Namespace) -> int:
    """Runs a stage, or all of them, and returns the exit status."""
    from pipeline import console
    from pipeline.engine import runner
    from pipeline.interface.views import build as build_view
    from pipeline.request.find_pictures import warn_of_evaluation
    from pipeline.request.opened import open_build

    command = arguments.command
    progress = console.progress(arguments.quiet or arguments.json)
    build = open_build(arguments, command, progress, may_fetch=command != "labels")
    everything = tuple(stage.name for stage in build.stages if not stage.on_demand)
    wanted = everything if command == "all" else (command,)
    if command in _CHECKING and not arguments.force:
        build.refuse_to_make()
    if any(stage.name == "evaluate" for stage in runner.with_needs(wanted, build.stages)):
        warn_of_evaluation(build.recipe, build.request)
    outcomes = bring_up_to_date(wanted, build, arguments, required=(command,))
    failed = [outcome for outcome in outcomes if not outcome.holds]
    status = 1 if failed else 0
    answer(
        arguments,
        lambda: build_view.document(build.folder, build.recipe, outcomes, wanted, status),
        lambda: build_view.blocks(
            build.folder, build.recipe, outcomes, command, arguments.files, _behind(build, outcomes)
        ),
    )
    if failed:
        _raise_failed(failed, build.folder)
    return status


def _behind(build: Opened, outcomes: Sequence[Outcome]) -> list[str]:
    """Warnings of other stages of the build that are not up to date."""
    from pipeline.engine import runner

    ran = [outcome.stage for outcome in outcomes]
    everything = tuple(stage for stage in build.stages if not stage.on_demand)
    # After `all` nothing else can be stale, and looking would hash every file once more.
    rest = () if {stage.name for stage in everything} <= set(ran) else everything
    stale = [row.stage for row in runner.inspect(rest, build.recipe, build.machine) if row.state == "stale"]
    if stale:
        return [f"stale: {', '.join(stale)}; `all` brings them up to date"]
    stages = tuple(stage for stage in build.stages if stage.name in ran)
    if unused := runner.left_out(stages, build.recipe, build.machine):
        names = ", ".join(unused)
        return [f"{names} ran on other files, so the card leaves it out; run {names} again, then `all`"]
    return []


def _raise_failed(failed: Sequence[Outcome], folder: Path) -> NoReturn:
    from recreate_model.support.errors import CheckError

    verdicts = [stage.verdict for stage in STAGES if stage.name in {outcome.stage for outcome in failed}]
    raise CheckError(
        expected=f"every claim of {', '.join(f'`{outcome.stage}`' for outcome in failed)} to hold",
        found="one that does not",
        done="the files are kept",
        next_step=f"look at {', '.join(str(folder / verdict) for verdict in verdicts)}",
    )


def inspect(arguments: argparse.Namespace) -> int:
    """Says what is up to date and why, for `status` and `explain`; returns the exit status."""
    from pipeline import console
    from pipeline.engine import runner
    from pipeline.interface.views import status as status_view
    from pipeline.request.opened import open_build

    build = open_build(arguments, arguments.command, console.NoBars(), may_fetch=False)
    rows = runner.inspect(build.stages, build.recipe, build.machine)
    if arguments.command == "explain":
        rows = [row for row in rows if row.stage == arguments.stage]
        blocks = partial(status_view.explain_blocks, rows)
    else:
        blocks = partial(status_view.status_blocks, build.folder, rows)
    answer(arguments, lambda: status_view.document(rows), blocks)
    return 0

"""The commands that run stages, and those that say what running them would do."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.engine.stages import STAGES

if TYPE_CHECKING:
    from pipeline.engine.runner import Outcome

# Commands that look at a model, and make or change none.
_CHECKING = ("verify", "evaluate", "platforms")


def build(arguments: argparse.Namespace) -> int:
    """Runs a stage, or all of them, and returns the exit status."""
    from pipeline import console
    from pipeline.engine import runner
    from pipeline.interface.views import build as build_view
    from pipeline.request.opened import open_build
    from pipeline.request.resolve import warn_of_evaluation

    command = arguments.command
    progress = console.progress(arguments.quiet or arguments.json)
    build = open_build(arguments, command, progress, may_fetch=command != "labels")
    ours, folder = build.stages, build.folder
    everything = tuple(stage for stage in ours if not stage.on_demand)
    wanted = tuple(stage.name for stage in everything) if command == "all" else (command,)
    stages = runner.with_needs(wanted, ours)
    if command in _CHECKING and not arguments.force:
        build.refuse_to_make()
    if any(stage.name == "evaluate" for stage in stages):
        warn_of_evaluation(build.recipe, build.request)
    outcomes = runner.build(
        stages,
        build.recipe,
        build.machine,
        force=wanted if arguments.force else (),
        on_wait=lambda: console.waiting(folder),
        on_build=build_view.announce,
        on_done=build.keep,
    )
    for outcome in outcomes:
        if outcome.state == "left out" and outcome.stage == command:
            raise build_view.left_out_error(outcome, folder)
    failed = [outcome for outcome in outcomes if not outcome.holds]
    status = 1 if failed else 0
    if arguments.json:
        print(json.dumps(build_view.build_json(folder, build.recipe, outcomes, wanted, status), indent=2))
    elif not arguments.quiet:
        build_view.print_build(folder, build.recipe, outcomes, wanted)
        # After `all` nothing else can be stale, and looking would hash every file once more.
        left = () if stages == everything else runner.inspect(everything, build.recipe, build.machine)
        stale = [row.stage for row in left if row.state == "stale"]
        if stale:
            print(f"Made from something else and not up to date: {', '.join(stale)}. `all` brings them up to date.")
        elif unused := runner.left_out(stages, build.recipe, build.machine):
            names = ", ".join(unused)
            print(f"Not of this build as it is, so the card has none of it: {names}. Run it again, then `all`.")
    for outcome in failed:
        _print_failed(outcome, folder)
    return status


def _print_failed(outcome: Outcome, folder: Path) -> None:
    verdict = next(stage.verdict for stage in STAGES if stage.name == outcome.stage)
    print(
        f"error: expected every claim of `{outcome.stage}` to hold; found one that does not; "
        f"done: the files are kept; next: look at {folder / verdict}",
        file=sys.stderr,
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
    if arguments.json:
        print(json.dumps([{"stage": r.stage, "state": r.state, "reasons": r.reasons} for r in rows], indent=2))
    elif not arguments.quiet:
        (status_view.print_status if arguments.command == "status" else status_view.print_explanation)(rows)
    return 0

"""The commands that run no stage, and the options that make a stage's command do something else, one module each.

To add one, add a module and its row in `pipeline.interface.arguments`.

What a command needs is imported inside its `run`, as `--help` reads every one of these modules.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pipeline.console import Block
    from pipeline.engine.runner import Outcome
    from pipeline.request.opened import Opened
    from recreate_model.support.digest import Json


class Command(Protocol):
    """The interface of each of these modules."""

    SUMMARY: str
    EXAMPLE: str  # what is typed behind the program's name

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds what the command takes beside `--json` and `--quiet`."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Runs the command and returns its exit status."""


class Variant(Protocol):
    """An option that makes a stage's command do something else than build the stage."""

    FLAG: str  # under which the parser keeps the option; None where it was not given
    REPLACES: str  # the option of a build that has the same spelling; empty for none

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the option to those of a build."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Does what the option asks for and returns the exit status."""


def add_published_and_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a command that looks at a published model beside a checkpoint."""
    add = parser.add_argument
    add("published", type=Path, nargs="?", metavar="PUBLISHED", help="an INT8 .tflite (default: the card's, fetched)")
    add("--model", help="member of the family: width_resolution (default 1.0_224)")
    add(
        "--checkpoint",
        default="official",
        metavar="official|seeded|PATH",
        help="float weights, in any form (default official)",
    )


def bring_up_to_date(
    names: Collection[str], build: Opened, arguments: argparse.Namespace, required: Collection[str] | None = None
) -> list[Outcome]:
    """Runs stages and the stages they need, with one line for each as it ends; returns the outcome of all of them.

    Args:
        names: of the stages; with `--force` these run even if they are up to date.
        required: stages that must not be left out of the build; by default those of `names`.

    Raises:
        InputError: a required stage cannot work on the model.
    """
    from pipeline import console
    from pipeline.engine import runner
    from pipeline.interface.views import build as build_view
    from pipeline.interface.views.stages import StageLines

    lines = StageLines(build, show=not (arguments.quiet or arguments.json))

    def done(outcome: Outcome) -> None:
        build.keep(outcome)
        lines.ends(outcome)

    outcomes = runner.build(
        runner.with_needs(names, build.stages),
        build.recipe,
        build.machine,
        force=names if getattr(arguments, "force", False) else (),
        on_wait=lambda: console.waiting(build.folder),
        on_build=lines.begins,
        on_done=done,
    )
    lines.flush()
    for outcome in outcomes:
        if outcome.state == "left out" and outcome.stage in (names if required is None else required):
            raise build_view.left_out_error(outcome, build.folder)
    return outcomes


def answer(arguments: argparse.Namespace, document: Callable[[], Json], blocks: Callable[[], Sequence[Block]]) -> None:
    """Prints a command's result: JSON with `--json`, nothing with `--quiet`, lines and tables otherwise."""
    from pipeline.console import print_blocks

    if arguments.json:
        print(json.dumps(document(), indent=2, allow_nan=False))
    elif not arguments.quiet:
        print_blocks(blocks())


def announcer(arguments: argparse.Namespace) -> Callable[[str], None]:
    """A function that says on standard error what a long step does: as JSON with `--json`, nothing with `--quiet`."""

    def announce(sentence: str) -> None:
        if not arguments.quiet:
            line = json.dumps({"progress": sentence}) if arguments.json else sentence
            print(line, file=sys.stderr, flush=True)

    return announce


def files_of(build: Opened, outcomes: Iterable[Outcome]) -> dict[str, Path]:
    """The files of the stages, by their path in the build."""
    return {path: build.folder / path for outcome in outcomes for path in outcome.outputs}


def check_no_build_options(
    arguments: argparse.Namespace, option: str, why: str, done: str, but: Collection[str] = ()
) -> None:
    """Refuses options of a build where an option makes the command do something else.

    Args:
        option: the option that does so, as it is typed.
        done: what was done, for the error.
        but: fields of a request that may be given with it.

    Raises:
        UsageError: another option of a build was given.
    """
    from pipeline.request.request import flag, typed
    from recreate_model.support.errors import UsageError

    given = [flag(name) for name in typed(arguments) if name not in but] + ["--force"] * arguments.force
    if given:
        raise UsageError(
            expected=f"no options of a build beside {option}, {why}",
            found=", ".join(given),
            done=done,
            next_step="leave them out",
        )

"""The commands that are no stage, and the options that replace a stage's build, one module each.

To add one, add a module and its row in `pipeline.cli`.

What a command needs is imported inside its `run`, as `--help` reads every one of these modules.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Protocol


class Command(Protocol):
    """What each of the modules has."""

    SUMMARY: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds what the command takes beside `--json` and `--quiet`."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Runs the command and returns its exit status."""


class Variant(Protocol):
    """An option that makes a stage's command do something else than build the stage."""

    FLAG: str  # under which the parser keeps the option; None where it was not given

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the option to those of a build."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Does what the option asks for and returns the exit status."""


def add_published_and_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a command that looks at a published model beside a checkpoint."""
    add = parser.add_argument
    add("published", type=Path, nargs="?", metavar="PUBLISHED", help="an INT8 .tflite (default: the card's, fetched)")
    add("--model", help="member of the family: width_resolution (default 1.0_224)")
    add("--checkpoint", default="official", metavar="official|seeded|PATH", help="float weights (default official)")

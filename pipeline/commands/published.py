"""`verify --published [PATH]`: the published model, its test vectors, and ours beside them."""

from __future__ import annotations

import argparse

FLAG = "published"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--published", nargs="?", const="", metavar="PATH", help="x")


def run(arguments: argparse.Namespace) -> int:
    return 0

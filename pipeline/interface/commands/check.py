"""Command `check`: the reproducibility check."""

from __future__ import annotations

import argparse

SUMMARY = "build seeded weights twice, under different conditions, and compare every byte"
EXAMPLE = "check --model 0.35_96"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="1.0_224", help="member of the family, such as 0.35_96 (default 1.0_224)")
    parser.add_argument("--record", action="store_true", help="write golden.json, after a deliberate change")


def run(arguments: argparse.Namespace) -> int:
    from pipeline import check

    return check.run(arguments.model, arguments.record, arguments.json, arguments.quiet)

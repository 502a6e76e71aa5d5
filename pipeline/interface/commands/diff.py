"""Command `diff`: how far two `.tflite` files agree, and where they part."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

SUMMARY = "compare two .tflite files: verdict, tensors, operators"

# CONSISTENT is not among them: it is a claim about a checkpoint, and `diff` is given none.
ACCEPTED = ("IDENTICAL", "SAME_CONTENT", "SAME_WEIGHTS", "SAME_GRAPH", "DIFFERENT")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("one", type=Path, metavar="A", help="a .tflite file")
    parser.add_argument("two", type=Path, metavar="B", help="the one to compare it with")
    parser.add_argument(
        "--accept",
        type=str.upper,
        choices=ACCEPTED,
        default="IDENTICAL",
        metavar="VERDICT",
        help=f"weakest verdict that ends with status 0: {', '.join(ACCEPTED)} (default IDENTICAL)",
    )
    parser.add_argument("--all", action="store_true", help="every difference in the table, not the weightiest alone")


def run(arguments: argparse.Namespace) -> int:
    from pipeline import console
    from pipeline.interface.views import diff as diff_view
    from recreate_model.compare.diff import Verdict, compare
    from recreate_model.support.errors import CheckError
    from recreate_model.tflite.model_view import read_file

    paths = (arguments.one, arguments.two)
    one, two = (read_file(path) for path in paths)
    comparison = compare(one, two, (str(paths[0]), str(paths[1])))
    asked = Verdict[arguments.accept]
    files = [diff_view.identity(path, data) for path, data in zip(paths, (one, two), strict=True)]
    if arguments.json:
        print(json.dumps(diff_view.document(comparison, asked, files), indent=2, allow_nan=False))
    elif not arguments.quiet:
        console.print_blocks(diff_view.blocks(comparison, files, arguments.all))
    if comparison.verdict.reaches(asked):
        return 0
    raise CheckError(
        expected=f"{paths[0]} and {paths[1]} to be {asked.name}",
        found=f"{comparison.verdict.name}: {comparison.decisive[0]}",
        next_step=f"read the differences, or accept them with --accept {comparison.verdict.name}",
    )

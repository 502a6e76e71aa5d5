"""Command `diff`: how far two `.tflite` files agree, and where they differ."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.interface.commands import answer

SUMMARY = "compare two .tflite files: verdict, tensors, operators"
EXAMPLE = "diff mine.tflite published.tflite"

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
    parser.add_argument("--all", action="store_true", help="list every difference, not only the most significant ones")


def run(arguments: argparse.Namespace) -> int:
    from pipeline.interface.views import diff as diff_view
    from recreate_model.compare.diff import Verdict, compare
    from recreate_model.tflite.model_view import read_file

    paths = (arguments.one, arguments.two)
    one, two = (read_file(path) for path in paths)
    comparison = compare(one, two, (str(paths[0]), str(paths[1])))
    required = Verdict[arguments.accept]
    files = [diff_view.identity(path, data) for path, data in zip(paths, (one, two), strict=True)]
    answer(
        arguments,
        lambda: diff_view.document(comparison, required, files),
        lambda: diff_view.blocks(comparison, required, files, arguments.all),
    )
    # Files that differ are a result, not an error.
    return diff_view.status(comparison, required)

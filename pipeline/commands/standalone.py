"""`standalone --of MODEL --to FOLDER`: the same C99 for a model of the user's own."""

from __future__ import annotations

import argparse
from pathlib import Path

FLAG = "of"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--of",
        type=Path,
        metavar="MODEL",
        help="an INT8 .tflite of your own instead of a build: its operators must be the runtime's",
    )
    add("--to", type=Path, metavar="FOLDER", help="with --of: where the sources go (default standalone)")


def run(arguments: argparse.Namespace) -> int:
    import json

    from pipeline.c_array import identifier
    from pipeline.cortex_m.standalone.emit import runtime_sources, sources
    from recreate_model.model_view import read_file
    from recreate_model.publishing import write_folder

    return 0

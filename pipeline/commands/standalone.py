"""`standalone --of MODEL FOLDER`: the same C99 for a model of the user's own."""

from __future__ import annotations

import argparse
from pathlib import Path

FLAG = "of"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--of",
        nargs=2,
        type=Path,
        metavar=("MODEL", "FOLDER"),
        help="write the sources for an INT8 .tflite of your own into a folder instead",
    )


def run(arguments: argparse.Namespace) -> int:
    import json

    from pipeline import console, user_files
    from pipeline.commands import check_no_build_options
    from pipeline.cortex_m.standalone.emit import runtime_sources
    from recreate_model.model_view import read_file

    check_no_build_options(arguments, "--of", "as the model is the one given", "nothing was written")
    model, folder = arguments.of
    sources = runtime_sources(read_file(model), model.name)
    user_files.write_new(folder, sources, "FOLDER")
    if arguments.json:
        print(json.dumps({"files": [str(folder / name) for name in sources]}, indent=2))
    elif not arguments.quiet:
        console.print_blocks([f"C source   {folder / name}" for name in sources])
    return 0

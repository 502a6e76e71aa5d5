"""`standalone --of MODEL --to FOLDER`: the same C99 for a model of the user's own."""

from __future__ import annotations

import argparse
from pathlib import Path

FLAG = "of"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--of", type=Path, metavar="MODEL", help="write the sources for an INT8 .tflite of your own instead")
    add(
        "--to", type=Path, metavar="FOLDER", default=Path("standalone"), help="where to, with --of (default standalone)"
    )


def run(arguments: argparse.Namespace) -> int:
    import json

    from pipeline import console, user_files
    from pipeline.cortex_m.standalone.emit import runtime_sources
    from recreate_model.model_view import read_file

    sources = runtime_sources(read_file(arguments.of), arguments.of.name)
    user_files.write_new(arguments.to, sources, "--to")
    if arguments.json:
        print(json.dumps({"files": [str(arguments.to / name) for name in sources]}, indent=2))
    elif not arguments.quiet:
        console.print_blocks([f"C source   {arguments.to / name}" for name in sources])
    return 0

"""`vela --c-array FOLDER`: each compiled variant as C array and header."""

from __future__ import annotations

import argparse
from pathlib import Path

FLAG = "c_array"
REPLACES = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--c-array",
        type=Path,
        metavar="FOLDER",
        help="write each variant as a C array with its header, too: FOLDER/<variant>/",
    )


def run(arguments: argparse.Namespace) -> int:
    import json

    from pipeline import console
    from pipeline.engine import user_files
    from pipeline.engine.work import VELA_FILE
    from pipeline.ethos_u import sources
    from pipeline.interface.commands import answer, bring_up_to_date
    from pipeline.interface.views import build as build_view
    from pipeline.request.opened import open_build

    progress = console.progress(arguments.quiet or arguments.json)
    build = open_build(arguments, "vela", progress, may_fetch=True)
    recipe, folder = build.recipe, build.folder
    outcomes = bring_up_to_date(("vela",), build, arguments)
    variants = json.loads((folder / VELA_FILE).read_text(encoding="utf-8"))["variants"]
    texts = sources.sources((folder / VELA_FILE).parent, recipe.name, variants)
    user_files.write_new(arguments.c_array, texts, "--c-array", "the build is kept")
    written = [str(arguments.c_array / path) for path in texts]
    answer(
        arguments,
        lambda: {**build_view.document(folder, recipe, outcomes, ("vela",), 0), "c_array": written},
        lambda: [
            *build_view.blocks(folder, recipe, outcomes, "vela", arguments.files),
            ("", ("C source",), [[path] for path in written]),
        ],
    )
    return 0

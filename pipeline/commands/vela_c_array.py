"""`vela --c-array FOLDER`: each compiled variant as C array and header."""

from __future__ import annotations

import argparse
from pathlib import Path

FLAG = "c_array"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--c-array",
        type=Path,
        metavar="FOLDER",
        help="write each variant as a C array with its header, too: FOLDER/<variant>/",
    )


def run(arguments: argparse.Namespace) -> int:
    import json

    from pipeline import console, runner, user_files
    from pipeline.ethos_u import sources
    from pipeline.request import Request
    from pipeline.resolve import resolve
    from pipeline.stages import STAGES
    from pipeline.work import VELA_FILE

    progress = console.progress(arguments.quiet or arguments.json)
    recipe, machine = resolve(Request.given(arguments), progress, may_fetch=True)
    folder = machine.out / recipe.folder
    outcomes = runner.build(
        runner.with_needs(("vela",), STAGES),
        recipe,
        machine,
        force=("vela",) if arguments.force else (),
        on_wait=lambda: console.waiting(folder),
        on_build=console.announce,
    )
    variants = json.loads((folder / VELA_FILE).read_text(encoding="utf-8"))["variants"]
    texts = sources.sources((folder / VELA_FILE).parent, recipe.name, variants)
    user_files.write_new(arguments.c_array, texts, "--c-array", "the build is kept")
    if arguments.json:
        built = console.build_json(folder, recipe, outcomes, ("vela",), 0)
        print(json.dumps({**built, "c_array": [str(arguments.c_array / path) for path in texts]}, indent=2))
    elif not arguments.quiet:
        console.print_build(folder, recipe, outcomes, ("vela",))
        console.print_blocks([f"C source   {arguments.c_array / path}" for path in texts])
    return 0

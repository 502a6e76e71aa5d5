"""`verify --published [PATH]`: the published model and its test vectors, and our model beside them."""

from __future__ import annotations

import argparse
from pathlib import Path

FLAG = "published"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--published",
        nargs="?",
        const=True,
        metavar="PATH",
        help="compare with the published model and its test vectors instead: fetched, or a folder of the ML-zoo's "
        "layout, or a .tflite",
    )


def run(arguments: argparse.Namespace) -> int:
    import json

    from pipeline import console, published, published_files
    from pipeline.commands import bring_up_to_date
    from pipeline.request import Request
    from pipeline.resolve import resolve
    from pipeline.rows import holds, raise_unless_holds
    from pipeline.work import model_file
    from recreate_model.resources import cache_folder

    progress = console.progress(arguments.quiet or arguments.json)
    # What was given is looked at first: a build takes longer.
    files = None if arguments.published is True else published_files.given(Path(arguments.published))
    recipe, machine = resolve(Request.given(arguments), progress, may_fetch=True)
    built = bring_up_to_date(("quantize",), recipe, machine, arguments.force)
    files = files or published_files.fetched(cache_folder(), progress)
    table = published.rows(recipe, built[model_file(recipe)].read_bytes(), files)
    missing = list(files.missing())
    if arguments.json:
        found = {"build": recipe.name, "recipe": recipe.id, "holds": holds(table), "complete": not missing}
        print(json.dumps({**found, "rows": [vars(row) for row in table]}, indent=2))
    elif not arguments.quiet:
        console.print_rows(f"verify --published, with {recipe.name}", table)
    done = f"{recipe.name} is built and kept, and the published files are as they were"
    raise_unless_holds(table, done, "get the published files again, or leave PATH out to fetch them")
    if missing:
        raise missing[0]
    return 0

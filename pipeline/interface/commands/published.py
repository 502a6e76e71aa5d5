"""`verify --published [PATH]`: the published model and its test vectors, and our model beside them."""

from __future__ import annotations

import argparse
from pathlib import Path

FLAG = "published_files"
REPLACES = "published"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--published",
        dest=FLAG,
        nargs="?",
        const=True,
        metavar="PATH",
        help="compare with the published model and its test vectors instead: fetched, or a folder of the ML-zoo's "
        "layout, or a .tflite",
    )


def run(arguments: argparse.Namespace) -> int:
    from pipeline import console
    from pipeline.claims import published, published_files
    from pipeline.claims.claim import holds, raise_unless_holds
    from pipeline.interface.commands import answer
    from pipeline.interface.views import rows as rows_view
    from pipeline.request.opened import open_build
    from recreate_model.support.resources import cache_folder

    progress = console.progress(arguments.quiet or arguments.json)
    named = arguments.published_files
    files = None if named is True else published_files.given(Path(named))
    build = open_build(arguments, "status", progress, may_fetch=False)
    files = files or published_files.fetched(cache_folder(), progress)
    table = published.rows(build.model(), files)
    missing = list(files.missing())
    rows = [vars(row) for row in table]
    names = {"build": build.recipe.name, "recipe": build.recipe.id}
    found = {**names, "holds": holds(table), "complete": not missing, "rows": rows}
    answer(arguments, lambda: found, lambda: rows_view.blocks(f"verify --published, with {build.folder}", rows))
    done = "the published files and the build are as they were"
    raise_unless_holds(table, done, "get the published files again, or leave PATH out to fetch them")
    if missing:
        raise missing[0]
    return 0

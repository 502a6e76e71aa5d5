"""Command `recover`: the activation ranges of a published INT8 model, as a range table."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pipeline.interface.commands import add_published_and_checkpoint, answer, bring_up_to_date

SUMMARY = "find the activation ranges of a published INT8 model, as a table for --ranges"
EXAMPLE = "recover published.tflite --checkpoint mobilenet_v2_1.0_224.tgz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_published_and_checkpoint(parser)
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="the table to write (default: PUBLISHED's name with .ranges.json, in the current folder)",
    )
    add("--out", type=Path, metavar="FOLDER", help="where build folders are made (default artifacts)")


def run(arguments: argparse.Namespace) -> int:
    from calibration.ranges import range_table
    from pipeline import console
    from pipeline.claims import published_files
    from pipeline.engine import user_files
    from pipeline.engine.work import FREEZE_FILE, float_model_file
    from pipeline.interface.views import recover as recover_view
    from pipeline.request.opened import Opened
    from pipeline.request.request import Request
    from pipeline.request.resolve import resolve_floats

    progress = console.progress(arguments.quiet or arguments.json)
    published, path = published_files.model(arguments.published, progress)
    request = Request.given(arguments)
    recipe, machine = resolve_floats(request, progress, may_fetch=True)
    recovered = recover_view.ranges_of(published, str(path), recipe.model)
    build = Opened(request, recipe, machine)
    bring_up_to_date(("freeze",), build, arguments)
    float_model = (build.folder / float_model_file(recipe)).read_bytes()
    graph_sha256 = json.loads((build.folder / FREEZE_FILE).read_text())["graph_sha256"]
    table = recover_view.as_table(recovered, published, recipe, float_model, graph_sha256)
    target = arguments.output or Path(path.name).with_suffix(".ranges.json")
    user_files.write_new(target.parent, {target.name: range_table.to_json(table)}, "--output")
    found = recover_view.document(recovered, table, target)
    answer(arguments, lambda: found, lambda: recover_view.blocks(found, machine, recipe))
    recover_view.check(recovered, str(path), target)
    return 0

"""Command `firmware`: the standalone runtime as a bare-metal image, run by QEMU and compared with the reference."""

from __future__ import annotations

import argparse
from pathlib import Path

_LONGEST = 86_400  # seconds: a day; timers refuse much larger numbers
SUMMARY = "build a bare-metal Cortex-M image of a build, run it under QEMU and compare its outputs"
EXAMPLE = "firmware --board mps3-an547"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--board", required=True, metavar="NAME", help="mps3-an547 (M55), mps2-an500 (M7) or mps2-an386 (M4)")
    add("--pictures", type=int, default=1, metavar="N", help="pictures to run (default 1)")
    add("--time-limit", type=int, default=120, metavar="SECONDS", help="for the emulator (default 120)")
    add("--keep", type=Path, metavar="FOLDER", help="keep the image and its sources in this folder")


def run(arguments: argparse.Namespace) -> int:
    import contextlib
    import tempfile

    from pipeline import console
    from pipeline.claims.claim import raise_unless_holds
    from pipeline.cortex_m.firmware import image
    from pipeline.cortex_m.firmware.boards import board as find_board
    from pipeline.engine.work import LABELS_FILE, model_file
    from pipeline.interface.commands import answer, bring_up_to_date, files_of
    from pipeline.interface.views import firmware as firmware_view
    from pipeline.platforms import published_vector
    from pipeline.platforms.subject import subject
    from pipeline.request.opened import open_build
    from pipeline.request.request import check_least
    from recreate_model.support.errors import ResourceError, UsageError, reason
    from recreate_model.support.resources import cache_folder

    board = find_board(arguments.board)
    check_least("--pictures", arguments.pictures, 1)
    check_least("--time-limit", limit := arguments.time_limit, 1)
    if limit > _LONGEST:
        raise UsageError(
            expected=f"--time-limit to be at most {_LONGEST}, a day",
            found=str(limit),
            next_step=f"give --time-limit {_LONGEST}",
        )
    image.check_tools()
    progress = console.progress(arguments.quiet or arguments.json)
    build = open_build(arguments, "firmware", progress, may_fetch=True)
    recipe, files = build.recipe, files_of(build, bring_up_to_date(image.STAGES_NEEDED, build, arguments))
    model = files[model_file(recipe)].read_bytes()
    checked = subject(recipe, build.machine, model, arguments.pictures)
    vector: published_vector.Vector | str = ""
    if published_vector.is_published(model):
        vector = published_vector.find_vector(build.machine.published, cache_folder(), progress)
    if isinstance(vector, published_vector.Vector):
        checked = published_vector.with_vector(checked, vector)
    option = "--keep" if arguments.keep else "TMPDIR"
    try:
        kept = contextlib.nullcontext(arguments.keep) if arguments.keep else tempfile.TemporaryDirectory()
        with kept as work, progress.bar(f"running on {board.name}"):
            elf = image.build_image(board, image.sources_of(files), model_file(recipe), Path(work), option)
            found = image.run_image(board, elf, checked.inputs, limit)
    except OSError as error:
        raise ResourceError(
            expected=f"to write to {arguments.keep or tempfile.gettempdir()}",
            found=reason(error),
            done="the build is kept",
            next_step=f"free some space there, or give another {option}",
        ) from error
    labels = files[LABELS_FILE].read_text(encoding="utf-8").splitlines() if LABELS_FILE in files else ()
    table = firmware_view.rows(found, checked, labels)
    if isinstance(vector, published_vector.Vector):
        table.append(firmware_view.published_row(found.outputs[-1], vector.output[0]))
    document = firmware_view.document(board, found, checked, table)
    answer(arguments, lambda: document, lambda: firmware_view.blocks(document))
    raise_unless_holds(table, "the build is kept", f"run it again with --keep FOLDER, and look at {board.name}.elf")
    return 0

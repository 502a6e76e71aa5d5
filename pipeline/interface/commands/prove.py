"""Command `prove`: whether a published INT8 model is what a float checkpoint gives."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.interface.commands import add_published_and_checkpoint, announcer, answer

SUMMARY = "whether a published INT8 model is what a checkpoint gives, without its calibration pictures"
EXAMPLE = "prove published.tflite --checkpoint mobilenet_v2_1.0_224.tgz"

# A weaker verdict says that the checkpoint does not give the file.
ACCEPTED = ("IDENTICAL", "CONSISTENT")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_published_and_checkpoint(parser)
    add = parser.add_argument
    add(
        "--toolchain",
        metavar="NAME[,NAME...]",
        help="what to rebuild it with: 2.5.0, 2.6.0, 2.4.4 or today, each also with -old; or none (default: what fits)",
    )
    add("--keep", type=Path, metavar="FOLDER", help="write the rebuilt models to this folder, for `diff`")
    add(
        "--record",
        type=Path,
        metavar="FILE",
        help="write the corrections of a file proved IDENTICAL; those of the published model are for `--corrections`",
    )
    add(
        "--accept",
        type=str.upper,
        choices=ACCEPTED,
        default="CONSISTENT",
        metavar="VERDICT",
        help="weakest verdict that ends with status 0: IDENTICAL or CONSISTENT (default CONSISTENT)",
    )


def run(arguments: argparse.Namespace) -> int:
    from pipeline import console
    from pipeline.claims import published_files
    from pipeline.interface.views import prove as prove_view
    from pipeline.request.request import Request
    from pipeline.request.resolve import resolve_floats
    from recreate_model.compare.verdict import Verdict
    from recreate_model.prove import toolchain
    from recreate_model.prove.prove import prove
    from recreate_model.support import resources

    chains = None if arguments.toolchain is None else toolchain.parse(arguments.toolchain)
    progress = console.progress(arguments.quiet or arguments.json)
    published, path = published_files.model(arguments.published, progress)
    recipe, machine = resolve_floats(Request.given(arguments), progress, may_fetch=True)
    cache = resources.cache_folder()

    announce = announcer(arguments)
    checkpoint = prove_view.checkpoint(recipe, machine.checkpoint)
    with progress.bar("proving"):
        found = prove(published, str(path), checkpoint, chains, lambda chain: toolchain.ensure(chain, cache, announce))
    if arguments.keep:
        prove_view.keep(found, arguments.keep)
    required = Verdict[arguments.accept]
    document = prove_view.document(found, recipe, path, published, required)
    failure = (
        prove_view.record(found, published, arguments.record) if arguments.record and not document["status"] else None
    )
    if failure:
        document["status"] = failure.status
    answer(arguments, lambda: document, lambda: prove_view.blocks(document))
    prove_view.check(found, recipe, path, required)
    if failure:
        raise failure
    return 0

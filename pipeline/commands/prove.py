"""Command `prove`: whether a published INT8 model is what a float checkpoint gives."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

SUMMARY = "whether a published INT8 model is what a checkpoint gives, without its calibration pictures"

ACCEPTED = ("IDENTICAL", "CONSISTENT")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("published", type=Path, metavar="PUBLISHED", help="a full-integer INT8 .tflite file")
    add("--model", help="member of the family: width_resolution (default 1.0_224)")
    add("--checkpoint", metavar="auto|official|seeded|PATH", help="float weights (default auto)")
    add(
        "--toolchain",
        metavar="NAME[,NAME...]",
        help="to rebuild with: 2.5.0, 2.6.0, 2.4.4, today, each also as NAME-old, or none (default those that fit)",
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
    from pipeline import claims, console, proof_text
    from recreate_model import resources, toolchain
    from recreate_model.model_view import read_file
    from recreate_model.prove import prove

    chains = None if arguments.toolchain is None else toolchain.parse(arguments.toolchain)
    published = read_file(arguments.published)
    progress = console.progress(arguments)
    cache = resources.cache_folder()

    def announce(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    with claims.checkpoint(arguments, progress) as (checkpoint, origin):
        with progress.bar("proving"):
            proof = prove(
                published,
                str(arguments.published),
                checkpoint,
                chains,
                lambda chain: toolchain.ensure(chain, cache, announce),
            )
    document = proof_text.document(proof, arguments.published, published, origin, arguments.accept)
    if arguments.json:
        print(json.dumps(document, indent=2))
    elif not arguments.quiet:
        console.print_blocks(proof_text.blocks(document))
    proof_text.check(proof, arguments.published, origin, arguments.accept)
    return 0

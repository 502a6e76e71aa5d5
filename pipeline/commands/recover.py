"""Command `recover`: the activation ranges of a published INT8 model, as a range table."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

SUMMARY = "find the activation ranges of a published INT8 model, as a table for --ranges"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("published", type=Path, metavar="PUBLISHED", help="a full-integer INT8 .tflite file")
    parser.add_argument("--model", help="member of the family: width_resolution (default 1.0_224)")
    parser.add_argument("--checkpoint", metavar="auto|official|seeded|PATH", help="float weights (default auto)")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where to write the table (default PUBLISHED's name + .ranges.json)"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where build folders are made (default artifacts)")


def run(arguments: argparse.Namespace) -> int:
    from calibration import ranges
    from pipeline import claims, console
    from recreate_model.model_view import read_file

    progress = console.progress(arguments)
    published = read_file(arguments.published)
    claim = claims.claim(arguments, progress)
    table, recovered = claims.recovered_table(published, str(arguments.published), claim)
    target = arguments.output or Path(arguments.published.name).with_suffix(".ranges.json")
    claims.write_new(target, ranges.to_json(table))
    if arguments.json:
        print(json.dumps(claims.recovered_json(recovered, table, target), indent=2))
    elif not arguments.quiet:
        console.print_blocks(claims.recovered_blocks(recovered, table, target, arguments))
    return 0

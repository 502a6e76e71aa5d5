"""`attest --check FILE`: whether every digest of a provenance statement holds."""

from __future__ import annotations

import argparse
from pathlib import Path

FLAG = "statement"
_OTHERWISE_NAMED = {"crop": "--preprocess"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check",
        dest=FLAG,
        type=Path,
        metavar="FILE",
        help="check a statement and the files beside it instead; --checkpoint PATH names the archive it is about",
    )


def run(arguments: argparse.Namespace) -> int:
    import json
    from dataclasses import fields

    from pipeline import attest_check, console
    from pipeline.resolve import Request
    from pipeline.rows import holds, raise_unless_holds
    from pipeline.statement import read_statement
    from recreate_model.errors import UsageError

    # What a build can be asked for; a statement says it itself, but for where the archive lies.
    of_a_build = [part.name for part in fields(Request) if part.name != "checkpoint"] + ["force"]
    given = [
        _OTHERWISE_NAMED.get(name, f"--{name.replace('_', '-')}")
        for name in of_a_build
        if (value := getattr(arguments, name)) is not None and value is not False  # 0 is given, too
    ]
    if given:
        raise UsageError(
            expected="no options of a build beside --check, as the statement says of which build it is",
            found=", ".join(given),
            done="nothing was checked",
            next_step="leave them out",
        )
    path: Path = arguments.statement
    statement = read_statement(path)
    named = arguments.checkpoint not in (None, "auto", "official", "seeded")
    table = attest_check.rows(statement, path.parent, Path(arguments.checkpoint) if named else None)
    if arguments.json:
        found = {"build": statement.recipe.name, "recipe": statement.recipe.id, "holds": holds(table)}
        print(json.dumps({**found, "rows": [vars(row) for row in table]}, indent=2))
    elif not arguments.quiet:
        console.print_rows(f"attest --check {path}", table)
    next_step = "get the files of one and the same build, or build again: python -m pipeline all"
    raise_unless_holds(table, "all files were left as they are", next_step)
    return 0

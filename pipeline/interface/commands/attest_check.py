"""`attest --check FILE`: whether every digest of a provenance statement holds."""

from __future__ import annotations

import argparse
from pathlib import Path

FLAG = "statement"
REPLACES = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check",
        dest=FLAG,
        type=Path,
        metavar="FILE",
        help="check a statement, or that of a build folder, and the files beside it instead; --checkpoint PATH names "
        "the archive it is about",
    )


def run(arguments: argparse.Namespace) -> int:
    from pipeline.claims.claim import holds, raise_unless_holds
    from pipeline.engine.work import PROVENANCE_FILE
    from pipeline.interface.commands import answer, check_no_build_options
    from pipeline.interface.views import rows as rows_view
    from pipeline.provenance import check as provenance_check
    from pipeline.provenance.read import read_statement

    why = "as the statement says of which build it is"
    check_no_build_options(arguments, "--check", why, "nothing was checked", but=("checkpoint",))
    path: Path = arguments.statement
    if path.is_dir():
        path /= PROVENANCE_FILE
    statement = read_statement(path)
    named = arguments.checkpoint not in (None, "auto", "official", "seeded")
    table = provenance_check.rows(statement, path.parent, Path(arguments.checkpoint) if named else None)
    rows = [vars(row) for row in table]
    found = {"build": statement.recipe.name, "recipe": statement.recipe.id, "holds": holds(table), "rows": rows}
    answer(arguments, lambda: found, lambda: rows_view.blocks(f"attest --check {path}", rows, statement.recipe.network))
    next_step = "get the files of one and the same build, or build again: python -m pipeline all"
    raise_unless_holds(table, "all files were left as they are", next_step)
    return 0

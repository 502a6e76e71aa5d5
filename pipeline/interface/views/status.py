"""What `status` and `explain` say: which stages are up to date, and why the others are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.console import Block
from pipeline.engine.runner import Freshness
from pipeline.engine.store import LOCK_FILE
from recreate_model.compare.verdict import printable
from recreate_model.support.digest import Json

_SHOWN = 5  # builds, where the one asked for does not exist


def document(rows: Sequence[Freshness]) -> Json:
    """All of it as plain JSON."""
    return [{"stage": row.stage, "state": row.state, "reasons": list(row.reasons)} for row in rows]


def status_blocks(folder: Path, rows: Sequence[Freshness]) -> list[Block]:
    """One row a stage with the first reason; of a build that does not exist, one line."""
    if not (folder / LOCK_FILE).exists():
        return [f"There is no build in {printable(str(folder))}. {_others(folder.parent)}"]
    table = []
    for row in rows:
        more = f" and {len(row.reasons) - 1} more (explain {row.stage})" if len(row.reasons) > 1 else ""
        table.append((row.stage, row.state, printable(row.reasons[0]) + more if row.reasons else ""))
    return [("", ("stage", "state", "why"), table)]


def explain_blocks(rows: Sequence[Freshness]) -> list[Block]:
    """Every reason why each stage would run again."""
    output: list[Block] = []
    for row in rows:
        output.append(f"{row.stage} is {row.state}" + (", because:" if row.reasons else ": nothing changed"))
        output += [f"  {printable(reason)}" for reason in row.reasons]
    return output


def _others(out: Path) -> str:
    """The builds of a folder, by name, and how to be asked about."""
    names = sorted(printable(lock.parent.name) for lock in out.glob(f"*/{LOCK_FILE}"))
    if not names:
        return f"{printable(str(out))} has no builds. Make one: python -m pipeline all"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (
        f"Builds in {printable(str(out))}: {', '.join(names[:_SHOWN])}{more}. "
        "Name one with --checkpoint, --model and --recipe, or --of."
    )

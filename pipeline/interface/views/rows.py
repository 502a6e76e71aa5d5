"""The rows of a comparison with what is claimed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.c_array import identifier
from pipeline.console import SHORT_DIGEST, Block, is_wide
from recreate_model.support.digest import Json

_NOT_CLAIMED = " Not claimed: there is no reference value for this build."
_DIGEST = re.compile(r"\b[0-9a-f]{40,64}\b")


def blocks(title: str, rows: Sequence[Json], name: str = "") -> list[Block]:
    """A table of rows, each as `vars` of a `Row`.

    A table that is not wide shows the first digits of a digest; those that differ are in full beneath it.

    Args:
        name: of the network, which is `*` in a table that is not wide.
    """
    wide = is_wide()
    table = []
    for row in rows:
        value = _value(row)
        what = row["what"]
        if name and not wide:
            what = what.replace(name, "*").replace(identifier(name), "*")
        table.append((what, row["verdict"], value if wide else _DIGEST.sub(_shortened, value), row["why"]))
    title = f"{title} (* is {name})" if name and not wide else title
    output: list[Block] = [(title, ("property", "verdict", "value", "why"), table)]
    output.append(f"{counts(rows)}.{_NOT_CLAIMED * any(row['verdict'] == 'not claimed' for row in rows)}")
    cut = [row for row in rows if row["verdict"] == "differs" and not wide and _DIGEST.search(row["found"])]
    return output + [f"{row['what']}: found {row['found']}, expected {row['expected']}" for row in cut]


def counts(rows: Sequence[Json]) -> str:
    """How many rows have each verdict, such as `1 differs, 12 match`."""
    found = [row["verdict"] for row in rows]
    verdicts = ("differs", "not checked", "match", "not claimed")
    return ", ".join(f"{found.count(verdict)} {verdict}" for verdict in verdicts if verdict in found)


def _value(row: Json) -> str:
    """What was found, and beside it what was expected where that is something else."""
    if row["verdict"] == "match" or not row["expected"]:
        return str(row["found"])
    noun = {"differs": "expected", "not checked": "stated"}.get(row["verdict"], "published")
    return ", ".join(filter(None, (row["found"], f"{noun} {row['expected']}")))


def _shortened(digest: re.Match[str]) -> str:
    return digest[0][:SHORT_DIGEST]

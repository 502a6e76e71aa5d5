"""Stage `verify`: the model against everything that is claimed of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from calibration import ranges
from pipeline import golden, verify
from pipeline.rows import Row, holds
from pipeline.work import FREEZE_FILE, RANGES_FILE, VERIFY_FILE, Work, float_model_file
from recreate_model.digest import readable_json


def run(work: Work) -> None:
    if work.recipe.given:
        _write(work, verify.given_rows(work.model))
        return
    frozen = work.read_json(FREEZE_FILE)
    table = verify.rows(
        work.recipe,
        work.model,
        work.inputs[float_model_file(work.recipe)].read_bytes(),
        ranges.from_json(work.read(RANGES_FILE), RANGES_FILE).spans,
        golden.model_claims(work.recipe),
        frozen["archive_frozen_graph"],
        frozen.get("background", ""),
    )
    _write(work, table)


def _write(work: Work, table: Sequence[Row]) -> None:
    document = {"build": work.recipe.name, "holds": holds(table), "rows": [asdict(row) for row in table]}
    work.write(VERIFY_FILE, readable_json(document))

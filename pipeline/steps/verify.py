"""Stage `verify`: compares the model with everything that is claimed of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from calibration.ranges import range_table
from pipeline.claims import verify
from pipeline.claims.claim import Row, holds
from pipeline.engine import golden
from pipeline.engine.work import FREEZE_FILE, RANGES_FILE, VERIFY_FILE, Work, archive_graph_file, float_model_file
from recreate_model.support.digest import readable_json


def run(work: Work) -> None:
    if work.recipe.given:
        _write(work, verify.given_rows(work.model))
        return
    recipe = work.recipe
    frozen = work.read_json(FREEZE_FILE)
    frozen_graph, background = frozen["archive_frozen_graph"], frozen.get("background", "")
    float_model = work.inputs[float_model_file(recipe)].read_bytes()
    spans = range_table.from_json(work.read(RANGES_FILE), RANGES_FILE).spans
    if recipe.toolchain:
        graph = work.inputs[archive_graph_file(recipe)].read_bytes()
        table = verify.published_rows(recipe, work.model, float_model, spans, graph, frozen_graph)
    else:
        claims = golden.model_claims(recipe)
        table = verify.rows(recipe, work.model, float_model, spans, claims, frozen_graph, background)
    _write(work, table)


def _write(work: Work, table: Sequence[Row]) -> None:
    document = {"build": work.recipe.name, "holds": holds(table), "rows": [asdict(row) for row in table]}
    work.write(VERIFY_FILE, readable_json(document))

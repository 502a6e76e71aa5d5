"""Stage `verify`: the model against everything that is claimed of it."""

from __future__ import annotations

from dataclasses import asdict

from pipeline import golden, verify
from pipeline.work import FREEZE_FILE, VERIFY_FILE, Work
from recreate_model.digest import readable_json


def run(work: Work) -> None:
    frozen_graph = work.read_json(FREEZE_FILE)["archive_frozen_graph"]
    table = verify.rows(work.recipe, work.model, golden.model_claims(work.recipe), frozen_graph)
    document = {"build": work.recipe.name, "holds": verify.holds(table), "rows": [asdict(row) for row in table]}
    work.write(VERIFY_FILE, readable_json(document))

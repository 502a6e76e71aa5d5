"""`artifacts/golden.json`: the expected digest of every artifact, for the recipes that CI builds.

The key of an entry is the recipe's id, so a recipe that differs in anything has no claim on its artifacts. The INT8
model alone is claimed for every recipe with the same model id.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.engine.work import model_file
from recreate_model.recipe import Recipe
from recreate_model.support.digest import Json, readable_json
from recreate_model.support.errors import InputError

PATH = Path(__file__).resolve().parents[2] / "artifacts" / "golden.json"


def artifacts(recipe: Recipe) -> Mapping[str, str] | None:
    """Path in the build folder -> SHA-256 of every artifact of this recipe; None if nothing is recorded."""
    entry = _read().get(recipe.id)
    return None if entry is None else dict(entry["artifacts"])


def model_claims(recipe: Recipe) -> Json:
    """The recorded SHA-256 of the INT8 model; None if nothing is recorded."""
    for entry in _read().values():
        if entry["model_id"] == recipe.model_id:
            return entry["artifacts"][model_file(recipe)]
    return None


def record(recipe: Recipe, digests: Mapping[str, str]) -> None:
    """Records the digests after a deliberate change. The file is under version control: review its diff."""
    entries = {**_read(), recipe.id: {"name": recipe.name, "model_id": recipe.model_id, "artifacts": dict(digests)}}
    # A changed recipe has another id; its old entry would never be used again.
    kept = {key: entry for key, entry in sorted(entries.items()) if key == recipe.id or entry["name"] != recipe.name}
    temporary = PATH.with_suffix(".new")
    temporary.write_text(readable_json(kept), encoding="utf-8")
    os.replace(temporary, PATH)
    _read.cache_clear()


@functools.cache
def _read() -> Mapping[str, Json]:
    try:
        entries: Mapping[str, Json] = json.loads(PATH.read_text(encoding="utf-8"))
        return entries
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(
            expected=f"{PATH} to hold JSON",
            found=str(error),
            done="it was left as it is",
            next_step="restore it: git checkout artifacts/golden.json",
        ) from error

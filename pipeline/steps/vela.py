"""Stage `vela`: one compiled model for each Ethos-U target, and a table of what Vela says of them."""

from __future__ import annotations

from pathlib import PurePosixPath

from pipeline.vela import compile_all, vela_table
from pipeline.work import VELA_FILE, Work
from recreate_model.digest import readable_json


def run(work: Work) -> None:
    recipe, machine = work.recipe, work.machine
    folder = work.out / PurePosixPath(VELA_FILE).parent
    with machine.progress.bar("compiling for Ethos-U", len(recipe.targets)) as advance:
        variants = compile_all(work.model, recipe.name, recipe.targets, folder, machine.workers, advance)
    work.write(VELA_FILE, readable_json({"build": recipe.name, "variants": vela_table(variants)}))

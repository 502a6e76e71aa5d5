"""Stage `vela`: one compiled model for each Ethos-U variant, and Vela's figures as JSON, a table and a plot."""

from __future__ import annotations

from pathlib import PurePosixPath

from pipeline.engine.work import VELA_FILE, Work
from pipeline.ethos_u.plot import plot
from pipeline.ethos_u.report import markdown
from pipeline.ethos_u.variant import CUSTOM_CONFIG
from pipeline.ethos_u.vela import compile_all, vela_table
from recreate_model.support.digest import readable_json

FOLDER = PurePosixPath(VELA_FILE).parent
PLOT = "variants.svg"


def run(work: Work) -> None:
    recipe, machine = work.recipe, work.machine
    with machine.progress.bar("compiling for Ethos-U", len(recipe.targets)) as advance:
        variants = compile_all(
            work.model, recipe.name, recipe.targets, work.out / FOLDER, machine.workers, advance, machine.vela_config
        )
    work.write(VELA_FILE, readable_json({"build": recipe.name, "variants": vela_table(variants)}))
    work.write(f"{FOLDER}/variants.md", markdown(recipe.name, variants, PLOT))
    work.write(f"{FOLDER}/{PLOT}", plot(recipe.name, variants))
    if machine.vela_config:
        work.write(f"{FOLDER}/{CUSTOM_CONFIG}", machine.vela_config.data)

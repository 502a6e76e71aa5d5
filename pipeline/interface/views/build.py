"""What people see of a build: the results of the stages they named, a summary, and the list of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.c_array import identifier
from pipeline.console import SHORT_DIGEST, Block, is_wide
from pipeline.engine.runner import Outcome
from pipeline.engine.work import (
    CONVERSION_FILE,
    EVALUATE_FILE,
    PLATFORMS_FILE,
    PROVENANCE_FILE,
    STANDALONE_FOLDER,
    VELA_FILE,
    VERIFY_FILE,
    model_file,
)
from pipeline.interface.views import results
from pipeline.request import published_recipe
from recreate_model.recipe import MIN_MAX, Recipe
from recreate_model.support.digest import Json, digest_file
from recreate_model.support.errors import InputError


def left_out_error(outcome: Outcome, folder: Path) -> InputError:
    """What to end with where a stage that was asked for by its name is left out of a build."""
    return InputError(
        expected=f"the model of {folder} to be one that `{outcome.stage}` can work on",
        found=outcome.why,
        done="its other files are kept",
        next_step="give another model; `all` leaves out what a given one does not allow",
    )


def blocks(
    folder: Path,
    recipe: Recipe,
    outcomes: Sequence[Outcome],
    named: str,
    files: bool,
    warnings: Sequence[str] = (),
) -> list[Block]:
    """The results of the stage that was named, every file if asked for, then the summary.

    Args:
        named: the command: a stage, or `all`, whose summary has the results' figures alone.
        files: whether every file is listed.
        warnings: what else is to be said of the build.
    """
    made = {path for outcome in outcomes for path in outcome.outputs}
    output: list[Block] = []
    if named in results.RESULTS and results.RESULTS[named] in made:
        output += results.blocks(named, folder, recipe)
    if files:
        output.append(_files(folder, recipe, outcomes))
    summary = [("build", str(folder)), *_summary(folder, recipe, made)]
    size = sum((folder / path).stat().st_size for path in made)
    summary.append(("files", f"{len(made):,}, together {size:,} bytes" + ("" if files else "; --files lists them")))
    if all(outcome.state != "built" for outcome in outcomes):
        summary.append(("state", "up to date: nothing was made"))
    summary += [("warning", text) for text in (*_warnings(recipe, outcomes), *warnings)]
    return [*output, ("", ("", ""), summary)]


def _summary(folder: Path, recipe: Recipe, made: set[str]) -> list[tuple[str, str]]:
    """What a user asks first, as far as the stages that ran know it."""
    rows = []
    model = folder / model_file(recipe)
    if model.name in made:
        rows += [
            ("model", f"{model.name}, {model.stat().st_size:,} bytes"),
            ("SHA-1", digest_file(model, "sha1")),
        ]
    if VERIFY_FILE in made:
        rows.append(("verify", results.figure("verify", folder, recipe, {VERIFY_FILE: ""})))
    if EVALUATE_FILE in made:
        rows.append(("top-1", results.top1(recipe, results.load(folder, EVALUATE_FILE))))
    if VELA_FILE in made:
        rows.append(("Ethos-U", f"fastest {results.fastest(results.load(folder, VELA_FILE))}, as Vela estimates"))
    if PLATFORMS_FILE in made:
        rows.append(("platforms", results.figure("platforms", folder, recipe, {PLATFORMS_FILE: ""})))
    if arena := results.standalone_arena(folder, recipe, made):
        rows.append(("Cortex-M", f"{arena:,} bytes of arena for {STANDALONE_FOLDER}/"))
    if recipe.calibration.cuts_outliers:
        rows.append(("ranges", f"by {recipe.calibration.range_method}; golden.json claims bytes of {MIN_MAX} alone"))
    if CONVERSION_FILE in made:
        rows.append(("converted", published_recipe.sentence(results.load(folder, CONVERSION_FILE))))
    if recipe.given:
        rows.append(("given", f"SHA-256 {recipe.checkpoint.sha256}; the model was not built here"))
    return rows + [
        (name, path) for name, path in (("card", "README.md"), ("provenance", PROVENANCE_FILE)) if path in made
    ]


def _warnings(recipe: Recipe, outcomes: Sequence[Outcome]) -> list[str]:
    output = [f"{outcome.stage} is left out: {outcome.why}" for outcome in outcomes if outcome.state == "left out"]
    if recipe.checkpoint.kind == "seeded":
        output.append("the weights are seeded: the network is not trained and recognizes nothing")
    return output


def _files(folder: Path, recipe: Recipe, outcomes: Sequence[Outcome]) -> Block:
    digits = 40 if is_wide() else SHORT_DIGEST
    table = []
    for outcome in outcomes:
        for row, path in enumerate(outcome.outputs):
            file = folder / path
            shown = path if is_wide() else path.replace(recipe.network, "*").replace(identifier(recipe.network), "*")
            size, sha1 = f"{file.stat().st_size:,}", digest_file(file, "sha1")[:digits]
            # A file or a pipe gets the stage in every line.
            table.append((outcome.stage if is_wide() or not row else "", shown, size, sha1))
    title = f"files (* is {recipe.network})" if not is_wide() else "files"
    return title, ("stage", "file", "bytes>", "SHA-1"), table


def document(folder: Path, recipe: Recipe, outcomes: Sequence[Outcome], wanted: Sequence[str], status: int) -> Json:
    """The same as a JSON document, with the results of all stages wanted."""
    made = {path for outcome in outcomes for path in outcome.outputs}
    return {
        "status": status,
        "build": recipe.name,
        "recipe": recipe.id,
        "checkpoint": recipe.checkpoint.kind,
        "range_method": recipe.calibration.range_method,
        "folder": str(folder),
        **({"conversion": results.load(folder, CONVERSION_FILE)} if CONVERSION_FILE in made else {}),
        "results": {
            stage: results.load(folder, path)
            for stage, path in results.RESULTS.items()
            if stage in wanted and path in made
        },
        "stages": [
            {
                "stage": outcome.stage,
                "state": outcome.state,
                "why": outcome.why,
                "holds": outcome.holds,
                "files": [
                    {
                        "path": path,
                        "bytes": (folder / path).stat().st_size,
                        "sha1": digest_file(folder / path, "sha1"),
                        "sha256": sha256,
                    }
                    for path, sha256 in outcome.outputs.items()
                ],
            }
            for outcome in outcomes
        ],
    }

"""From `--images` to the source it names, and to the pictures for calibration and evaluation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from calibration.pictures.opening import Reading, open_source, refuse
from calibration.pictures.sources import ProceduralSource, Source
from calibration.pictures.tfds_source import PREFIX as TFDS
from calibration.selection import Selection, select, select_procedural
from pipeline.progress import Progress
from pipeline.request.request import Request
from recreate_model.recipe import Picture, Recipe
from recreate_model.support.errors import InputError


def find_pictures(
    request: Request, chosen: int | Sequence[Picture], calibrated: Sequence[str], progress: Progress
) -> tuple[Source, Selection]:
    """The source, and the pictures of it to calibrate and to evaluate on.

    Args:
        chosen: number of pictures to calibrate on, or the pictures themselves.
        calibrated: SHA-256 of pictures on which a given range table was measured.
    """
    wanted = _folder_or_procedural() if request.images == "auto" else request.images
    if wanted == "procedural":
        given = {name: getattr(request, name) for name in ("labels", "label_base", "split")}
        refuse("procedural pictures, which have no labels and no splits", **given)
        procedural = ProceduralSource(request.seed)
        return procedural, select_procedural(procedural, chosen, request.limit)
    source = open_source(wanted, Reading(request.labels, request.label_base, request.split), progress.bar)
    selection = select(source, chosen, request.limit, request.seed, calibrated)
    return source, selection


def _folder_or_procedural() -> str:
    wanted = os.environ.get("IMAGENET_DIR") or "procedural"
    if wanted != "procedural" and not wanted.startswith(TFDS) and not Path(wanted).exists():
        raise InputError(
            expected=f"IMAGENET_DIR to name a path with pictures, or a data set as {TFDS}NAME",
            found=f"nothing at {wanted}",
            next_step="correct or unset it, or give --images",
        )
    return wanted


def warn_of_evaluation(recipe: Recipe, request: Request) -> None:
    """Warns if there are fewer pictures to evaluate on than requested, or if some may have calibrated."""
    found = len(recipe.evaluation.pictures)
    if found < request.limit:
        logging.warning("%d pictures are left to evaluate on, of the %d requested", found, request.limit)
    if found and recipe.evaluation.overlap is None and not (request.of and recipe.evaluation.kind == "procedural"):
        what = request.of or request.ranges or "the published model"
        logging.warning(
            "which pictures calibrated %s is not recorded; some of them may be among those to evaluate on", what
        )


def warn_of_procedural(recipe: Recipe, request: Request) -> None:
    """Warns if pictures are procedural because none were given; not for seeded weights, which claim no accuracy."""
    is_claimed = recipe.model.resolution > 0 and recipe.checkpoint.kind != "seeded"
    if is_claimed and request.images == "auto" and recipe.evaluation.kind == "procedural":
        logging.warning("no pictures are given: PROCEDURAL ones are used, which resemble no photograph; give --images")

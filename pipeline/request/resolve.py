"""From what the user asked to a recipe, and to where its contents lie on this machine.

`auto` chooses and says so; a path that is given is used or refused, never replaced.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from absl import logging

from calibration.manifest import read_manifest
from calibration.parallel.cluster import check_address
from calibration.parallel.workers import Workers
from calibration.pictures.opening import Reading, open_source, refuse
from calibration.pictures.sources import ProceduralSource, Source
from calibration.pictures.tfds_source import PREFIX as TFDS
from calibration.ranges.range_methods import RangeMethod
from calibration.ranges.range_table import Ranges, from_json
from calibration.selection import Selection, select, select_procedural
from pipeline.console import Progress
from pipeline.engine import user_files
from pipeline.engine.work import Machine
from pipeline.ethos_u.config import read_config
from pipeline.ethos_u.targets import parse_targets
from pipeline.request import published_recipe
from pipeline.request.find_checkpoint import find_checkpoint, with_background
from pipeline.request.given import given_recipe
from pipeline.request.request import PUBLISHED, Request, check_least, meant
from recreate_model.recipe import MIN_MAX, Calibration, Evaluation, Model, Picture, Preprocess, Recipe
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import InputError, ResourceError, UsageError

_RANGE_METHODS = (MIN_MAX, "percentile:99.99", "mse", "entropy")  # as one may type them


@dataclass(frozen=True)
class Start:
    """What a build starts from, which decides its folder.

    Attributes:
        recipe: still without what pictures and targets decide.
        file: with the float weights, or the INT8 file that was given; None for seeded weights.
    """

    recipe: Recipe
    file: Path | None


def resolve(request: Request, progress: Progress, may_fetch: bool) -> tuple[Recipe, Machine]:
    """The recipe and the machine of a request.

    Args:
        may_fetch: whether the official archive may be downloaded; otherwise only the cache is looked at.

    Raises:
        UsageError, InputError, ResourceError: as the request deserves.
    """
    return complete(request, start(request, progress, may_fetch), progress)


def start(request: Request, progress: Progress, may_fetch: bool) -> Start:
    """The part of `resolve` that looks at what the build starts from; raises as that does."""
    if request.of:
        return Start(given_recipe(request.of), request.of)
    model = Model.parse(request.model)
    published = request.recipe == PUBLISHED
    # The published recipe means the trained weights; seeded ones in their place would be no such build.
    wanted = "official" if published and request.checkpoint == "auto" else request.checkpoint
    try:
        checkpoint, file = find_checkpoint(wanted, model, progress, may_fetch)
    except ResourceError as error:
        if not published:
            raise
        # Seeded weights, which the error offers elsewhere, are none of this recipe.
        step = "give the path of the archive with --checkpoint"
        raise ResourceError(expected=error.expected, found=error.found, done=error.done, next_step=step) from error
    if request.background:
        checkpoint = with_background(checkpoint, request.background)
    recipe = Recipe(model, checkpoint, Calibration(""), Evaluation(""), Preprocess(), ())
    return Start(replace(recipe, toolchain=published_recipe.TOOLCHAIN) if published else recipe, file)


def complete(request: Request, start: Start, progress: Progress) -> tuple[Recipe, Machine]:
    """The part of `resolve` that looks at pictures, ranges and targets; raises as that does."""
    check_least("--calib", request.calib, 1)
    check_least("--limit", request.limit, 0)
    check_least("--seed", request.seed, 0)
    workers = _workers(request)
    custom = read_config(request.vela_config) if request.vela_config else None
    targets = parse_targets(request.targets, request.optimise, custom)
    range_method = _range_method(request)
    table, ranges_sha256 = _table(request)
    measured = not (table or start.recipe.given)
    chosen = 0 if not measured else read_manifest(request.manifest) if request.manifest else request.calib
    calibrated = table.pictures if table else ()
    source, selection = _pictures(request, chosen, calibrated, progress)
    calibration = Calibration(source.kind, selection.calibration, range_method=range_method)
    if table:
        calibration = Calibration("ranges", ranges_sha256=ranges_sha256, range_method=table.range_method)
    if start.recipe.given:
        calibration = start.recipe.calibration
    overlap = selection.overlap if measured or calibrated else None
    recipe = replace(
        start.recipe,
        calibration=calibration,
        evaluation=Evaluation(source.kind, selection.evaluation, overlap),
        preprocess=Preprocess(request.crop),
        targets=targets,
    )
    machine = Machine(
        out=request.out,
        checkpoint=start.file,
        source=source,
        ranges=table,
        workers=workers,
        progress=progress,
        vela_config=custom,
        published=request.published or request.of,
        moves=request.moves,
        background=request.background,
    )
    return recipe, machine


def warn_of_evaluation(recipe: Recipe, request: Request) -> None:
    """Says what is less than one may expect of the pictures that evaluate."""
    found = len(recipe.evaluation.pictures)
    if found < request.limit:
        logging.warning("%d pictures are left to evaluate on, of the %d asked for", found, request.limit)
    if found and recipe.evaluation.overlap is None and not (request.of and recipe.evaluation.kind == "procedural"):
        what = request.of or request.ranges or "the published model"
        logging.warning("nobody recorded which pictures calibrated %s; some may evaluate as well", what)


def warn_of_procedural(recipe: Recipe, request: Request) -> None:
    """Warns that pictures are procedural because none were given; not for seeded weights, which claim no accuracy."""
    looks = recipe.model.resolution > 0 and recipe.checkpoint.kind != "seeded"
    if looks and request.images == "auto" and recipe.evaluation.kind == "procedural":
        logging.warning("no pictures are given: PROCEDURAL ones are used, which resemble no photograph; give --images")


def _workers(request: Request) -> Workers:
    """One process for each processor, unless the user says otherwise."""
    if request.jobs is not None:
        check_least("--jobs", request.jobs, 1)
    if request.cluster is None:
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        return Workers(request.jobs or processors)
    check_address(request.cluster)
    if request.jobs is not None:
        raise UsageError(
            expected="--jobs or --cluster, as a cluster has as many processes as it has",
            found="both",
            next_step="leave one of them out",
        )
    return Workers(cluster=request.cluster)


def _range_method(request: Request) -> str:
    """The method in its one spelling."""
    wanted = request.range_method
    if wanted is None:
        return MIN_MAX
    if request.ranges:
        raise UsageError(
            expected="--range-method or --ranges, as the ranges of a table are chosen already",
            found="both",
            next_step="leave one of them out",
        )
    try:
        return str(RangeMethod.parse(wanted))
    except ValueError as error:
        raise UsageError(
            expected="--range-method to be min-max, percentile:P with 0 < P <= 100, mse or entropy",
            found=str(error),
            next_step=meant(wanted, _RANGE_METHODS) or f"give --range-method {_RANGE_METHODS[1]}",
        ) from error


def _pictures(
    request: Request, chosen: int | Sequence[Picture], calibrated: Sequence[str], progress: Progress
) -> tuple[Source, Selection]:
    """The source, and what calibrates and evaluates of it.

    Args:
        chosen: how many calibrate, or which.
        calibrated: digests of pictures that calibrated before.
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
            expected=f"the environment variable IMAGENET_DIR to name pictures, or a data set as {TFDS}NAME",
            found=f"nothing at {wanted}",
            next_step="correct or unset it, or give --images",
        )
    return wanted


def _table(request: Request) -> tuple[Ranges | None, str]:
    """The range table of a request and its SHA-256, if it has one. Whether it fits is for `calibrate` to say."""
    if request.recipe == PUBLISHED:
        return published_recipe.recorded_ranges()
    path = request.ranges
    if path is None:
        return None, ""
    wanted = f"--ranges {path} to be a range table"
    text = user_files.read_text(path, wanted, "give a ranges.json that `python -m pipeline calibrate` wrote")
    return from_json(text, str(path)), digest_bytes(text.encode())

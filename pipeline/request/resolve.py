"""From a request to a recipe, and to where the contents of the recipe are on this machine.

`auto` chooses and says so; a given path is used or refused, never replaced.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from calibration.manifest import read_manifest
from calibration.parallel.cluster import check_address
from calibration.parallel.workers import Workers
from pipeline.engine.work import Machine
from pipeline.ethos_u.config import read_config
from pipeline.ethos_u.targets import parse_targets
from pipeline.progress import Progress
from pipeline.request import published_recipe
from pipeline.request.find_checkpoint import find_checkpoint, with_background
from pipeline.request.find_pictures import find_pictures
from pipeline.request.find_ranges import find_range_method, find_table
from pipeline.request.given import given_recipe
from pipeline.request.request import PUBLISHED, Request, check_least
from recreate_model.network.spec import Model
from recreate_model.recipe import Calibration, Evaluation, Preprocess, Recipe
from recreate_model.support.errors import ResourceError, UsageError


@dataclass(frozen=True)
class Start:
    """What a build starts from, which decides its folder.

    Attributes:
        recipe: without pictures, ranges and targets.
        file: with the float weights, or the given INT8 file; None for seeded weights.
    """

    recipe: Recipe
    file: Path | None


def resolve(request: Request, progress: Progress, may_fetch: bool) -> tuple[Recipe, Machine]:
    """The recipe and the machine of a request.

    Args:
        may_fetch: whether the official archive may be downloaded; otherwise it is taken from the cache only.

    Raises:
        UsageError: options contradict each other, or have impossible values.
        InputError: a given file or folder cannot be used.
        ResourceError: the official archive is not available.
    """
    return complete(request, start(request, progress, may_fetch), progress)


def resolve_floats(request: Request, progress: Progress, may_fetch: bool) -> tuple[Recipe, Machine]:
    """The same for a command that works on float weights alone: without pictures, ranges and targets."""
    found = start(request, progress, may_fetch)
    return found.recipe, Machine(
        request.out, found.file, None, None, _workers(request), progress, background=request.background
    )


def start(request: Request, progress: Progress, may_fetch: bool) -> Start:
    """The part of `resolve` that looks at what the build starts from; raises as that does."""
    if request.of:
        return Start(given_recipe(request.of), request.of)
    model = Model.parse(request.model)
    published = request.recipe == PUBLISHED
    # The published recipe is about the trained weights: seeded ones cannot replace them.
    wanted = "official" if published and request.checkpoint == "auto" else request.checkpoint
    try:
        checkpoint, file = find_checkpoint(wanted, model, progress, may_fetch)
    except ResourceError as error:
        if not published:
            raise
        # The error would suggest seeded weights, which this recipe does not take.
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
    targets = parse_targets(request.targets, request.optimize, custom)
    range_method = find_range_method(request)
    table, ranges_sha256 = find_table(request)
    measured = not (table or start.recipe.given)
    chosen = 0 if not measured else read_manifest(request.manifest) if request.manifest else request.calib
    calibrated = table.pictures if table else ()
    source, selection = find_pictures(request, chosen, calibrated, progress)
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
        preprocess=Preprocess(request.preprocess),
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
        corrections=request.corrections,
        background=request.background,
    )
    return recipe, machine


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

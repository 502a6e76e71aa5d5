"""From what the user asked to a recipe, and to where its contents lie on this machine.

`auto` chooses and says so; a path that is given is used or refused, never replaced.
"""

from __future__ import annotations

import argparse
import difflib
import os
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from absl import logging

from calibration.cluster import check_address
from calibration.manifest import read_manifest
from calibration.opening import Reading, open_source, refuse
from calibration.range_methods import RangeMethod
from calibration.ranges import Ranges, from_json
from calibration.selection import Selection, select, select_procedural
from calibration.sources import ProceduralSource, Source
from calibration.tfds_source import PREFIX as TFDS
from calibration.workers import Workers
from pipeline.ethos_u.config import read_config
from pipeline.ethos_u.targets import parse_targets
from pipeline.work import Machine, Progress
from recreate_model import resources
from recreate_model.digest import digest_bytes, digest_file
from recreate_model.errors import InputError, ResourceError, UsageError
from recreate_model.recipe import MIN_MAX, Calibration, Checkpoint, Evaluation, Model, Preprocess, Recipe
from recreate_model.seeded import SEED

# How long `auto` believes that the official archive cannot be reached, in seconds: a build that is up to date should
# not wait for a network that was not there a minute ago.
_RETRY_AFTER = 15 * 60
_UNREACHABLE = ".official-archive-unreachable"

_RANGE_METHODS = (MIN_MAX, "percentile:99.99", "mse", "entropy")  # as one may type them


@dataclass(frozen=True)
class Request:
    """What the user asked for, as typed; every default is here."""

    model: str = "1.0_224"
    checkpoint: str = "auto"
    images: str = "auto"
    labels: Path | None = None
    label_base: int | None = None
    split: str | None = None
    calib: int = 100
    seed: int = 0
    manifest: Path | None = None
    limit: int = 200
    crop: str = "central-crop"
    ranges: Path | None = None
    range_method: str | None = None  # min-max, unless a table says otherwise
    targets: str = "all"
    optimise: str = "speed"
    vela_config: Path | None = None
    out: Path = Path("artifacts")
    jobs: int | None = None
    cluster: str | None = None

    @classmethod
    def given(cls, arguments: argparse.Namespace, **fixed: str) -> Request:
        """What was typed; what was not, or cannot be with this command, is `fixed` or left to the defaults."""
        values: dict[str, Any] = {
            part.name: fixed.get(part.name, getattr(arguments, part.name, None)) for part in fields(cls)
        }
        return cls(**{name: value for name, value in values.items() if value is not None})


def resolve(request: Request, progress: Progress, may_fetch: bool) -> tuple[Recipe, Machine]:
    """The recipe and the machine of a request.

    Args:
        may_fetch: whether the official archive may be downloaded; otherwise only the cache is looked at.

    Raises:
        UsageError, InputError, ResourceError: as the request deserves.
    """
    check_least("--calib", request.calib, 1)
    check_least("--limit", request.limit, 0)
    check_least("--seed", request.seed, 0)
    workers = _workers(request)
    model = Model.parse(request.model)
    custom = read_config(request.vela_config) if request.vela_config else None
    targets = parse_targets(request.targets, request.optimise, custom)
    checkpoint, archive = _checkpoint(request.checkpoint, model, progress, may_fetch)
    range_method = _range_method(request)
    table, ranges_sha256 = _table(request.ranges) if request.ranges else (None, "")
    source, selection = _pictures(request, table, progress, trained=checkpoint.kind != "seeded")
    calibration = Calibration(source.kind, selection.calibration, range_method=range_method)
    if table:
        calibration = Calibration("ranges", ranges_sha256=ranges_sha256, range_method=table.range_method)
    unknown = table is not None and not table.pictures
    evaluation = Evaluation(source.kind, selection.evaluation, None if unknown else selection.overlap)
    recipe = Recipe(model, checkpoint, calibration, evaluation, Preprocess(request.crop), targets)
    machine = Machine(
        out=request.out,
        checkpoint=archive,
        source=source,
        ranges=table,
        workers=workers,
        progress=progress,
        vela_config=custom,
    )
    return recipe, machine


def warn_of_evaluation(recipe: Recipe, request: Request) -> None:
    """Says what is less than one may expect of the pictures that evaluate."""
    found = len(recipe.evaluation.pictures)
    if found < request.limit:
        logging.warning("%d pictures are left to evaluate on, of the %d asked for", found, request.limit)
    if found and recipe.evaluation.overlap is None:
        logging.warning("nobody recorded which pictures %s came from; some may evaluate as well", request.ranges)


def check_least(flag: str, value: int, least: int) -> None:
    """Raises UsageError for a number that is too small."""
    if value < least:
        raise UsageError(expected=f"{flag} to be at least {least}", found=str(value), next_step=f"give {flag} {least}")


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
            next_step=_meant(wanted, _RANGE_METHODS) or f"give --range-method {_RANGE_METHODS[1]}",
        ) from error


def _checkpoint(wanted: str, model: Model, progress: Progress, may_fetch: bool) -> tuple[Checkpoint, Path | None]:
    if wanted == "seeded":
        return Checkpoint("seeded", seed=SEED), None
    if wanted == "official":
        return _official(model, progress, may_fetch)
    if wanted == "auto":
        return _official_or_seeded(model, progress, may_fetch)
    path = Path(wanted)
    if not path.is_file():
        raise InputError(
            expected=f"--checkpoint to name an archive ({model.name}.tgz)",
            found=f"{'a folder' if path.is_dir() else 'nothing'} at {path}",
            next_step=_meant(wanted, ("official", "seeded", "auto")) or "give its path, or official, seeded or auto",
        )
    try:
        digest = digest_file(path)
    except OSError as error:
        raise InputError(
            expected=f"to read {path}", found=error.strerror or str(error), next_step="make it readable"
        ) from error
    pinned = resources.RESOURCES.get(model.name)
    kind = "official" if pinned and digest == pinned.sha256 else "archive"
    return Checkpoint(kind, digest), path


def _meant(text: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(text, known, n=1)
    return f"did you mean {close[0]}?" if close else ""


def _official(model: Model, progress: Progress, may_fetch: bool) -> tuple[Checkpoint, Path]:
    resource = resources.RESOURCES.get(model.name)
    if resource is None:
        raise UsageError(
            expected="a model whose official archive is pinned by size and SHA-256",
            found=f"no pin for {model.name}",
            next_step="download its archive yourself and give its path with --checkpoint",
        )
    cache = resources.cache_folder()
    path = resources.cached(resource, cache)
    if path is None and not may_fetch:
        raise ResourceError(
            expected=f"{resource.file_name} in the cache ({cache})",
            found="nothing valid there",
            next_step="run `python -m pipeline fetch --checkpoint official`",
        )
    if path is None:
        with progress.bar(f"fetching {resource.file_name}", resource.size) as advance:
            seen = 0

            def report(have: int, total: int) -> None:
                nonlocal seen
                advance(have - seen)
                seen = have

            path = resources.fetch(resource, cache, report)
    return Checkpoint("official", resource.sha256), path


def _official_or_seeded(model: Model, progress: Progress, may_fetch: bool) -> tuple[Checkpoint, Path | None]:
    marker = resources.cache_folder() / _UNREACHABLE
    pinned = model.name in resources.RESOURCES
    try:
        if pinned:
            return _official(model, progress, may_fetch and not _recent(marker))
        reason = f"no official archive of {model.name} is pinned"
    except ResourceError as error:
        reason = "the official archive is not in the cache, and could not be reached a moment ago"
        if may_fetch and not _recent(marker):
            reason = f"the official archive could not be had ({error.found})"
            _touch(marker)
    logging.warning(
        "%s; the weights are SEEDED and recognise nothing: the build folder and its models have `seeded` in their "
        "names. For the trained model give --checkpoint PATH or --checkpoint official.",
        reason,
    )
    return Checkpoint("seeded", seed=SEED), None


def _recent(marker: Path) -> bool:
    try:
        return time.time() - marker.stat().st_mtime < _RETRY_AFTER
    except OSError:
        return False


def _touch(marker: Path) -> None:
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError:
        # The marker saves time and nothing else.
        return


def _pictures(request: Request, table: Ranges | None, progress: Progress, trained: bool) -> tuple[Source, Selection]:
    wanted = _folder_or_procedural(trained) if request.images == "auto" else request.images
    chosen = 0 if table else read_manifest(request.manifest) if request.manifest else request.calib
    if wanted == "procedural":
        given = {name: getattr(request, name) for name in ("labels", "label_base", "split")}
        refuse("procedural pictures, which have no labels and no splits", **given)
        procedural = ProceduralSource(request.seed)
        return procedural, select_procedural(procedural, chosen, request.limit)
    source = open_source(wanted, Reading(request.labels, request.label_base, request.split), progress.bar)
    selection = select(source, chosen, request.limit, request.seed, table.pictures if table else ())
    return source, selection


def _folder_or_procedural(trained: bool) -> str:
    wanted = os.environ.get("IMAGENET_DIR") or "procedural"
    if wanted == "procedural" and trained:
        logging.warning("no pictures are given; PROCEDURAL ones are used, which resemble no photograph. Give --images")
    elif wanted != "procedural" and not wanted.startswith(TFDS) and not Path(wanted).exists():
        raise InputError(
            expected=f"the environment variable IMAGENET_DIR to name pictures, or a data set as {TFDS}NAME",
            found=f"nothing at {wanted}",
            next_step="correct or unset it, or give --images",
        )
    return wanted


def _table(path: Path) -> tuple[Ranges, str]:
    """The range table given, and its SHA-256. Whether it fits the network is for `calibrate` to say."""
    try:
        data = path.read_bytes()
        return from_json(data.decode(), str(path)), digest_bytes(data)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            expected=f"--ranges {path} to be a range table",
            found=str(getattr(error, "strerror", None) or "a file that is not text"),
            next_step="give a ranges.json that `python -m pipeline calibrate` wrote",
        ) from error

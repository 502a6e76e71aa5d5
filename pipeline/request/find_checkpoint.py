"""From `--checkpoint` to the float weights it names, and to the file on this machine that has them."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from absl import logging

from pipeline.progress import Progress
from pipeline.request.request import meant
from recreate_model.floats import float_forms
from recreate_model.network.seeded import SEED
from recreate_model.network.spec import RESOURCES, Model
from recreate_model.recipe import ARCHIVE, Checkpoint
from recreate_model.support import resources
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import InputError, ResourceError, UsageError, reason
from recreate_model.tflite.model_view import read_file

# Seconds for which `auto` does not try again to reach the official archive: a build that is up to date should not wait
# for a network that was not available a minute ago.
_RETRY_AFTER = 15 * 60
_UNREACHABLE = ".official-archive-unreachable"


def find_checkpoint(wanted: str, model: Model, progress: Progress, may_fetch: bool) -> tuple[Checkpoint, Path | None]:
    """The float weights that `--checkpoint` names, by content, and the file that has them; None for seeded ones.

    Raises:
        UsageError: the official archive of the model is not pinned.
        InputError: no such file, or it cannot be read.
        ResourceError: the official archive is not available.
    """
    if wanted == "seeded":
        return Checkpoint("seeded", seed=SEED), None
    if wanted == "official":
        return _official(model, progress, may_fetch)
    if wanted == "auto":
        return _official_or_seeded(model, progress, may_fetch)
    path = Path(wanted)
    if not (path.is_file() or path.is_dir()):
        raise InputError(
            expected=f"--checkpoint to name an archive ({model.name}.tgz) or another file with float weights",
            found=f"{'something that is not a file' if path.exists() else 'nothing'} at {path}",
            next_step=meant(wanted, ("official", "seeded", "auto")) or "give its path, or official, seeded or auto",
        )
    form = float_forms.form_of(path)
    try:
        digest = float_forms.digest_of(path)
    except OSError as error:
        raise InputError(expected=f"to read {path}", found=reason(error), next_step="make it readable") from error
    if form != ARCHIVE:
        return Checkpoint("file", digest, form=form), path
    pinned = RESOURCES.get(model.name)
    kind = "official" if pinned and digest == pinned.sha256 else "archive"
    return Checkpoint(kind, digest), path


def with_background(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """The same float weights with class 0 of the INT8 model that `--background` names.

    Raises:
        UsageError: the weights are of a kind that has class 0.
        InputError: the model cannot be read.
    """
    if checkpoint.kind != "file":
        raise UsageError(
            expected="--background beside a --checkpoint without class 0, as Keras writes it",
            found=f"{checkpoint.kind} weights, which have one",
            next_step="leave --background out",
        )
    return replace(checkpoint, background=digest_bytes(read_file(path)))


def _official(model: Model, progress: Progress, may_fetch: bool) -> tuple[Checkpoint, Path]:
    resource = RESOURCES.get(model.name)
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
            found="no valid file there",
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
    pinned = model.name in RESOURCES
    try:
        if pinned:
            return _official(model, progress, may_fetch and not _recent(marker))
        reason = f"no official archive of {model.name} is pinned"
    except ResourceError as error:
        reason = "the official archive is not in the cache, and could not be reached a few minutes ago"
        if may_fetch and not _recent(marker):
            reason = f"the official archive is not available ({error.found})"
            _touch(marker)
    logging.warning(
        "%s; the weights are SEEDED, so the model is untrained and recognizes nothing; its files have `seeded` in "
        "their names. For the trained model give --checkpoint PATH or --checkpoint official.",
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
        # The marker only saves time.
        return

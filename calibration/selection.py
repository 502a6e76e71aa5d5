"""Which pictures calibrate and which evaluate: fixed by names, classes and a seed, spread over the classes, apart.

Pictures are taken in rounds, one of each class, shuffled by the digest of their file names: neither the file system,
nor the folders or shards they lie in, nor the number of pictures asked for changes their order. Calibration begins with
one end of each class and evaluation with the other, so a larger `--calib` keeps the pictures of a smaller one, and
evaluation keeps its own while there is room. No content is in both, whatever names it has.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from calibration.pictures.sources import ProceduralSource, StoredSource
from recreate_model.recipe import Picture
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import InputError

# Far from any calibration set, so that what evaluates does not change with --calib.
_PROCEDURAL_EVALUATION_START = 1_000_000


@dataclass(frozen=True)
class Selection:
    """Pictures with their digests; no picture is in both.

    Attributes:
        overlap: how many pictures would have evaluated, had their content not calibrated.
    """

    calibration: tuple[Picture, ...]
    evaluation: tuple[Picture, ...]
    overlap: int = 0


def spread(pictures: Sequence[Picture], seed: int = 0, backwards: bool = False) -> list[Picture]:
    """The order in which pictures are taken, whatever the order they come in; `backwards` from the other ends."""
    classes: dict[str, list[tuple[tuple[str, str], Picture]]] = defaultdict(list)
    for picture in pictures:
        folder, _, file_name = picture.id.rpartition("/")
        # The id tells apart what has one file name in two folders.
        order = (digest_bytes(f"{seed}/{file_name}".encode()), picture.id)
        classes[folder if picture.label is None else str(picture.label)].append((order, picture))
    rounds = [
        (turn, order, picture)
        for members in classes.values()
        for turn, (order, picture) in enumerate(sorted(members, key=lambda member: member[0], reverse=backwards))
    ]
    rounds.sort(key=lambda row: row[1], reverse=backwards)
    return [picture for _, _, picture in sorted(rounds, key=lambda row: row[0])]


def select(
    source: StoredSource,
    calib: int | Sequence[Picture],
    limit: int,
    seed: int = 0,
    excluded: Collection[str] = frozenset(),
) -> Selection:
    """Pictures to calibrate, and up to `limit` others to evaluate, with the SHA-256 of each.

    Args:
        calib: how many calibrate, or which, as a manifest lists them.
        seed: another one gives other pictures.
        excluded: digests of pictures that calibrated before, and so must not evaluate.

    Raises:
        InputError: fewer pictures than `calib`, one of a manifest that is missing or changed, or an unreadable one.
    """
    pictures = source.pictures()
    if isinstance(calib, int):
        calibration = _first(source, spread(pictures, seed), calib)
    else:
        calibration = _listed(source, pictures, calib)
    used = {picture.sha256 for picture in calibration} | set(excluded)
    evaluation: list[Picture] = []
    overlap = 0
    for candidate in spread(pictures, seed, backwards=True):
        if len(evaluation) == limit:
            break
        picture = _with_digest(source, candidate)
        if picture.sha256 in used:
            overlap += 1
        else:
            evaluation.append(picture)
    return Selection(calibration, tuple(evaluation), overlap)


def select_procedural(source: ProceduralSource, calib: int | Sequence[Picture], limit: int) -> Selection:
    """As `select`. The digests are known once the pictures are made, which only measuring does; it compares them."""
    calibration = source.pictures(0, calib) if isinstance(calib, int) else calib
    evaluation = source.pictures(_PROCEDURAL_EVALUATION_START, limit)
    used = {picture.id for picture in calibration}
    others = tuple(picture for picture in evaluation if picture.id not in used)
    return Selection(tuple(calibration), others, len(evaluation) - len(others))


def _first(source: StoredSource, order: Sequence[Picture], calib: int) -> tuple[Picture, ...]:
    if len(order) < calib:
        raise InputError(
            expected=f"{calib} pictures to calibrate on in {source.name}",
            found=f"{len(order)}",
            next_step=f"give --calib {len(order)} or fewer, or the folder above if this is one class of several",
        )
    return tuple(_with_digest(source, picture) for picture in order[:calib])


def _listed(source: StoredSource, pictures: Sequence[Picture], manifest: Sequence[Picture]) -> tuple[Picture, ...]:
    by_id = {picture.id: picture for picture in pictures}
    missing = [picture.id for picture in manifest if picture.id not in by_id]
    if len(missing) == len(manifest):
        # Another source altogether: hundreds of names would hide it.
        raise InputError(
            expected=f"the {len(manifest)} pictures of the manifest in {source.name}",
            found=f"none of them: there is no {missing[0]}, but {min(by_id)}",
            next_step="give the --images that its `source` speaks of, or choose others with --calib N",
        )
    here = [_with_digest(source, by_id[picture.id]) for picture in manifest if picture.id in by_id]
    wanted = {picture.id: picture for picture in manifest}
    changed = [picture.id for picture in here if picture.sha256 != wanted[picture.id].sha256]
    changed += [
        f"{picture.id} (class {picture.label} instead of {wanted[picture.id].label})"
        for picture in here
        if picture.label != wanted[picture.id].label
    ]
    faults = [f"{what} {', '.join(names)}" for what, names in (("missing:", missing), ("changed:", changed)) if names]
    if faults:
        raise InputError(
            expected=f"the {len(manifest)} pictures of the manifest in {source.name}, unchanged",
            found="; ".join(faults),
            next_step="restore them, or choose others with --calib N",
        )
    return tuple(here)


def _with_digest(source: StoredSource, picture: Picture) -> Picture:
    """The picture with the digest of its content; that of a data set's is known already."""
    return picture if picture.sha256 else dataclasses.replace(picture, sha256=source.digest(picture.id))

"""Selects the pictures for calibration (the representative dataset) and for evaluation.

The selection depends only on file names, classes and a seed. Pictures are taken in rounds, one of each class, in the
order of the digest of their file names. The file system, the folder or shard of a picture, and the number of pictures
requested do not change this order. Calibration takes from the start of the order and evaluation from the end. So a
larger `--calib` keeps the pictures of a smaller one, and evaluation keeps its pictures while the two do not meet. No
content is used for both, even under different names.
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

# Beyond any calibration set, so that the evaluation pictures do not change with --calib.
_PROCEDURAL_EVALUATION_START = 1_000_000


@dataclass(frozen=True)
class Selection:
    """Pictures for calibration and evaluation, with their digests.

    Attributes:
        calibration: pictures to calibrate on.
        evaluation: pictures to evaluate on; none has the content of a calibration picture.
        overlap: number of pictures left out of the evaluation because they are used for calibration.
    """

    calibration: tuple[Picture, ...]
    evaluation: tuple[Picture, ...]
    overlap: int = 0


def spread(pictures: Sequence[Picture], seed: int = 0, backwards: bool = False) -> list[Picture]:
    """The pictures in the order in which they are taken. It does not depend on the order of `pictures`.

    Args:
        seed: another seed gives another order.
        backwards: the order for evaluation, which takes the last picture of each class first.
    """
    classes: dict[str, list[tuple[tuple[str, str], Picture]]] = defaultdict(list)
    for picture in pictures:
        folder, _, file_name = picture.id.rpartition("/")
        # The id distinguishes pictures of the same file name in two folders.
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
    """Selects pictures to calibrate on, and up to `limit` others to evaluate on, with the SHA-256 of each.

    Args:
        calib: the number of pictures to calibrate on, or the pictures of a manifest.
        seed: another seed selects other pictures.
        excluded: SHA-256 of further pictures that must not be used for evaluation, as they were used for calibration.

    Raises:
        InputError: there are fewer pictures than `calib`, a picture of the manifest is missing or changed, or a picture
            cannot be read.
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
    """As `select`, for procedural pictures. Their digests are not known until they are generated for measuring."""
    calibration = source.pictures(0, calib) if isinstance(calib, int) else calib
    evaluation = source.pictures(_PROCEDURAL_EVALUATION_START, limit)
    used = {picture.id for picture in calibration}
    unused = tuple(picture for picture in evaluation if picture.id not in used)
    return Selection(tuple(calibration), unused, len(evaluation) - len(unused))


def _first(source: StoredSource, order: Sequence[Picture], calib: int) -> tuple[Picture, ...]:
    if len(order) < calib:
        raise InputError(
            expected=f"{calib} pictures to calibrate on in {source.name}",
            found=f"{len(order)}",
            next_step=f"give --calib {len(order)} or fewer, or the parent folder if this is one class of several",
        )
    return tuple(_with_digest(source, picture) for picture in order[:calib])


def _listed(source: StoredSource, pictures: Sequence[Picture], manifest: Sequence[Picture]) -> tuple[Picture, ...]:
    by_id = {picture.id: picture for picture in pictures}
    missing = [picture.id for picture in manifest if picture.id not in by_id]
    if len(missing) == len(manifest):
        # A different source: an error with hundreds of names would not show that.
        raise InputError(
            expected=f"the {len(manifest)} pictures of the manifest in {source.name}",
            found=f"none of them: {min(by_id)} instead of {missing[0]}, for example",
            next_step="give the --images that `source` in the manifest names, or select other pictures with --calib N",
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
            next_step="restore them, or select other pictures with --calib N",
        )
    return tuple(here)


def _with_digest(source: StoredSource, picture: Picture) -> Picture:
    """The picture with the digest of its content. Data sets list their pictures with it."""
    return picture if picture.sha256 else dataclasses.replace(picture, sha256=source.digest(picture.id))

"""Which pictures calibrate and which evaluate: fixed by the pictures' names alone, spread over the classes, apart.

Pictures are taken in rounds, one of each class, shuffled by the digest of their names. Calibration begins with one end
of each class and evaluation with the other, so a larger `--calib` keeps the pictures of a smaller one, and evaluation
keeps its own while there is room. No content is in both, whatever names it has.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from calibration.sources import FolderSource, ProceduralSource
from recreate_model.digest import digest_bytes
from recreate_model.errors import InputError
from recreate_model.recipe import Picture

# Far from any calibration set, so that what evaluates does not change with --calib.
_PROCEDURAL_EVALUATION_START = 1_000_000


@dataclass(frozen=True)
class Selection:
    """Pictures with their digests; no picture is in both."""

    calibration: tuple[Picture, ...]
    evaluation: tuple[Picture, ...]


def spread(pictures: Sequence[Picture], backwards: bool = False) -> list[Picture]:
    """The order in which pictures are taken, whatever the order they come in; `backwards` from the other ends."""
    classes: dict[str, list[tuple[str, Picture]]] = defaultdict(list)
    for picture in pictures:
        classes[picture.id.rpartition("/")[0]].append((digest_bytes(picture.id.encode()), picture))
    rounds = [
        (turn, digest, picture)
        for members in classes.values()
        for turn, (digest, picture) in enumerate(sorted(members, key=lambda member: member[0], reverse=backwards))
    ]
    rounds.sort(key=lambda row: row[1], reverse=backwards)
    return [picture for _, _, picture in sorted(rounds, key=lambda row: row[0])]


def select_from_folder(
    source: FolderSource, calib: int, limit: int, excluded: Collection[str] = frozenset()
) -> Selection:
    """`calib` pictures to calibrate and up to `limit` others to evaluate, with the SHA-256 of each.

    Args:
        excluded: digests of pictures that calibrated before, and so must not evaluate.

    Raises:
        InputError: fewer pictures than `calib`, or one that cannot be read.
    """
    pictures = source.pictures()
    order = spread(pictures)
    if len(order) < calib:
        raise InputError(
            expected=f"{calib} pictures to calibrate on in {source.root}",
            found=f"{len(order)}",
            next_step=f"give --calib {len(order)} or fewer, or the folder above if this is one class of several",
        )
    calibration = tuple(_with_digest(source, picture) for picture in order[:calib])
    used = {picture.sha256 for picture in calibration} | set(excluded)
    candidates = (_with_digest(source, picture) for picture in spread(pictures, backwards=True))
    fresh = (picture for picture in candidates if picture.sha256 not in used)
    return Selection(calibration, tuple(itertools.islice(fresh, limit)))


def select_procedural(source: ProceduralSource, calib: int, limit: int) -> Selection:
    """`calib` pictures to calibrate and `limit` others to evaluate. Their digests are known once they are made."""
    return Selection(tuple(source.pictures(0, calib)), tuple(source.pictures(_PROCEDURAL_EVALUATION_START, limit)))


def _with_digest(source: FolderSource, picture: Picture) -> Picture:
    return dataclasses.replace(picture, sha256=source.digest(picture.id))

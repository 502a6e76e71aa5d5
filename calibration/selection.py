"""Which pictures calibrate and which evaluate: fixed by the pictures' names alone, spread over the classes, apart.

The order is one of all pictures: first one of each class, then a second of each, and so on, shuffled by the digest of
the names. Calibration takes from its front and evaluation from its back, so a larger `--calib` keeps the pictures of a
smaller one, and evaluation keeps its own.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
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


def spread(pictures: Sequence[Picture]) -> list[Picture]:
    """The order in which pictures are taken, whatever the order they come in."""
    classes: dict[str, list[tuple[str, Picture]]] = defaultdict(list)
    for picture in pictures:
        classes[picture.id.rpartition("/")[0]].append((digest_bytes(picture.id.encode()), picture))
    rounds = [
        (turn, digest, picture)
        for members in classes.values()
        for turn, (digest, picture) in enumerate(sorted(members, key=lambda member: member[0]))
    ]
    return [picture for _, _, picture in sorted(rounds, key=lambda row: row[:2])]


def select_from_folder(source: FolderSource, calib: int, limit: int) -> Selection:
    """`calib` pictures to calibrate and up to `limit` others to evaluate, with the SHA-256 of each.

    Raises:
        InputError: fewer pictures than `calib`, or one that cannot be read.
    """
    order = spread(source.pictures())
    if len(order) < calib:
        raise InputError(
            expected=f"{calib} pictures to calibrate on in {source.root}",
            found=f"{len(order)}",
            next_step=f"give --calib {len(order)} or fewer, or the folder above if this is one class of several",
        )
    rest = order[calib:]
    evaluation = rest[max(0, len(rest) - limit) :][::-1]
    return Selection(_with_digests(source, order[:calib]), _with_digests(source, evaluation))


def select_procedural(source: ProceduralSource, calib: int, limit: int) -> Selection:
    """`calib` pictures to calibrate and `limit` others to evaluate. Their digests are known once they are made."""
    return Selection(tuple(source.pictures(0, calib)), tuple(source.pictures(_PROCEDURAL_EVALUATION_START, limit)))


def _with_digests(source: FolderSource, pictures: Sequence[Picture]) -> tuple[Picture, ...]:
    return tuple(dataclasses.replace(picture, sha256=source.digest(picture.id)) for picture in pictures)

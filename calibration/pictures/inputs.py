"""Pictures as the network's inputs: what measuring and evaluating have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from calibration.pictures.preprocess import normalise
from calibration.pictures.sources import Source
from recreate_model.recipe import Picture, Preprocess
from recreate_model.support.arrays import Array
from recreate_model.support.errors import InputError

# Pictures to a task: enough to make the messages between processes cheap, few enough to keep progress moving.
CHUNK = 10


@dataclass(frozen=True)
class Inputs:
    """Where pictures come from, and how they become inputs of `resolution` pixels."""

    source: Source
    preprocess: Preprocess
    resolution: int

    def load(self, picture: Picture) -> tuple[Array, Picture]:
        """The input, float32 (1, resolution, resolution, 3), -1..1, and the picture with its digest.

        Raises:
            InputError: unreadable, or not the content that was chosen.
        """
        pixels, digest = self.source.read(picture.id)
        if picture.sha256 not in ("", digest):
            raise InputError(
                expected=f"{picture.id} to have SHA-256 {picture.sha256}",
                found=f"{digest}: not the picture that was chosen",
                next_step="restore it, or choose again with --calib N",
            )
        value = normalise(pixels, self.preprocess, self.resolution)
        return value, Picture(picture.id, digest, picture.label)


def chunks(pictures: Sequence[Picture]) -> Iterator[Sequence[Picture]]:
    """The pictures in tasks of `CHUNK`."""
    return (pictures[start : start + CHUNK] for start in range(0, len(pictures), CHUNK))

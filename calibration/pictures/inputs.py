"""Loads pictures as inputs of the network, for calibration and evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from calibration.pictures.preprocess import normalize
from calibration.pictures.sources import Source
from recreate_model.recipe import Picture, Preprocess
from recreate_model.support.arrays import Array
from recreate_model.support.errors import InputError

# Pictures in one task: enough to amortize the messages between processes, few enough for smooth progress.
CHUNK = 10


@dataclass(frozen=True)
class Inputs:
    """A picture source, its preprocessing, and the side length of the inputs in pixels."""

    source: Source
    preprocess: Preprocess
    resolution: int

    def load(self, picture: Picture) -> tuple[Array, Picture]:
        """The input, float32 (1, resolution, resolution, 3) in -1..1, and the picture with its digest.

        Raises:
            InputError: the picture cannot be read, or its content changed since it was selected.
        """
        pixels, digest = self.source.read(picture.id)
        if picture.sha256 not in ("", digest):
            raise InputError(
                expected=f"{picture.id} to have SHA-256 {picture.sha256}",
                found=f"{digest}; the picture changed since it was selected",
                next_step="restore it, or select pictures again with --calib N",
            )
        value = normalize(pixels, self.preprocess, self.resolution)
        return value, Picture(picture.id, digest, picture.label)


def chunks(pictures: Sequence[Picture]) -> Iterator[Sequence[Picture]]:
    """Divides the pictures into chunks of `CHUNK`."""
    return (pictures[start : start + CHUNK] for start in range(0, len(pictures), CHUNK))

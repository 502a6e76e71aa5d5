"""Where pictures come from: what every source has in common, and the one that makes its own.

Each lists pictures by id and gives the pixels of one. The stored pictures' digests are in the recipe, so a build's key
needs no code of their sources; the procedural ones are known by the code that makes them, which belongs in it.

Not for: choosing among them (`selection`), making them fit the network (`preprocess`), or finding the source that a
user means (`opening`).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from calibration.pictures import preprocess, procedural
from recreate_model.recipe import Picture
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import InputError

_PROCEDURAL_ID = re.compile(r"procedural/(\d+)/(\d{7})")


class Source(Protocol):
    """What calibration and evaluation need of a source; it must survive pickling, since workers get a copy."""

    @property
    def kind(self) -> str:
        """As in `recipe.Calibration`."""

    def read(self, picture_id: str) -> tuple[Array, str]:
        """RGB pixels, uint8 (height, width, 3), and the SHA-256 of the content. Raises InputError."""


class StoredSource(ABC):
    """A source of encoded pictures that were there before: a folder's, or a data set's."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """As in `recipe.Calibration`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it."""

    @abstractmethod
    def pictures(self) -> list[Picture]:
        """Every picture with its class where it is known, in no particular order; with the digest if that was read.

        Raises:
            InputError: none there, or one that cannot be listed or whose label is unclear.
        """

    @abstractmethod
    def encoded(self, picture_id: str) -> bytes:
        """One picture as it is stored, JPEG or PNG. Raises InputError where it is no longer there."""

    def read(self, picture_id: str) -> tuple[Array, str]:
        """As `Source.read`; the digest is of the encoded picture."""
        data = self.encoded(picture_id)
        return preprocess.decode(data, picture_id), digest_bytes(data)

    def digest(self, picture_id: str) -> str:
        """SHA-256 of the encoded picture, without decoding it."""
        return digest_bytes(self.encoded(picture_id))


@dataclass(frozen=True)
class ProceduralSource:
    """Pictures made from a seed, without labels. An id names the seed too, so any of these sources can make it."""

    seed: int = 0
    kind: str = "procedural"

    def pictures(self, start: int, count: int) -> list[Picture]:
        """`count` pictures of the series, from number `start`."""
        return [Picture(f"procedural/{self.seed}/{index:07d}") for index in range(start, start + count)]

    def read(self, picture_id: str) -> tuple[Array, str]:
        """As `Source.read`; the digest is of the pixels. Raises InputError for an id of no such picture."""
        match = _PROCEDURAL_ID.fullmatch(picture_id)
        if match is None:
            raise InputError(
                expected="ids of procedural pictures, such as procedural/0/0000001",
                found=picture_id,
                next_step="give --images the pictures the manifest was made from",
            )
        pixels = procedural.picture(int(match[1]), int(match[2]))
        return pixels, digest_bytes(np.ascontiguousarray(pixels).tobytes())

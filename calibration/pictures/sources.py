"""The interface of picture sources, and the source of procedural pictures.

A source lists pictures by id and returns the pixels of one. The recipe holds the digests of stored pictures, so the
code that reads them is not part of a stage key. Procedural pictures are defined by the code that generates them, so
that code is part of the key.

Not for: selecting pictures (`selection`), preprocessing (`preprocess`), or opening a source by name (`opening`).
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
    """The interface that calibration and evaluation need. A source must support pickling, as workers get a copy."""

    @property
    def kind(self) -> str:
        """As in `recipe.Calibration`."""

    def read(self, picture_id: str) -> tuple[Array, str]:
        """RGB pixels, uint8 (height, width, 3), and the SHA-256 of the content.

        Raises:
            InputError: the picture cannot be read.
        """


class StoredSource(ABC):
    """A source of stored, encoded pictures: a folder or a data set."""

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
        """Every picture, in no particular order, with its class if known, and with its digest if already computed.

        Raises:
            InputError: there are no pictures, they cannot be listed, or a label is missing or ambiguous.
        """

    @abstractmethod
    def encoded(self, picture_id: str) -> bytes:
        """The stored bytes of one picture, JPEG or PNG. Raises InputError if it is missing or unreadable."""

    def read(self, picture_id: str) -> tuple[Array, str]:
        """As `Source.read`. The digest is that of the encoded picture."""
        data = self.encoded(picture_id)
        return preprocess.decode(data, picture_id), digest_bytes(data)

    def digest(self, picture_id: str) -> str:
        """SHA-256 of the encoded picture, without decoding it."""
        return digest_bytes(self.encoded(picture_id))


@dataclass(frozen=True)
class ProceduralSource:
    """Pictures generated from a seed, without labels. An id includes the seed, so any instance can generate it."""

    seed: int = 0
    kind: str = "procedural"

    def pictures(self, start: int, count: int) -> list[Picture]:
        """`count` pictures, from number `start`."""
        return [Picture(f"procedural/{self.seed}/{index:07d}") for index in range(start, start + count)]

    def read(self, picture_id: str) -> tuple[Array, str]:
        """As `Source.read`. The digest is that of the pixels. Raises InputError if the id is not a procedural one."""
        match = _PROCEDURAL_ID.fullmatch(picture_id)
        if match is None:
            raise InputError(
                expected="ids of procedural pictures, such as procedural/0/0000001",
                found=picture_id,
                next_step="give --images the pictures that the manifest was made from",
            )
        pixels = procedural.picture(int(match[1]), int(match[2]))
        return pixels, digest_bytes(np.ascontiguousarray(pixels).tobytes())

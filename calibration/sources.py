"""Where pictures come from: what every source has in common. Each lists pictures by id and gives the pixels of one.

Not for: choosing among them (`selection`), making them fit the network (`preprocess`), or finding the source that a
user means (`opening`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from calibration import preprocess
from recreate_model.digest import digest_bytes
from recreate_model.network import Array
from recreate_model.recipe import Picture


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

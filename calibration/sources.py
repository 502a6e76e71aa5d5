"""Where pictures come from: a folder, or a seed. Each source lists pictures by id and gives the pixels of one.

Not for: choosing among them (`selection`), or making them fit the network (`preprocess`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from calibration import preprocess, procedural
from recreate_model.digest import digest_bytes
from recreate_model.errors import InputError
from recreate_model.labels import wnids
from recreate_model.network import Array
from recreate_model.recipe import Picture

_SYNSETS = "give --images a folder of synset folders (n01440764/x.JPEG), or `procedural`"
_SUFFIXES = (".jpeg", ".jpg", ".png")


class Source(Protocol):
    """What calibration and evaluation need of a source; it must survive pickling, since workers get a copy."""

    @property
    def kind(self) -> str:
        """As in `recipe.Calibration`."""

    def read(self, picture_id: str) -> tuple[Array, str]:
        """RGB pixels, uint8 (height, width, 3), and the SHA-256 of the content. Raises InputError."""


@dataclass(frozen=True)
class FolderSource:
    """Pictures below `root`: one folder a class, named by its synset, or all in one folder without labels."""

    root: Path
    kind: str = "folder"

    def pictures(self) -> list[Picture]:
        """All pictures, labelled where the folder's name is one of the 1000 synsets; in no particular order.

        Raises:
            InputError: no such folder, or no picture in it.
        """
        classes = {wnid: label for label, wnid in enumerate(wnids(), start=1)}
        try:
            found = [
                Picture(path.relative_to(self.root).as_posix(), label=classes.get(path.parent.name))
                for path in _picture_files(self.root)
            ]
        except OSError as error:
            raise InputError(
                expected=f"{self.root} to be a folder of pictures",
                found=error.strerror or str(error),
                next_step=_SYNSETS,
            ) from error
        for picture in found:
            if not _is_utf8(picture.id):
                raise InputError(
                    expected=f"the names of the pictures in {self.root} to be UTF-8",
                    found=ascii(picture.id),
                    next_step="rename it",
                )
        if not found:
            raise InputError(
                expected=f"pictures ({', '.join(_SUFFIXES)}) in {self.root}",
                found="none there, and none one folder down",
                next_step=_SYNSETS,
            )
        return found

    def read(self, picture_id: str) -> tuple[Array, str]:
        data = self._bytes(picture_id)
        return preprocess.decode(data, picture_id), digest_bytes(data)

    def digest(self, picture_id: str) -> str:
        """SHA-256 of the file, without decoding it."""
        return digest_bytes(self._bytes(picture_id))

    def _bytes(self, picture_id: str) -> bytes:
        try:
            return (self.root / picture_id).read_bytes()
        except OSError as error:
            raise InputError(
                expected=f"{picture_id} to be readable in {self.root}",
                found=error.strerror or str(error),
                next_step="restore or remove that picture, then run again",
            ) from error


@dataclass(frozen=True)
class ProceduralSource:
    """Pictures made from a seed, without labels."""

    seed: int = 0
    kind: str = "procedural"

    def pictures(self, start: int, count: int) -> list[Picture]:
        """`count` pictures of the series, from number `start`."""
        return [Picture(f"procedural/{index:07d}") for index in range(start, start + count)]

    def read(self, picture_id: str) -> tuple[Array, str]:
        pixels = procedural.picture(self.seed, int(picture_id.rpartition("/")[2]))
        return pixels, digest_bytes(np.ascontiguousarray(pixels).tobytes())


def _picture_files(root: Path) -> Iterator[Path]:
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir():
                with os.scandir(entry) as inner:
                    yield from (Path(file.path) for file in inner if _is_picture(file))
            elif _is_picture(entry):
                yield Path(entry.path)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_picture(entry: os.DirEntry[str]) -> bool:
    # A dot in front hides a file; some systems keep notes on a picture under its name with one.
    return entry.name.lower().endswith(_SUFFIXES) and not entry.name.startswith(".") and entry.is_file()

"""From what a user calls their pictures to the source that holds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from calibration.folder import FolderSource
from calibration.sources import StoredSource

# Where the published recipe wants the validation set: data/validation_data/{val.txt,validation_images/*.JPEG}, or
# data/validation_data/validation-* as TFRecords.
_PUBLISHED_LAYOUT = "validation_data"


@dataclass(frozen=True)
class Reading:
    """How to read a source, where it does not say itself.

    Attributes:
        label_file: of a folder's pictures; None for its own `val.txt`, if there is one.
        label_base: number of the first class, 0 or 1; None to find it out.
    """

    label_file: Path | None = None
    label_base: int | None = None


def open_source(images: str, reading: Reading) -> StoredSource:
    """The source of `--images`: a folder, or the folder above it in the published recipe's layout."""
    # Workers of a cluster start elsewhere, where a relative path would mean another folder.
    root = Path(images).absolute()
    if (root / _PUBLISHED_LAYOUT).is_dir():
        root /= _PUBLISHED_LAYOUT
    return FolderSource(root, reading.label_file, reading.label_base)

"""The manifest of a calibration set: id, SHA-256 and class of each picture. It is meant to be kept and reused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recreate_model.recipe import Picture, as_json
from recreate_model.support.digest import Json, document_fault, is_sha256, read_document, readable_json
from recreate_model.support.errors import InputError

_FORMAT = "calibration-manifest/1"


def to_json(pictures: Sequence[Picture], made_for: dict[str, Json]) -> str:
    """Readable JSON.

    Args:
        made_for: network, source and preprocessing, for the reader; `read_manifest` ignores it.
    """
    return readable_json({"format": _FORMAT, **made_for, "pictures": [as_json(picture) for picture in pictures]})


def read_manifest(path: Path) -> tuple[Picture, ...]:
    """The pictures of a manifest, in its order.

    Raises:
        InputError: the file cannot be read, is not a manifest, is empty, or lists a picture twice.
    """
    try:
        document = read_document(path.read_text(encoding="utf-8"), _FORMAT)
        pictures = tuple(_picture(row) for row in document["pictures"])
        if not pictures:
            raise ValueError("an empty list")
        seen: set[str] = set()
        for picture in pictures:
            if picture.id in seen:
                raise ValueError(f"{picture.id} listed twice")
            seen.add(picture.id)
        return pictures
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            expected=f"--manifest {path} to be a list of pictures ({_FORMAT})",
            found=document_fault(error),
            next_step="give a calibration/manifest.json that `python -m pipeline calibrate` wrote",
        ) from error


def _picture(row: Json) -> Picture:
    label = row["label"]
    if not isinstance(row["id"], str) or not is_sha256(row["sha256"]):
        raise ValueError(f"{row} instead of an id and a SHA-256")
    if not (label is None or type(label) is int):
        raise ValueError(f"label {label!r} for {row['id']}")
    return Picture(row["id"], row["sha256"], label)

"""Small generated pictures, in folders like ImageNet's."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from calibration.pictures import procedural
from recreate_model.network.labels import wnids


def jpeg(index: int, size: tuple[int, int] = (120, 100)) -> bytes:
    """One of a series of JPEG pictures, width by height."""
    return _encoded(index, size, "JPEG")


def png(index: int, size: tuple[int, int] = (100, 120)) -> bytes:
    """One of a series of PNG pictures, width by height."""
    return _encoded(index, size, "PNG")


def write_folder(root: Path, count: int) -> Path:
    """Writes `count` pictures into six synset folders, the last of each a PNG."""
    for index in range(count):
        folder = root / wnids()[index % 6 * 150]
        folder.mkdir(parents=True, exist_ok=True)
        last = index >= count - 6
        (folder / f"{folder.name}_{index}.{'png' if last else 'JPEG'}").write_bytes(png(index) if last else jpeg(index))
    return root


def _encoded(index: int, size: tuple[int, int], form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(procedural.picture(7, index, max(size))).resize(size).save(buffer, form)
    return buffer.getvalue()

"""From a picture file to the network's input, with the same result as in the build, using only numpy and Pillow."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np


def prepare(path: Path, height: int, width: int) -> Any:
    """A picture file as float32 (height, width, 3), values -1..1.

    Raises:
        ValueError: the file cannot be read as a picture.
    """
    return central_crop(read(path), height, width) / np.float32(127.5) - np.float32(1)


def read(path: Path) -> Any:
    """A picture file as RGB: uint8 (height, width, 3). EXIF rotation is left alone, as in training."""
    from PIL import Image

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a picture that is too large is an error anyway
    try:
        with Image.open(path) as picture:
            if picture.mode.startswith("I;16"):  # 16 bits: the upper byte is the 8-bit picture
                return np.repeat((np.asarray(picture) >> 8).astype(np.uint8)[:, :, np.newaxis], 3, axis=2)
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error


def central_crop(pixels: Any, height: int, width: int) -> Any:
    """Resizes the shorter side to 8/7 of the target, keeping the aspect, and cuts the target from the middle."""
    longest = 16 * min(pixels.shape[:2])  # the rest of a long strip is not needed, and would fill the memory
    top, left = (max(0, size - longest) // 2 for size in pixels.shape[:2])
    pixels = pixels[top : pixels.shape[0] - top, left : pixels.shape[1] - left]
    scale = max(height, width) / 0.875 / min(pixels.shape[:2])
    pixels = resize(pixels, *(max(round(size * scale), 1) for size in pixels.shape[:2]))
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def inception(pixels: Any, height: int, width: int) -> Any:
    """Resizes the middle 87.5 % of each side to the target."""
    top, left = (int((size - size * 0.875) / 2) for size in pixels.shape[:2])
    return resize(pixels[top : pixels.shape[0] - top, left : pixels.shape[1] - left], height, width)


def squash(pixels: Any, height: int, width: int) -> Any:
    """Resizes the whole picture to the target, without keeping the aspect."""
    return resize(pixels, height, width)


def resize(pixels: Any, height: int, width: int) -> Any:
    """Bilinear resizing with half-pixel centers: (h, w, 3) -> float32 (height, width, 3)."""
    top, bottom, down = neighbors(pixels.shape[0], height)
    left, right, along = neighbors(pixels.shape[1], width)
    upper, lower = (between(pixels[rows][:, left], pixels[rows][:, right], along[:, None]) for rows in (top, bottom))
    return between(upper, lower, down[:, None, None])


def neighbors(size: int, target: int) -> Any:
    """For each of `target` positions along `size` pixels: the pixel before, the one after, and the fraction between."""
    places = np.clip((np.arange(target) + 0.5) * (size / target) - 0.5, 0, size - 1)
    before = places.astype(int)
    return before, np.minimum(before + 1, size - 1), (places - before).astype(np.float32)


def between(before: Any, after: Any, way: Any) -> Any:
    """Interpolates, rounding once to float32 as a fused multiply-add does, which gives the bytes of the build."""
    before, after = before.astype(np.float32), after.astype(np.float32)
    return (before + (after - before).astype(np.float64) * way).astype(np.float32)

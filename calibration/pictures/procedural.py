"""Generates pictures from a seed, for builds without photographs. The pixels are the same on every machine.

The pictures resemble photographs only statistically: smooth regions, edges, a few colors and some noise. They have no
labels, so accuracy cannot be measured on them.
"""

from __future__ import annotations

import hashlib

import numpy as np

from recreate_model.support.arrays import Array

SIZE = 256
# Cells across the picture at each octave, and its share of the contrast in sixteenths.
_OCTAVES = ((4, 8), (16, 4), (64, 2))


def picture(seed: int, index: int, size: int = SIZE) -> Array:
    """Picture number `index` for a seed: RGB, uint8 (size, size, 3). Uses integer arithmetic only."""
    cells = sum((count + 1) ** 2 * 4 for count, _ in _OCTAVES)
    stream = np.frombuffer(
        hashlib.shake_256(f"procedural picture {seed} {index}".encode()).digest(cells + size * size + 16), np.uint8
    ).astype(np.int64)
    levels = np.zeros((size, size, 3), np.int64)
    start = 0
    for count, weight in _OCTAVES:
        stop = start + (count + 1) ** 2 * 4
        grid = stream[start:stop].reshape(count + 1, count + 1, 4)
        # All three channels share one component, as photographs vary more in brightness than in color.
        levels += weight * _enlarged((2 * grid[:, :, :1] + grid[:, :, 1:]) // 3, size)
        start = stop
    noise, shape = stream[start : start + size * size].reshape(size, size, 1), stream[-16:]
    levels = levels // 14 + (noise - 128) // 16
    # Brightness and contrast vary from picture to picture, like exposure.
    levels = (levels - 128) * int(160 + shape[0]) // 160 + 64 + int(shape[1]) // 2
    levels = np.where(_disc(shape, size)[:, :, np.newaxis], levels // 2 + shape[2:5] // 2, levels)
    return np.clip(levels, 0, 255).astype(np.uint8)


def _enlarged(grid: Array, size: int) -> Array:
    """Bilinear enlargement of int64 (cells + 1, cells + 1, 3) to (size, size, 3), in integer arithmetic."""
    cells = grid.shape[0] - 1
    position = np.arange(size, dtype=np.int64) * cells * 256 // size
    low, fraction = position // 256, position % 256
    rows = grid[low] * (256 - fraction)[:, None, None] + grid[low + 1] * fraction[:, None, None]
    enlarged: Array = (
        rows[:, low] * (256 - fraction)[None, :, None] + rows[:, low + 1] * fraction[None, :, None]
    ) // 65536
    return enlarged


def _disc(shape: Array, size: int) -> Array:
    """The mask of a disc, bool (size, size): a sharp edge, like that of an object in front of a background."""
    y, x = np.ogrid[:size, :size]
    center_y, center_x = int(shape[5]) * size // 256, int(shape[6]) * size // 256
    radius = size // 8 + int(shape[7]) * size // 1024
    return np.asarray((y - center_y) ** 2 + (x - center_x) ** 2 < radius**2)

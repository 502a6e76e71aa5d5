"""The arithmetic of TensorFlow's quantiser: from the range of an activation to its scale and zero point.

It changed over the years, in what it does with narrow ranges and in what it rounds to float32. The formulas were found
by giving ranges to each version and comparing what it wrote (tests/test_toolchain.py does it again).
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from recreate_model.support.arrays import Array
from recreate_model.tflite.model_view import Tensor

LEVELS = 255  # between the lowest and the highest int8
LARGEST_WEIGHT = 127  # weights are symmetric: -128 is not used
# A softmax is at most 1, so its scale does not depend on any range.
SOFTMAX = (1 / 256, -128)
# These take the scale of their input, or in the case of softmax a fixed one: their own ranges decide nothing.
WITHOUT_RANGE = ("AVERAGE_POOL_2D", "RESHAPE", "SOFTMAX")

# Half the range of a channel of weights, in real units, below which the new quantizer takes this instead.
SMALLEST_HALF_RANGE = 5e-7

# The smallest scale that TensorFlow 2.5 and 2.6 write.
SMALLEST_SCALE = 1e-6

_NARROW = 1e-6  # width of a range that today's converter widens


class Generation(Enum):
    """Converters that quantise alike.

    Attributes:
        TODAY: a range narrower than a millionth is widened by a millionth at both ends. Checked with 2.21.
        SCALE_FLOOR: a scale below a millionth becomes a millionth, with the zero point 0. TensorFlow 2.5 and 2.6.
        DOUBLE: scales stay float64 until they are written, so a bias scale shows more of a range than the scale
            beside it; a range is not widened to hold zero. The new quantizer of TensorFlow 2.4.
        STORED: the old quantizer, which writes the ranges themselves into the file.
    """

    TODAY = "today"
    SCALE_FLOOR = "2.5 and 2.6"
    DOUBLE = "2.4"
    STORED = "old quantizer"

    @property
    def converter(self) -> str:
        """As a sentence calls it."""
        return {"today": "TensorFlow of today", "old quantizer": "TensorFlow's old quantizer"}.get(
            self.value, f"TensorFlow {self.value}"
        )


def parameters_of(tensor: Tensor) -> tuple[float, int] | None:
    """Scale and zero point that a file gives an activation; None where it gives none."""
    quantisation = tensor.quantisation
    return (quantisation.scales[0], quantisation.zero_points[0]) if quantisation else None


def scales_of(tensor: Tensor) -> Array:
    """float32 scales of a tensor, one or one a channel; empty where it has none."""
    return np.array(tensor.quantisation.scales if tensor.quantisation else (), np.float32)


def activation_parameters(low: float, high: float, generation: Generation = Generation.TODAY) -> tuple[float, int]:
    """Scale (float32) and zero point of an activation with this range, in real units.

    An empty range has no scale in the old quantizer, which writes 0.
    """
    low, high = float(np.float32(low)), float(np.float32(high))
    if generation is not Generation.DOUBLE:
        low, high = min(low, 0.0), max(high, 0.0)
    if generation is Generation.TODAY and high - low < _NARROW:
        low, high = low - _NARROW, high + _NARROW
    if generation is Generation.DOUBLE:
        return _nudged(low, high)
    scale = float((np.float32(high) - np.float32(low)) / np.float32(LEVELS))
    if generation is Generation.SCALE_FLOOR and scale < SMALLEST_SCALE:
        return float(np.float32(SMALLEST_SCALE)), 0
    if scale == 0:
        return 0.0, -128
    if generation is Generation.STORED:
        level = np.float32(-128) - np.float32(low) / np.float32(scale)
    else:
        level = np.float64(-128 - low / scale)
    return scale, int(np.clip(round_away(level), -128, 127))


def _nudged(low: float, high: float) -> tuple[float, int]:
    """All in float64; zero must be a level, and of the two ends the one with the smaller error decides which."""
    if high - low < np.finfo(np.float64).eps:
        return 1.0, -128
    scale = (high - low) / LEVELS
    from_low, from_high = -128 - low / scale, 127 - high / scale
    nearer = from_low if 128 + abs(low / scale) < 127 + abs(high / scale) else from_high
    return float(np.float32(scale)), int(np.clip(round_away(np.float64(nearer)), -128, 127))


def symmetric(values: Array, scales: Array) -> Array:
    """float32 values over float32 scales as whole numbers, as the quantiser does it: multiplied by 1 / scale."""
    return round_away(values * (np.float32(1) / scales))


def round_away(values: Array | np.float64) -> Array:
    """To the nearest whole number, halves away from zero, in the precision of the values."""
    # Half added to a whole number beyond 2^23 would be rounded itself, in float32, and give another.
    whole = np.trunc(values)
    return np.asarray(whole + np.sign(values) * (np.abs(values - whole) >= 0.5))

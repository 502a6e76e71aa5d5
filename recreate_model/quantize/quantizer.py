"""The arithmetic of TensorFlow's quantizer: from the range of an activation to its scale and zero point.

TensorFlow's releases differ in how they treat narrow ranges and in what they round to float32. The formulas were
derived by passing ranges to each release and comparing the scales it wrote; tests/test_toolchain_2021.py repeats this.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from recreate_model.support.arrays import Array
from recreate_model.tflite.model_view import Tensor

LEVELS = 255  # steps from the lowest to the highest int8
LARGEST_WEIGHT = 127  # weights are symmetric; -128 is not used
# Scale and zero point of every softmax output, whose range is always 0..1.
SOFTMAX = (1 / 256, -128)
# Operators whose output scale does not depend on the output's own range: it is that of the input, or SOFTMAX.
WITHOUT_RANGE = ("AVERAGE_POOL_2D", "RESHAPE", "SOFTMAX")

# Minimum of the largest absolute weight of a channel, in real units; the new quantizer raises smaller ones to it.
SMALLEST_HALF_RANGE = 5e-7

# The smallest scale that TensorFlow 2.5 and 2.6 write.
SMALLEST_SCALE = 1e-6

_NARROW = 1e-6  # the current converter widens a narrower range


class Generation(Enum):
    """Releases of the converter that quantize in the same way.

    Attributes:
        TODAY: a range narrower than 1e-6 is widened by 1e-6 on both sides. Verified with TensorFlow 2.21.
        SCALE_FLOOR: a scale below 1e-6 becomes 1e-6, with zero point 0. TensorFlow 2.5 and 2.6.
        DOUBLE: scales stay float64 until they are written, so a bias scale reveals more about a range than the
            activation's float32 scale does; a range is not widened to include zero. The new quantizer of TensorFlow
            2.4.
        STORED: the old quantizer, which also writes the ranges into the file.
    """

    TODAY = "today"
    SCALE_FLOOR = "2.5 and 2.6"
    DOUBLE = "2.4"
    STORED = "old quantizer"

    @property
    def converter(self) -> str:
        """Name of the converter in running text."""
        return {"today": "current TensorFlow", "old quantizer": "TensorFlow's old quantizer"}.get(
            self.value, f"TensorFlow {self.value}"
        )


def parameters_of(tensor: Tensor) -> tuple[float, int] | None:
    """Return an activation's scale and zero point; None if it is not quantized."""
    quantization = tensor.quantization
    return (quantization.scales[0], quantization.zero_points[0]) if quantization else None


def scales_of(tensor: Tensor) -> Array:
    """Return a tensor's scales, float32: one, or one per channel; empty if it is not quantized."""
    return np.array(tensor.quantization.scales if tensor.quantization else (), np.float32)


def activation_parameters(low: float, high: float, generation: Generation = Generation.TODAY) -> tuple[float, int]:
    """Return the scale (a float32 value) and zero point that the quantizer gives an activation.

    For an empty range the old quantizer writes scale 0.

    Args:
        low: minimum of the activation, in real units.
        high: maximum of the activation, in real units.
        generation: the releases whose arithmetic is used.
    """
    low, high = float(np.float32(low)), float(np.float32(high))
    if generation is not Generation.DOUBLE:
        low, high = min(low, 0.0), max(high, 0.0)
    if generation is Generation.TODAY and high - low < _NARROW:
        low, high = low - _NARROW, high + _NARROW
    if generation is Generation.DOUBLE:
        return _double_parameters(low, high)
    scale = float((np.float32(high) - np.float32(low)) / np.float32(LEVELS))
    if generation is Generation.SCALE_FLOOR and scale < SMALLEST_SCALE:
        return float(np.float32(SMALLEST_SCALE)), 0
    if scale == 0:
        return 0.0, -128
    if generation is Generation.STORED:
        zero_point = np.float32(-128) - np.float32(low) / np.float32(scale)
    else:
        zero_point = np.float64(-128 - low / scale)
    return scale, int(np.clip(round_away(zero_point), -128, 127))


def _double_parameters(low: float, high: float) -> tuple[float, int]:
    """Return scale and zero point of Generation.DOUBLE, computed in float64.

    The zero point is derived from the end of the range that gives the smaller rounding error.
    """
    if high - low < np.finfo(np.float64).eps:
        return 1.0, -128
    scale = (high - low) / LEVELS
    from_low, from_high = -128 - low / scale, 127 - high / scale
    zero_point = from_low if 128 + abs(low / scale) < 127 + abs(high / scale) else from_high
    return float(np.float32(scale)), int(np.clip(round_away(np.float64(zero_point)), -128, 127))


def symmetric(values: Array, scales: Array) -> Array:
    """Quantize float32 values with zero point 0. Multiplies by 1 / scale, as the quantizer does, and does not clip."""
    return round_away(values * (np.float32(1) / scales))


def round_away(values: Array | np.float64) -> Array:
    """Round to the nearest integer, halves away from zero, in the precision of the values."""
    # np.floor(x + 0.5) would be wrong: for a float32 beyond 2**23 the sum itself is rounded.
    whole = np.trunc(values)
    return np.asarray(whole + np.sign(values) * (np.abs(values - whole) >= 0.5))

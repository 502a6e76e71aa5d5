"""TensorFlow Lite's fixed-point parameters, computed as its kernels' `Prepare` functions compute them.

All floating-point arithmetic of the kernels is done here, at build time, so the device needs none. Sources of the
formulas: tensorflow/lite/kernels/internal/quantization_util.cc, reference/softmax.h, and gemmlowp's fixedpoint.h.
Not for: scales and zero points, which are in the model.
"""

from __future__ import annotations

import math

import numpy as np

from recreate_model.support.arrays import Array
from recreate_model.tflite.model_view import Quantization

INT8_MIN, INT8_MAX = -128, 127
ADD_LEFT_SHIFT = 20  # bits by which ADD scales up both operands before the sum
SOFTMAX_SUM_BITS = 12  # integer bits of the sum of exponentials
_ONE = 1 << 31
_DIFFERENCE_BITS = 5  # integer bits of the difference that is exponentiated
_DIFFERENCES = 256  # differences of two int8 values: 0, -1, ... -255
# exp(-2 ** n) for n = -2..4 with 31 fraction bits, from gemmlowp's barrel shifter.
_EXPONENTIALS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
_EXP_OF_MINUS_EIGHTH, _THIRD = 1895147668, 715827883


def multiplier(real: float) -> tuple[int, int]:
    """A real multiplier as (mantissa, shift), equal to `mantissa * 2 ** (shift - 31)`; the mantissa has 31 bits."""
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    mantissa = math.floor(fraction * _ONE + 0.5)
    if mantissa == _ONE:
        mantissa, shift = mantissa // 2, shift + 1
    return (0, 0) if shift < -31 else (mantissa, shift)


def bounds(activation: str, output: Quantization) -> tuple[int, int]:
    """The smallest and the largest int8 output of an operator with this fused activation.

    Args:
        activation: its name in the schema, such as `RELU6`.
        output: the output's scale and zero point.

    Raises:
        KeyError: the reference kernels do not support the fused activation.
    """
    low, high = {"NONE": (None, None), "RELU": (0.0, None), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}[
        activation
    ]
    (scale,), (zero_point,) = output.scales, output.zero_points

    def level(real: float) -> int:
        # The float32 quotient, rounded half away from zero.
        quotient = float(np.float32(real) / np.float32(scale))
        return zero_point + int(math.copysign(math.floor(abs(quotient) + 0.5), quotient))

    return (
        INT8_MIN if low is None else max(INT8_MIN, level(low)),
        INT8_MAX if high is None else min(INT8_MAX, level(high)),
    )


def exponentials(beta: float, input_scale: float) -> Array:
    """exp(beta * scale * d) for d = 0, -1, ... -255: int32 (256,) with 31 fraction bits; 0 beyond the kernel's radius.

    Raises:
        ValueError: `beta * input_scale` is so small that the reference kernels refuse it.
    """
    real = min(beta * input_scale * (1 << (31 - _DIFFERENCE_BITS)), _ONE - 1.0)
    if not real > 1:
        raise ValueError(f"beta times input scale {beta * input_scale:g}, which the reference kernels refuse")
    mantissa, shift = multiplier(real)
    radius = math.floor(((1 << _DIFFERENCE_BITS) - 1) * (1 << (31 - _DIFFERENCE_BITS)) / (1 << shift))
    table = [_exp(high_product(-step << shift, mantissa)) if step <= radius else 0 for step in range(_DIFFERENCES)]
    return np.asarray(table, np.int32)


def high_product(a: int, b: int) -> int:
    """SaturatingRoundingDoublingHighMul of two int32; the only pair that saturates does not occur here."""
    return (a * b + (1 << 30)) >> 31


def rounded_shift(value: int, exponent: int) -> int:
    """RoundingDivideByPOT: division by a power of two, rounded half away from zero."""
    mask = (1 << exponent) - 1
    return (value >> exponent) + ((value & mask) > (mask >> 1) + (value < 0))


def _exp(difference: int) -> int:
    """exp_on_negative_values: `difference` is at most 0 and has 26 fraction bits; the result has 31."""
    if difference == 0:
        return _ONE - 1
    quarter = 1 << 24
    below = (difference & (quarter - 1)) - quarter  # the part in [-1/4, 0)
    result = _exp_of_quarter(below << _DIFFERENCE_BITS)
    remainder = below - difference
    for bit, factor in enumerate(_EXPONENTIALS, start=24):
        if remainder >> bit & 1:
            result = high_product(result, factor)
    return result


def _exp_of_quarter(value: int) -> int:
    """exp on [-1/4, 0) with 31 fraction bits: four terms of the Taylor series around -1/8."""
    x = value + (1 << 28)
    x2 = high_product(x, x)
    x3, x4 = high_product(x2, x), high_product(x2, x2)
    tail = rounded_shift(high_product(rounded_shift(x4, 2) + x3, _THIRD) + x2, 1)
    return _EXP_OF_MINUS_EIGHTH + high_product(_EXP_OF_MINUS_EIGHTH, x + tail)

"""Compares the values of two tensors: how many differ, by how much, and whether one bias requantizes the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recreate_model.tflite.model_view import Quantization, Tensor

_Array = NDArray[Any]
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_NUMPY = {name: np.dtype(name).newbyteorder("<") for name in (*_INTEGERS, "float16", "float32", "float64")}
# Relative tolerances. float32 rounds to one part in 2**24; a bias results from a division and a multiplication, its
# scale from a multiplication.
_BIAS_ROUNDING = 2.0**-22
_SCALE_ROUNDING = 2.0**-20
# Of two 8-bit ranges, one that is 2**8 times as wide maps every value of the other to a single level.
_MAX_SCALE_RATIO = 2.0**8


@dataclass(frozen=True)
class Elements:
    """How the elements of two constant tensors differ.

    Attributes:
        differing: number of elements that differ.
        total: number of elements; bytes where the type is not a plain numeric one or the sizes are not equal.
        first: flat index of the first element that differs.
        largest: largest absolute difference; None where only bytes could be compared.
        mean: mean absolute difference of the elements that differ; None where only bytes could be compared.
        unit: `levels` for integers, `bytes` where only bytes could be compared, empty for floats.
    """

    differing: int
    total: int
    first: int
    largest: float | None
    mean: float | None
    unit: str

    def __str__(self) -> str:
        verb = "differs" if self.differing == 1 else "differ"
        counted = f"{self.differing:,} of {self.total:,} {'bytes' if self.unit == 'bytes' else 'elements'} {verb}"
        if self.largest is None:
            return f"{counted}, the first at offset {self.first}"
        unit = f" {self.unit if self.largest != 1 else self.unit.removesuffix('s')}" if self.unit else ""
        size = f"by at most {self.largest:,.6g}{unit} (mean {self.mean:,.3g})"
        return f"{counted} {size}, the first at index {self.first}"


def same(one: object, two: object) -> bool:
    """Whether two plain values are equal. -0.0 and 0.0 are different; NaN differs from everything."""
    return one == two and repr(one) == repr(two)


def compare_elements(one: Tensor, two: Tensor) -> Elements | None:
    """How the data of two tensors differ; None where it is bit-identical."""
    if one.data == two.data:
        return None
    dtype = _NUMPY.get(one.dtype)
    if dtype is None or one.dtype != two.dtype or len(one.data) != len(two.data):
        return _bytes(one.data, two.data)
    a, b = np.frombuffer(one.data, dtype), np.frombuffer(two.data, dtype)
    # Bit patterns are compared, so that a NaN counts as well.
    bits = np.dtype(f"<u{dtype.itemsize}")
    indices = np.flatnonzero(a.view(bits) != b.view(bits))
    with np.errstate(invalid="ignore", over="ignore"):
        errors = np.abs(a[indices].astype(np.float64) - b[indices].astype(np.float64))
    return Elements(
        differing=len(indices),
        total=len(a),
        first=int(indices[0]),
        largest=float(errors.max()),
        mean=float(errors.mean()),
        unit="" if dtype.kind == "f" else "levels",
    )


def first_difference(one: bytes, two: bytes) -> int:
    """Offset of the first byte that differs; the shorter length where one is a prefix of the other."""
    length = min(len(one), len(two))
    offsets = np.flatnonzero(np.frombuffer(one, np.uint8, length) != np.frombuffer(two, np.uint8, length))
    return int(offsets[0]) if len(offsets) else length


def _bytes(one: bytes, two: bytes) -> Elements:
    length, longer = sorted((len(one), len(two)))
    a, b = (np.frombuffer(data, np.uint8, length) for data in (one, two))
    differing = int(np.count_nonzero(a != b)) + longer - length
    return Elements(differing, longer, first_difference(one, two), None, None, "bytes")


def is_bias_requantized(one: Sequence[Tensor], two: Sequence[Tensor]) -> bool:
    """Whether two int32 biases quantize the same real bias, each with the bias scale of its own model.

    A very large scale would make any two biases equal. Therefore neither scale may be `_MAX_SCALE_RATIO` times the
    other, and the real biases must differ by no more than half an output scale, the rounding error of the output.

    Args:
        one, two: bias, input, weights and output of the operator, in this order. The bias scale must be the input
            scale times the weight scale, for each channel; otherwise the bias counts as changed.
    """
    if (one[0].dtype, one[0].shape) != (two[0].dtype, two[0].shape) or one[0].dtype != "int32":
        return False
    if any(tensors[0].rest.get("sparsity") is not None for tensors in (one, two)):
        return False  # the data of a sparse tensor is not a plain array
    scales = [scale for tensors in (one, two) if (scale := _bias_scales(*tensors[:3])) is not None]
    output_scales = [scale for tensors in (one, two) if (q := tensors[3].quantization) for scale in q.scales]
    values = [np.frombuffer(tensors[0].data, "<i4").astype(np.float64) for tensors in (one, two)]
    if len(scales) < 2 or any(len(array) not in (1, len(values[0])) for array in (*scales, values[1])):
        return False
    finer, coarser = np.minimum(*scales), np.maximum(*scales)
    if len(output_scales) != 2 or not np.all((finer > 0) & (coarser < finer * _MAX_SCALE_RATIO)):
        return False
    # Each bias is within half a level of the real bias; float32 rounding adds to the error of a large one.
    errors = [scale * (0.5 + np.abs(value) * _BIAS_ROUNDING) for scale, value in zip(scales, values, strict=True)]
    tolerance = np.minimum(errors[0] + errors[1], min(output_scales) / 2)
    return bool(np.all(np.abs(values[0] * scales[0] - values[1] * scales[1]) <= tolerance))


def _bias_scales(bias: Tensor, source: Tensor, weights: Tensor) -> _Array | None:
    """The bias scales, float64 (channels,); None where they are not input scale times weight scales."""
    quantizations: list[Quantization] = [q for tensor in (bias, source, weights) if (q := tensor.quantization)]
    if len(quantizations) != 3 or any(quantizations[0].zero_points) or len(quantizations[1].scales) != 1:
        return None
    bias_scales, input_scale, weight_scales = (np.array(q.scales, np.float64) for q in quantizations)
    if bias_scales.shape != weight_scales.shape or not np.allclose(
        bias_scales, input_scale * weight_scales, rtol=_SCALE_ROUNDING, atol=0
    ):
        return None
    return bias_scales

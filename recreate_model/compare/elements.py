"""The numbers of two tensors: how many differ, by how much, and whether a bias is the same one in another scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recreate_model.tflite.model_view import Quantisation, Tensor

_Array = NDArray[Any]
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_NUMPY = {name: np.dtype(name).newbyteorder("<") for name in (*_INTEGERS, "float16", "float32", "float64")}
# Float32 rounds to one part in 2**24. A bias has been through a quotient and a product, its scale through a product.
_ROUNDING = 2.0**-22
_SCALE_ROUNDING = 2.0**-20
# Of two ranges in 8 bits, one that is this many times as wide has a single level for all that the other tells apart.
_WIDEST = 2.0**8


@dataclass(frozen=True)
class Elements:
    """How two constants differ, number by number.

    Attributes:
        differing, total: numbers; bytes where the type has no plain numbers or the two are not of one size.
        first: index of the first that differs, the constant taken as one row.
        largest, mean: of the amounts by which they differ; None where only bytes could be compared.
        unit: `levels` for integers, `bytes` where only those could be compared, else empty.
    """

    differing: int
    total: int
    first: int
    largest: float | None
    mean: float | None
    unit: str

    def __str__(self) -> str:
        counted = f"{self.differing:,} of {self.total:,} {'bytes' if self.unit == 'bytes' else 'elements'} differ"
        if self.largest is None:
            return f"{counted}, the first is {self.first}"
        unit = f" ({self.unit})" if self.unit else ""
        return (
            f"{counted}, the first is {self.first}, by {self.largest:,.6g} at most, {self.mean:,.3g} on average{unit}"
        )


def same(one: object, two: object) -> bool:
    """Equality for plain values that tells -0.0 from 0.0, and takes no two NaNs for the same."""
    return one == two and repr(one) == repr(two)


def compare_elements(one: Tensor, two: Tensor) -> Elements | None:
    """How the data of two tensors differ; None where it is the same, bit by bit."""
    if one.data == two.data:
        return None
    dtype = _NUMPY.get(one.dtype)
    if dtype is None or one.dtype != two.dtype or len(one.data) != len(two.data):
        return _bytes(one.data, two.data)
    a, b = np.frombuffer(one.data, dtype), np.frombuffer(two.data, dtype)
    # By their bits, so that NaN is found too.
    bits = np.dtype(f"<u{dtype.itemsize}")
    places = np.flatnonzero(a.view(bits) != b.view(bits))
    with np.errstate(invalid="ignore", over="ignore"):
        amounts = np.abs(a[places].astype(np.float64) - b[places].astype(np.float64))
    return Elements(
        differing=len(places),
        total=len(a),
        first=int(places[0]),
        largest=float(amounts.max()),
        mean=float(amounts.mean()),
        unit="" if dtype.kind == "f" else "levels",
    )


def first_difference(one: bytes, two: bytes) -> int:
    """Index of the first byte that is not the same; the shorter length where one begins with the other."""
    length = min(len(one), len(two))
    places = np.flatnonzero(np.frombuffer(one, np.uint8, length) != np.frombuffer(two, np.uint8, length))
    return int(places[0]) if len(places) else length


def _bytes(one: bytes, two: bytes) -> Elements:
    length, longer = sorted((len(one), len(two)))
    a, b = (np.frombuffer(data, np.uint8, length) for data in (one, two))
    differing = int(np.count_nonzero(a != b)) + longer - length
    return Elements(differing, longer, first_difference(one, two), None, None, "bytes")


def bias_restated(one: Sequence[Tensor], two: Sequence[Tensor]) -> bool:
    """Whether two int32 biases are roundings of one real bias, each in the scale of its own model.

    Steps so wide that the biases vanish in them show nothing: neither may be `_WIDEST` times the other, and the biases
    must be nearer to each other than half a step of the output, which is what an output is rounded by anyway.

    Args:
        one, two: bias, input, weights and output of the operator. The scale of a bias is that of the input times that
            of the weights, channel by channel; a bias with another scale is not restated but changed.
    """
    if (one[0].dtype, one[0].shape) != (two[0].dtype, two[0].shape) or one[0].dtype != "int32":
        return False
    if any(tensors[0].rest.get("sparsity") is not None for tensors in (one, two)):
        return False  # its data is not one number after the other
    scales = [scale for tensors in (one, two) if (scale := _bias_scales(*tensors[:3])) is not None]
    steps = [step for tensors in (one, two) if (q := tensors[3].quantisation) for step in q.scales]
    values = [np.frombuffer(tensors[0].data, "<i4").astype(np.float64) for tensors in (one, two)]
    if len(scales) < 2 or any(len(each) not in (1, len(values[0])) for each in (*scales, values[1])):
        return False
    finer, coarser = np.minimum(*scales), np.maximum(*scales)
    if len(steps) != 2 or not np.all((finer > 0) & (coarser < finer * _WIDEST)):
        return False
    # Each is within half a step of the real bias, and float32 adds a little more to large ones.
    slack = [scale * (0.5 + np.abs(value) * _ROUNDING) for scale, value in zip(scales, values, strict=True)]
    most = np.minimum(slack[0] + slack[1], min(steps) / 2)
    return bool(np.all(np.abs(values[0] * scales[0] - values[1] * scales[1]) <= most))


def _bias_scales(bias: Tensor, source: Tensor, weights: Tensor) -> _Array | None:
    quantisations: list[Quantisation] = [q for tensor in (bias, source, weights) if (q := tensor.quantisation)]
    if len(quantisations) != 3 or any(quantisations[0].zero_points) or len(quantisations[1].scales) != 1:
        return None
    stated, of_source, of_weights = (np.array(each.scales, np.float64) for each in quantisations)
    if stated.shape != of_weights.shape or not np.allclose(
        stated, of_source * of_weights, rtol=_SCALE_ROUNDING, atol=0
    ):
        return None
    return stated

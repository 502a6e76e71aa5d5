"""Consistency checks between the parts of a decoded model.

Each check raises FlatbufferError with a message that names the invalid part. The argument `what` is the name of the
part being checked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from recreate_model.tflite.flatbuffer import FlatbufferError, UnsupportedError

# Bits per element; elements of all other types have no fixed size.
_BITS = {
    "int2": 2,
    **dict.fromkeys(("int4", "uint4"), 4),
    **dict.fromkeys(("int8", "uint8", "bool", "float8_e4m3fn", "float8_e5m2"), 8),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16"), 16),
    **dict.fromkeys(("int32", "uint32", "float32"), 32),
    **dict.fromkeys(("int64", "uint64", "float64", "complex64"), 64),
    "complex128": 128,
}
_MAX_SHARING = 16  # total tensor data as a multiple of the file size; tied weights make it 2 or 3
_Entry = TypeVar("_Entry")


def check_length(what: str, data: bytes, shape: tuple[int, ...], dtype: str) -> None:
    """Check that a constant has as many bytes as its shape needs. Types without a fixed size pass."""
    if dtype not in _BITS:
        return
    elements = 0 if 0 in shape else 1
    for length in shape:
        elements *= length
        # Stop early: in a damaged file the product may have a million digits.
        if elements < 0 or elements > 8 * len(data):
            break
    if elements < 0 or (elements * _BITS[dtype] + 7) // 8 != len(data):
        raise FlatbufferError(f"{what} of shape {short(shape)} and type {dtype} has {len(data)} bytes of data")


def check_sharing(shared: int, size: int) -> None:
    """Check that tensors that share buffers do not multiply the file's data, which would make comparing them slow.

    Args:
        shared: bytes of data of all tensors together.
        size: bytes of the file.
    """
    if shared > _MAX_SHARING * size:
        raise FlatbufferError(f"tensors that share buffers, with more than {_MAX_SHARING} times the data of the file")


def check_quantization(
    what: str, scales: Sequence[float], zero_points: Sequence[int], axis: int, shape: tuple[int, ...]
) -> None:
    """Check that there is one finite scale per tensor or per channel of the axis, and as many zero points."""
    channels = shape[axis] if 0 <= axis < len(shape) else 1
    if len(scales) not in (1, channels):
        raise FlatbufferError(f"{what} has {len(scales)} scales for {channels} channels")
    if len(zero_points) != len(scales):
        raise FlatbufferError(f"{what} has {len(scales)} scales and {len(zero_points)} zero points")
    if not all(map(math.isfinite, scales)):
        # The file is not damaged: TensorFlow 1 divided by the width of an empty range.
        raise UnsupportedError(
            f"{what} has a scale that is not finite, as TensorFlow's old quantizer writes for an empty range"
        )


def indices(values: Sequence[int] | None, count: int, what: str, optional: bool = False) -> tuple[int, ...]:
    """Return tensor indices as a tuple, after checking them against the number of tensors.

    Args:
        values: the indices; None if the field is absent.
        count: number of tensors.
        what: name of the list in the error message.
        optional: -1, for an omitted tensor, is valid.
    """
    for value in values or ():
        if not (-1 if optional else 0) <= value < count:
            raise FlatbufferError(f"tensor {value} in {what}, but the model has {count} tensors")
    return tuple(values or ())


def entry(entries: Sequence[_Entry], index: int, kind: str, what: str) -> _Entry:
    """Return the entry with this index, after checking it."""
    if index >= len(entries):
        raise FlatbufferError(f"{what} refers to {kind} {index}, but there are only {len(entries)}")
    return entries[index]


def short(shape: tuple[int, ...]) -> str:
    """Return a shape for a message, cut after eight dimensions."""
    return str(list(shape)) if len(shape) <= 8 else f"[{', '.join(map(str, shape[:8]))}, ...]"

"""What has to hold between the parts of a model, whichever file they were read from.

Each check raises FlatbufferError and says in plain words which part is wrong; `what` names the one that is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from recreate_model.tflite.flatbuffer import FlatbufferError, RefusedError

# Bits of an element; types that are not here have elements of no fixed size.
_BITS = {
    "int2": 2,
    **dict.fromkeys(("int4", "uint4"), 4),
    **dict.fromkeys(("int8", "uint8", "bool", "float8_e4m3fn", "float8_e5m2"), 8),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16"), 16),
    **dict.fromkeys(("int32", "uint32", "float32"), 32),
    **dict.fromkeys(("int64", "uint64", "float64", "complex64"), 64),
    "complex128": 128,
}
_MOST_SHARED = 16  # times the size of the file; tied weights make it two or three
_Entry = TypeVar("_Entry")


def check_length(what: str, data: bytes, shape: tuple[int, ...], dtype: str) -> None:
    """Refuses a constant that has more or fewer bytes than its shape needs; types of no fixed size pass."""
    if dtype not in _BITS:
        return
    elements = 0 if 0 in shape else 1
    for length in shape:
        elements *= length
        # A shape from a broken file can have a product with a million digits.
        if elements < 0 or elements > 8 * len(data):
            break
    if elements < 0 or (elements * _BITS[dtype] + 7) // 8 != len(data):
        raise FlatbufferError(f"{what} of shape {short(shape)} and type {dtype} has {len(data)} bytes of data")


def check_sharing(shared: int, size: int) -> None:
    """Refuses tensors that share buffers until they hold many times the file; comparing them would take as long."""
    if shared > _MOST_SHARED * size:
        raise FlatbufferError(f"tensors that share buffers, with more data than {_MOST_SHARED} files of its size hold")


def check_quantisation(
    what: str, scales: Sequence[float], zero_points: Sequence[int], axis: int, shape: tuple[int, ...]
) -> None:
    """Refuses scales that are not one for the tensor, or one for each channel of the axis, with as many zero points."""
    channels = shape[axis] if 0 <= axis < len(shape) else 1
    if len(scales) not in (1, channels):
        raise FlatbufferError(f"{what} has {len(scales)} scales for {channels} channels")
    if len(zero_points) != len(scales):
        raise FlatbufferError(f"{what} has {len(scales)} scales and {len(zero_points)} zero points")
    if not all(map(math.isfinite, scales)):
        # Whole all the same: TensorFlow 1 divided by ranges without width.
        raise RefusedError(
            f"{what} has a scale that is not finite, as TensorFlow's old quantizer writes for an empty range"
        )


def indices(values: Sequence[int] | None, count: int, what: str, optional: bool = False) -> tuple[int, ...]:
    """The same, if each of them is the index of a tensor; -1 is none, where that may be."""
    for value in values or ():
        if not (-1 if optional else 0) <= value < count:
            raise FlatbufferError(f"tensor {value} among {what}, of {count} tensors")
    return tuple(values or ())


def entry(entries: Sequence[_Entry], index: int, kind: str, what: str) -> _Entry:
    """The entry with this index, if there is one."""
    if index >= len(entries):
        raise FlatbufferError(f"{what} refers to {kind} {index} of {len(entries)}")
    return entries[index]


def short(shape: tuple[int, ...]) -> str:
    """A shape for a message, however long."""
    return str(list(shape)) if len(shape) <= 8 else f"[{', '.join(map(str, shape[:8]))}, ...]"

"""The bytes of a file's buffers, where every runtime finds the same ones.

A buffer may lie in its table or, as in files beyond 2 GB, behind the flatbuffer. Runtimes look into the table first,
and some take no data from buffer 0 whatever is in it. A file that two of them take for two models is refused. Not for:
what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from recreate_model.tflite.flatbuffer import Reader, RefusedError
from recreate_model.tflite.schema import Record
from recreate_model.tflite.soundness import entry

_INSIDE = 1  # an `offset` beyond it is a place in the file, outside the flatbuffer
_NO_DATA = 0  # the buffer of what has no data


def contents(reader: Reader, records: Iterable[Record]) -> tuple[bytes, ...]:
    """What every buffer holds."""
    return tuple(
        stored(reader, f"buffer {number}", one["data"], one["offset"], one["size"])
        for number, one in enumerate(records)
    )


def stored(reader: Reader, what: str, inline: bytes | None, offset: int, size: int) -> bytes:
    """Bytes from their table, or from a place behind the flatbuffer.

    Raises:
        RefusedError: the file has both. Runtimes take those of the table, even if there are none of them.
    """
    if offset > _INSIDE and inline is not None:
        raise RefusedError(f"{what} has data both in its table and at {offset}, and a runtime uses the first alone")
    return reader.bytes_at(offset, size) if offset > _INSIDE else inline or b""


def content(buffers: Sequence[bytes], index: int, what: str) -> bytes:
    """The bytes that `what` has by the index of their buffer.

    Raises:
        RefusedError: it is buffer 0, and not empty: TensorFlow Lite gives such a tensor no data, others give it those.
    """
    data = entry(buffers, index, "buffer", what)
    if index == _NO_DATA and data:
        raise RefusedError(f"{what} has its data in buffer 0, which stands for no data and must be empty")
    return data

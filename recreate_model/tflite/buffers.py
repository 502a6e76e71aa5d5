"""The content of a file's buffers.

A buffer's data is in its table or, as in files over 2 GB, after the flatbuffer. Runtimes look in the table first, and
some never read buffer 0. A file that two runtimes would read as two different models is rejected.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from recreate_model.tflite.flatbuffer import Reader, UnsupportedError
from recreate_model.tflite.schema import Record
from recreate_model.tflite.soundness import entry

_IN_TABLE = 1  # a larger `offset` is a position in the file, after the flatbuffer
_NO_DATA = 0  # index of the buffer that tensors without data refer to


def contents(reader: Reader, records: Iterable[Record]) -> tuple[bytes, ...]:
    """Return the content of every buffer, given its decoded table."""
    return tuple(
        stored(reader, f"buffer {index}", record["data"], record["offset"], record["size"])
        for index, record in enumerate(records)
    )


def stored(reader: Reader, what: str, inline: bytes | None, offset: int, size: int) -> bytes:
    """Return data stored in its table, or at an offset after the flatbuffer.

    Args:
        reader: the file.
        what: name of the part in error messages.
        inline: the data in the table; None if the table has no such field.
        offset: position in the file in bytes; 0 or 1 if the data is in the table.
        size: size in bytes of the data at the offset.

    Raises:
        UnsupportedError: the file has both. Runtimes would use the data in the table, even if it is empty.
    """
    if offset > _IN_TABLE and inline is not None:
        raise UnsupportedError(
            f"{what} has data both in its table and at offset {offset}, of which runtimes use the first"
        )
    return reader.bytes_at(offset, size) if offset > _IN_TABLE else inline or b""


def content(buffers: Sequence[bytes], index: int, what: str) -> bytes:
    """Return the content of the buffer that `what` refers to.

    Raises:
        FlatbufferError: there is no buffer with this index.
        UnsupportedError: the index is 0 and the buffer is not empty. TensorFlow Lite ignores such data; other runtimes
            use it.
    """
    data = entry(buffers, index, "buffer", what)
    if index == _NO_DATA and data:
        raise UnsupportedError(f"{what} has its data in buffer 0, which means no data and must be empty")
    return data

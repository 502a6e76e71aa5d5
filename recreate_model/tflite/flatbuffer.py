"""A reader for untrusted flatbuffers that checks every access.

A flatbuffer consists of tables that refer to each other by offset. The generated Python reader follows every offset
unchecked: in a damaged file it wraps around, runs for minutes or allocates gigabytes. Here, a read outside the file is
an error. So is more work than a valid file of this size can need, as in a file whose parts overlap many times.

This module reads the bytes; `schema` knows what the fields mean.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

# The work limit, in bytes read, is proportional to the file size. Valid files stay below it: the part with the highest
# cost for its size is an empty table, with 8 bytes and a cost of 28.
_WORK_PER_BYTE = 4
_MIN_WORK = 4096
_TABLE_COST = 16

_U16, _U32, _I32 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<i")


class FlatbufferError(ValueError):
    """The bytes are not a valid flatbuffer.

    Attributes:
        where: the field in which the error was found, such as `Tensor.name`; empty if unknown.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.where = ""

    def __str__(self) -> str:
        return super().__str__() + (f", in {self.where}" if self.where else "")


class UnsupportedError(FlatbufferError):
    """The file is valid, but uses a feature that this program does not support."""


class Reader:
    """The bytes of a file, and how much work reading them may still take.

    All methods raise FlatbufferError for a read outside the file.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._work_left = _MIN_WORK + _WORK_PER_BYTE * len(data)

    def root(self) -> Table:
        """Return the root table."""
        return self.table_at(self.follow(0))

    def spend(self, work: int) -> None:
        """Count work, in bytes read. Raises FlatbufferError beyond the limit."""
        self._work_left -= work
        if self._work_left < 0:
            raise FlatbufferError("overlapping parts that are together larger than the file")

    def check(self, position: int, size: int) -> int:
        """Return the position, if the file has `size` bytes from there."""
        if position < 0 or size > len(self.data) - position:
            raise FlatbufferError(f"{size} bytes at offset {position} of a file of {len(self.data)} bytes")
        return position

    def bytes_at(self, position: int, size: int) -> bytes:
        """Return a copy of bytes, counted as work."""
        self.check(position, size)
        self.spend(size)
        return self.data[position : position + size]

    def follow(self, position: int) -> int:
        """Return the position that the offset stored at `position` refers to."""
        offset: int = _U32.unpack_from(self.data, self.check(position, 4))[0]
        return self.check(position + offset, 4)

    def table_at(self, position: int) -> Table:
        """Return the table at a position, after checking its vtable."""
        vtable = position - _I32.unpack_from(self.data, self.check(position, 4))[0]
        vtable_size, size = (_U16.unpack_from(self.data, self.check(vtable + 2 * i, 2))[0] for i in range(2))
        if vtable_size < 4 or vtable_size % 2 or size < 4:
            raise FlatbufferError(f"an invalid vtable of the table at offset {position}")
        self.check(vtable, vtable_size)
        self.check(position, size)
        self.spend(_TABLE_COST + vtable_size + size)
        return Table(self, position, size, struct.unpack_from(f"<{vtable_size // 2 - 2}H", self.data, vtable + 4))


@dataclass(frozen=True)
class Table:
    """A table of a flatbuffer. Its methods raise FlatbufferError for damaged data.

    Attributes:
        reader: the file.
        position: offset of the table in the file.
        size: bytes of the table.
        slots: for each slot, the offset of its field in the table; 0 if the field is absent.
    """

    reader: Reader
    position: int
    size: int
    slots: tuple[int, ...]

    def present(self) -> Iterator[int]:
        """Return the slots whose fields are present."""
        return (slot for slot, offset in enumerate(self.slots) if offset)

    def scalar(self, slot: int, code: str, default: float) -> int | float | bool:
        """Return a number; `code` is the `struct` format character of its type."""
        position = self._field(slot, struct.calcsize(f"<{code}"))
        if position is None:
            return default
        value: int | float | bool = struct.unpack_from(f"<{code}", self.reader.data, position)[0]
        return value

    def table(self, slot: int) -> Table | None:
        """Return the table that a field refers to; None if the field is absent."""
        position = self._field(slot, 4)
        return None if position is None else self.reader.table_at(self.reader.follow(position))

    def string(self, slot: int) -> str | None:
        """Return a string; None if the field is absent."""
        position = self._field(slot, 4)
        return None if position is None else self._text(position)

    def raw(self, slot: int) -> bytes | None:
        """Return a vector of bytes; None if the field is absent."""
        found = self._vector(slot, 1)
        return None if found is None else self.reader.bytes_at(*found)

    def numbers(self, slot: int, code: str) -> tuple[int | float | bool, ...] | None:
        """Return a vector of numbers of the `struct` type `code`; None if the field is absent."""
        found = self._vector(slot, struct.calcsize(f"<{code}"))
        if found is None:
            return None
        start, count = found
        self.reader.spend(count * struct.calcsize(f"<{code}"))
        return struct.unpack_from(f"<{count}{code}", self.reader.data, start)

    def strings(self, slot: int) -> tuple[str, ...] | None:
        """Return a vector of strings; None if the field is absent."""
        positions = self._positions(slot)
        return None if positions is None else tuple(map(self._text, positions))

    def tables(self, slot: int) -> Iterator[Table] | None:
        """Return a vector of tables, each read on demand; None if the field is absent."""
        positions = self._positions(slot)
        if positions is None:
            return None
        return (self.reader.table_at(self.reader.follow(position)) for position in positions)

    def _field(self, slot: int, size: int) -> int | None:
        """Return the position of a field of `size` bytes; None if it is absent."""
        offset = self.slots[slot] if slot < len(self.slots) else 0
        if offset == 0:
            return None
        if offset < 4 or offset + size > self.size:
            raise FlatbufferError(f"a field outside its table at offset {self.position}")
        return self.position + offset

    def _vector(self, slot: int, width: int) -> tuple[int, int] | None:
        """Return the start and the number of elements of `width` bytes; None if the field is absent."""
        position = self._field(slot, 4)
        return None if position is None else self._elements(position, width)

    def _elements(self, position: int, width: int) -> tuple[int, int]:
        """Return the start and the number of elements of the vector that the offset at `position` refers to."""
        start = self.reader.follow(position)
        count: int = _U32.unpack_from(self.reader.data, start)[0]
        self.reader.check(start + 4, count * width)
        return start + 4, count

    def _positions(self, slot: int) -> range | None:
        """Return the positions of a vector's offsets; None if the field is absent."""
        found = self._vector(slot, 4)
        if found is None:
            return None
        start, count = found
        self.reader.spend(4 * count)
        return range(start, start + 4 * count, 4)

    def _text(self, position: int) -> str:
        data = self.reader.bytes_at(*self._elements(position, 1))
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise FlatbufferError(f"a string at offset {position} that is not UTF-8") from error

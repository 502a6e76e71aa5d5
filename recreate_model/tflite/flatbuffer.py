"""A flatbuffer that nobody vouches for, read with every access checked.

A flatbuffer is tables that point at each other. The generated Python reader follows any offset it finds: broken ones
wrap around, read for minutes or ask for gigabytes. Here a read outside the file is an error, and so is more work than
a file of this size can need, which is what parts that overlap to multiply themselves come to.

For: the bytes. What a field means is known by `schema`. Not for: writing, or anything but little-endian flatbuffers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

# Honest files stay below: the dearest part for its size is an empty table, 8 bytes that cost 28.
_WORK_PER_BYTE = 4
_WORK_AT_LEAST = 4096
_TABLE_COST = 16

_U16, _U32, _I32 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<i")


class FlatbufferError(ValueError):
    """The bytes are no sound flatbuffer; says what is wrong in plain words, and `where`: in which field."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.where = ""

    def __str__(self) -> str:
        return super().__str__() + (f", in {self.where}" if self.where else "")


class RefusedError(FlatbufferError):
    """The file is whole, but has something that is not read here; says what."""


class Reader:
    """A file's bytes, and the work that reading them may still cost."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._left = _WORK_AT_LEAST + _WORK_PER_BYTE * len(data)

    def root(self) -> Table:
        """The table the file begins with."""
        return self.table_at(self.follow(0))

    def spend(self, work: int) -> None:
        """Accounts for work, in bytes looked at."""
        self._left -= work
        if self._left < 0:
            raise FlatbufferError("parts that overlap, and hold more together than the file has")

    def check(self, position: int, size: int) -> int:
        """The position, if that many bytes lie there."""
        if position < 0 or size > len(self.data) - position:
            raise FlatbufferError(f"{size} bytes at {position} of a file of {len(self.data)}")
        return position

    def bytes_at(self, position: int, size: int) -> bytes:
        """A copy of bytes, accounted for."""
        self.check(position, size)
        self.spend(size)
        return self.data[position : position + size]

    def follow(self, position: int) -> int:
        """Where the offset stored at a position leads."""
        offset: int = _U32.unpack_from(self.data, self.check(position, 4))[0]
        return self.check(position + offset, 4)

    def table_at(self, position: int) -> Table:
        """The table at a position, with its layout checked."""
        layout = position - _I32.unpack_from(self.data, self.check(position, 4))[0]
        layout_size, size = (_U16.unpack_from(self.data, self.check(layout + 2 * i, 2))[0] for i in range(2))
        if layout_size < 4 or layout_size % 2 or size < 4:
            raise FlatbufferError(f"a table at {position} without a layout")
        self.check(layout, layout_size)
        self.check(position, size)
        self.spend(_TABLE_COST + layout_size + size)
        return Table(self, position, size, struct.unpack_from(f"<{layout_size // 2 - 2}H", self.data, layout + 4))


@dataclass(frozen=True)
class Table:
    """A table: `size` bytes from `position`, and for each slot where in them its field lies; 0 where it is left out."""

    reader: Reader
    position: int
    size: int
    slots: tuple[int, ...]

    def present(self) -> Iterator[int]:
        """The slots that are filled."""
        return (slot for slot, offset in enumerate(self.slots) if offset)

    def scalar(self, slot: int, code: str, default: float) -> int | float | bool:
        """A number; `code` is the letter of the `struct` module for its type."""
        position = self._field(slot, struct.calcsize(f"<{code}"))
        if position is None:
            return default
        value: int | float | bool = struct.unpack_from(f"<{code}", self.reader.data, position)[0]
        return value

    def table(self, slot: int) -> Table | None:
        """The table a field points at."""
        position = self._field(slot, 4)
        return None if position is None else self.reader.table_at(self.reader.follow(position))

    def string(self, slot: int) -> str | None:
        """A text."""
        position = self._field(slot, 4)
        return None if position is None else self._text(position)

    def raw(self, slot: int) -> bytes | None:
        """A vector of bytes."""
        found = self._vector(slot, 1)
        return None if found is None else self.reader.bytes_at(*found)

    def numbers(self, slot: int, code: str) -> tuple[int | float | bool, ...] | None:
        """A vector of numbers."""
        found = self._vector(slot, struct.calcsize(f"<{code}"))
        if found is None:
            return None
        start, count = found
        self.reader.spend(count * struct.calcsize(f"<{code}"))
        return struct.unpack_from(f"<{count}{code}", self.reader.data, start)

    def strings(self, slot: int) -> tuple[str, ...] | None:
        """A vector of texts."""
        places = self._places(slot)
        return None if places is None else tuple(map(self._text, places))

    def tables(self, slot: int) -> Iterator[Table] | None:
        """A vector of tables, each read when it is asked for."""
        places = self._places(slot)
        return None if places is None else (self.reader.table_at(self.reader.follow(place)) for place in places)

    def _field(self, slot: int, size: int) -> int | None:
        offset = self.slots[slot] if slot < len(self.slots) else 0
        if offset == 0:
            return None
        if offset < 4 or offset + size > self.size:
            raise FlatbufferError(f"a field outside its table at {self.position}")
        return self.position + offset

    def _vector(self, slot: int, width: int) -> tuple[int, int] | None:
        """Where the elements begin, and how many there are."""
        position = self._field(slot, 4)
        return None if position is None else self._elements(position, width)

    def _elements(self, position: int, width: int) -> tuple[int, int]:
        start = self.reader.follow(position)
        count: int = _U32.unpack_from(self.reader.data, start)[0]
        self.reader.check(start + 4, count * width)
        return start + 4, count

    def _places(self, slot: int) -> range | None:
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
            raise FlatbufferError(f"a text at {position} that is not UTF-8") from error

"""An untrusted flatbuffer, read with every access checked.

A flatbuffer is made of tables that refer to each other by offsets. The runtime library of Python follows any offset it
finds, and has no verifier: broken offsets wrap around, read for minutes or allocate gigabytes. `Table` stands in its
place under the classes that `flatc` generates, and has the methods that they call, by the same names. An access outside
the file is an error, and so is more work than a file of this size can need, which parts that overlap can cause.

For: the bytes. The classes, and so the meaning of each field, are in `schema`. Not for: writing, or anything but
little-endian flatbuffers.
"""

from __future__ import annotations

import struct
from typing import Any

# Well-formed files stay below: the most expensive part for its size is an empty table, 8 bytes that cost 28.
_WORK_PER_BYTE = 4
_WORK_AT_LEAST = 4096
_TABLE_COST = 16

_U16, _U32, _I32 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<i")


class FlatbufferError(ValueError):
    """The bytes are not a valid flatbuffer; the message says what is wrong, and `where` in which field."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.where = ""

    def __str__(self) -> str:
        return super().__str__() + (f", in {self.where}" if self.where else "")


class UnsupportedError(FlatbufferError):
    """The file is valid, but has something that is not supported here; the message says what."""


class Reader:
    """The bytes of a file, and how much work reading them may still cost."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._left = _WORK_AT_LEAST + _WORK_PER_BYTE * len(data)

    def spend(self, work: int) -> None:
        """Accounts for work, in bytes looked at."""
        self._left -= work
        if self._left < 0:
            raise FlatbufferError("overlapping parts that are together larger than the file")

    def check(self, position: int, size: int) -> int:
        """The position, if that many bytes lie there."""
        if position < 0 or size > len(self.data) - position:
            raise FlatbufferError(f"{size} bytes at offset {position} of a file of {len(self.data)} bytes")
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


class Table:
    """The table at a position, as the generated classes see it; `flatbuffers.table.Table` without checks has the same.

    Attributes:
        Bytes: the reader; the generated classes hand it on to the tables inside this one.
        Pos: the position of the table in the file.
        asked: the slots that were asked for, present or not.
    """

    __slots__ = ("Bytes", "Pos", "_size", "_slots", "asked")

    def __init__(self, reader: Reader, position: int) -> None:
        layout = position - _I32.unpack_from(reader.data, reader.check(position, 4))[0]
        layout_size, size = (_U16.unpack_from(reader.data, reader.check(layout + 2 * i, 2))[0] for i in range(2))
        if layout_size < 4 or layout_size % 2 or size < 4:
            raise FlatbufferError(f"an invalid vtable of the table at offset {position}")
        reader.check(layout, layout_size)
        reader.check(position, size)
        reader.spend(_TABLE_COST + layout_size + size)
        self.Bytes, self.Pos, self._size = reader, position, size
        # For each slot where in the table its field lies; 0 where the field is left out.
        self._slots = struct.unpack_from(f"<{layout_size // 2 - 2}H", reader.data, layout + 4)
        self.asked: set[int] = set()

    def unknown(self) -> list[int]:
        """The slots that have a field and were never asked for."""
        return [slot for slot, offset in enumerate(self._slots) if offset and slot not in self.asked]

    def Offset(self, layout_offset: int) -> int:  # noqa: N802
        """Where in the table a field lies; 0 where it is left out."""
        slot = layout_offset // 2 - 2
        self.asked.add(slot)
        offset = self._slots[slot] if slot < len(self._slots) else 0
        if offset and (offset < 4 or offset >= self._size):
            raise FlatbufferError(f"a field outside its table at offset {self.Pos}")
        return offset

    def Get(self, flags: Any, position: int) -> int | float | bool:  # noqa: N802
        """A number in the table; `flags` is its type in `flatbuffers.number_types`."""
        if position + flags.bytewidth > self.Pos + self._size:
            raise FlatbufferError(f"a field outside its table at offset {self.Pos}")
        value: int | float | bool = flags.packer_type.unpack_from(self.Bytes.data, position)[0]
        return value

    def Indirect(self, position: int) -> int:  # noqa: N802
        """The position of the table that the offset at a position leads to."""
        return self.Bytes.follow(position)

    def String(self, position: int) -> str:  # noqa: N802
        """The text that the offset at a position leads to."""
        data = self.Bytes.bytes_at(*self._elements(position, 1))
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise FlatbufferError(f"a string at offset {position} that is not UTF-8") from error

    def Vector(self, offset: int) -> int:  # noqa: N802
        """The position of a vector's first element."""
        return self._elements(self.Pos + offset, 0)[0]

    def VectorLen(self, offset: int) -> int:  # noqa: N802
        """The number of elements of a vector of tables or texts."""
        count = self._elements(self.Pos + offset, 4)[1]
        self.Bytes.spend(4 * count)
        return count

    def GetVectorAsNumpy(self, flags: Any, offset: int) -> bytes | tuple[int | float | bool, ...]:  # noqa: N802
        """A vector of numbers: bytes where they are unsigned bytes, else a tuple."""
        start, count = self._elements(self.Pos + offset, flags.bytewidth)
        code = flags.packer_type.format[-1]
        if code == "B":
            return self.Bytes.bytes_at(start, count)
        self.Bytes.spend(count * flags.bytewidth)
        return struct.unpack_from(f"<{count}{code}", self.Bytes.data, start)

    def Union(self, table: Any, offset: int) -> None:  # noqa: N802
        """Sets where the table of a union lies; its type is in a field of its own."""
        table.Bytes, table.Pos = self.Bytes, self.Bytes.follow(self.Pos + offset)

    def _elements(self, position: int, width: int) -> tuple[int, int]:
        """Where the elements of the vector begin that the offset at a position leads to, and how many there are."""
        start = self.Bytes.follow(position)
        count: int = _U32.unpack_from(self.Bytes.data, start)[0]
        self.Bytes.check(start + 4, count * width)
        return start + 4, count

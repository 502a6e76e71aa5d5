"""TFRecord files without TensorFlow: the framing of records, and the `tf.train.Example` in one.

A record is the length of its data (8 bytes), the masked CRC-32C of those (4), the data, and its masked CRC-32C (4), all
little-endian. Nothing else is in a file: one cut between two records is a whole file of fewer, and only a list of how
many there were can tell.

Not for: what the features of an example mean (`record_index`), or which files belong together (`shards`).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from recreate_model.support.errors import InputError

_LENGTH = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_MASK = 0xA282EAD8
_BUFFER = 1 << 20
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x78\x01": "zlib", b"\x78\x5e": "zlib", b"\x78\x9c": "zlib", b"\x78\xda": "zlib"}

Value = bytes | int | float


class _DamageError(Exception):
    """What is wrong with a record."""


def records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Offset and data of each record, read and checked one at a time.

    Raises:
        InputError: unreadable, compressed, cut short or damaged; it says which record, counted from 1, and where.
    """
    number = offset = 0
    try:
        with path.open("rb", buffering=_BUFFER) as stream:
            size = path.stat().st_size
            while offset < size:
                number += 1
                data = _read(stream, size - offset)
                yield offset, data
                offset += _LENGTH.size + len(data) + _CRC.size
    except OSError as error:
        raise unreadable(path, error) from error
    except _DamageError as damage:
        raise _damaged(path, number, offset, str(damage)) from damage


def record_at(path: Path, number: int, offset: int) -> bytes:
    """The data of one record again. Raises InputError as `records`."""
    try:
        with path.open("rb") as stream:
            left = path.stat().st_size - offset
            stream.seek(offset)
            return _read(stream, left)
    except OSError as error:
        raise unreadable(path, error) from error
    except _DamageError as damage:
        raise _damaged(path, number, offset, str(damage)) from damage


def _read(stream: BinaryIO, left: int) -> bytes:
    """The record that begins here, of a file that has `left` bytes from here on."""
    from google_crc32c import value as crc32c

    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise _DamageError(f"the file's end after {len(head)} of the {_LENGTH.size} bytes of its length")
    length, length_crc = _LENGTH.unpack(head)
    if _masked(crc32c(head[:8])) != length_crc:
        raise _DamageError("a length with another checksum")
    # Before reading: a length nobody checked could fill the memory.
    if _LENGTH.size + length + _CRC.size > left:
        raise _DamageError(f"the file's end {_LENGTH.size + length + _CRC.size - left} bytes too early")
    data = stream.read(length)
    tail = stream.read(_CRC.size)
    if len(data) + len(tail) < length + _CRC.size:
        raise _DamageError("the end of a file that became shorter")
    if _masked(crc32c(data)) != _CRC.unpack(tail)[0]:
        raise _DamageError("data with another checksum")
    return data


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def unreadable(path: Path, error: OSError) -> InputError:
    """A file of records that is not there, or cannot be read."""
    return InputError(
        expected=f"to read the records in {path}",
        found=error.strerror or str(error),
        next_step="restore that file, then run again",
    )


def _damaged(path: Path, number: int, offset: int, found: str) -> InputError:
    if number == 1:
        with path.open("rb") as stream:
            compression = _COMPRESSED.get(stream.read(2))
        if compression:
            return InputError(
                expected=f"{path} to be a TFRecord file without compression",
                found=f"one that looks compressed with {compression}",
                next_step="write it anew without compression" + (", or gunzip it" if compression == "gzip" else ""),
            )
    return InputError(
        expected=f"record {number} of {path}, at byte {offset}, to be whole",
        found=found + (", so this may be no TFRecord file" if number == 1 else ""),
        next_step="restore that file from where it came from, or make it anew",
    )


def features(data: bytes) -> dict[str, list[Value]]:
    """The features of a serialised `tf.train.Example`. Raises ValueError where it is none."""
    from google.protobuf.message import DecodeError

    try:
        example = _example_class().FromString(data)
    except DecodeError as error:
        raise ValueError("not a tf.train.Example") from error
    return {
        name: list(getattr(feature, kind).value) if (kind := feature.WhichOneof("kind")) else []
        for name, feature in example.features.feature.items()
    }


@functools.cache
def _example_class() -> Any:
    """`tf.train.Example`, from its published definition, in a pool of its own: TensorFlow may register it too."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")

    def add(message: Any, name: str, number: int, kind: Any, repeated: bool = False) -> Any:
        label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
        field = message.field.add(name=name, number=number, label=label)
        if isinstance(kind, str):
            field.type, field.type_name = kinds.TYPE_MESSAGE, f".tensorflow.{kind}"
        else:
            field.type = kind
        return field

    lists = {"BytesList": kinds.TYPE_BYTES, "FloatList": kinds.TYPE_FLOAT, "Int64List": kinds.TYPE_INT64}
    for name, kind in lists.items():
        add(file.message_type.add(name=name), "value", 1, kind, repeated=True)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(lists, start=1):
        add(feature, name.replace("List", "_list").lower(), number, name).oneof_index = 0
    by_name = file.message_type.add(name="Features")
    entry = by_name.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    add(entry, "key", 1, kinds.TYPE_STRING)
    add(entry, "value", 2, "Feature")
    add(by_name, "feature", 1, "Features.FeatureEntry", repeated=True)
    add(file.message_type.add(name="Example"), "features", 1, "Features")

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))

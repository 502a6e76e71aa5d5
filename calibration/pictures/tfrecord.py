"""Reads TFRecord files and the `tf.train.Example` in a record, without TensorFlow.

A record is the length of its data (8 bytes), the masked CRC-32C of the length (4), the data, and the masked CRC-32C of
the data (4), all little-endian. A file is a sequence of records and nothing else. So a file truncated between two
records is valid, and only the expected number of records shows that some are missing.

Not for: what the features of an example mean (`record_index`), or which files belong together (`shards`).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from recreate_model.support.errors import InputError, reason

_LENGTH = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_MASK = 0xA282EAD8
_BUFFER = 1 << 20
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x78\x01": "zlib", b"\x78\x5e": "zlib", b"\x78\x9c": "zlib", b"\x78\xda": "zlib"}

Value = bytes | int | float


class _DamageError(Exception):
    """Describes what is wrong with a record."""


def records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the offset in bytes and the data of each record, checked one at a time.

    Raises:
        InputError: the file cannot be read, or is compressed, truncated or corrupt. The error names the record, counted
            from 1, and its offset.
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
    """The data of the record at an offset. Raises InputError as `records`; `number` is for the error."""
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
    """The data of the record at the stream's position; `left` bytes remain in the file."""
    from google_crc32c import value as crc32c

    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise _DamageError(f"the file's end after {len(head)} of {_LENGTH.size} bytes of the record's length")
    length, length_crc = _LENGTH.unpack(head)
    if _masked(crc32c(head[:8])) != length_crc:
        raise _DamageError("a length whose checksum does not match")
    # Checked before reading, as a wrong length could fill the memory.
    if _LENGTH.size + length + _CRC.size > left:
        raise _DamageError(f"the file's end {_LENGTH.size + length + _CRC.size - left} bytes too early")
    data = stream.read(length)
    tail = stream.read(_CRC.size)
    if len(data) + len(tail) < length + _CRC.size:
        raise _DamageError("the end of a file that was truncated while it was read")
    if _masked(crc32c(data)) != _CRC.unpack(tail)[0]:
        raise _DamageError("data whose checksum does not match")
    return data


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def unreadable(path: Path, error: OSError) -> InputError:
    """The error for a file of records that is missing or cannot be read."""
    return InputError(
        expected=f"to read the records in {path}",
        found=reason(error),
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
                next_step="write it again without compression" + (", or gunzip it" if compression == "gzip" else ""),
            )
    return InputError(
        expected=f"record {number} of {path}, at byte {offset}, to be complete and uncorrupted",
        found=found + ("; this may not be a TFRecord file" if number == 1 else ""),
        next_step="copy that file again from its source, or create it again",
    )


def features(data: bytes) -> dict[str, list[Value]]:
    """The features of a serialized `tf.train.Example`: name -> values. Raises ValueError if it is not one."""
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
    """The class `tf.train.Example`, built from its published definition.

    It has its own descriptor pool, as TensorFlow may register the same message in the default one.
    """
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

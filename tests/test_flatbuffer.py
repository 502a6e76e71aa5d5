"""The checked reader: it reads every field of the schema, and refuses offsets outside the file and endless work."""

from __future__ import annotations

import itertools
import struct
import time
from pathlib import Path
from typing import Any

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

from pipeline.request.request import Request
from recreate_model.tflite.flatbuffer import FlatbufferError, Reader
from recreate_model.tflite.schema import _ENUMS, _UNIONS, _decode, _table, decode, enum_names, fields
from tests.tiny_models import tiny_model

GENERATED = sorted(name[:-1] for name, one in vars(schema).items() if name.endswith("T") and hasattr(one, "Pack"))


def table(slots: list[int], body: bytes) -> bytes:
    """A file with one table: root offset, identifier, vtable, then the table with its body."""
    layout = struct.pack(f"<{2 + len(slots)}H", 4 + 2 * len(slots), 4 + len(body), *slots)
    start = 8 + len(layout)
    return struct.pack("<I4s", start, b"TFL3") + layout + struct.pack("<i", len(layout)) + body


@pytest.mark.parametrize("name", GENERATED)
def test_every_table_of_the_schema_is_known(name: str) -> None:
    """A table without fields has the defaults of the generated class, and every field has a type that can be read."""
    builder = flatbuffers.Builder()
    builder.StartObject(0)
    builder.Finish(builder.EndObject())
    reader = Reader(bytes(builder.Output()))
    unknown: set[str] = set()
    record = _decode(_table(name, reader, reader.follow(0)), unknown)
    empty = getattr(schema, f"{name}T")()
    defaults = vars(empty).values()
    assert [field.default for field in fields(name)] == list(defaults)
    for value, field in zip(record.values(), fields(name), strict=True):
        assert value == field.default or enum_names(_ENUMS[field.name])[field.default] == value
    assert unknown == set()


def test_every_union_of_the_schema_is_known() -> None:
    """The field before a union contains its type."""
    assert len(GENERATED) > 160
    found = set()
    for name in GENERATED:
        names = [field.name for field in fields(name)]
        found |= {one for before, one in itertools.pairwise(names) if before == f"{one}_type"}
    assert found == _UNIONS.keys()


def _assert_equal(record: Any, tree: Any) -> None:
    """Requires that a decoded table has the values of the generated reader's object."""
    if tree is None:
        assert record is None
        return
    for (name, value), expected in zip(record.items(), vars(tree).values(), strict=True):
        if hasattr(expected, "Pack"):
            _assert_equal(value, expected)
        elif isinstance(expected, list) and expected and hasattr(expected[0], "Pack"):
            for one, other in zip(value, expected, strict=True):
                _assert_equal(one, other)
        elif hasattr(expected, "tolist"):
            assert list(value) == expected.tolist(), name
        elif isinstance(expected, bytes):
            assert value.encode() == expected
        elif not isinstance(value, str):  # a string is the name of an enumeration value
            assert (value or None) == (expected or None), name


@pytest.mark.parametrize("kind", ["int8", "float", "gather", "small", "vela"])
def test_a_sound_file_is_read_as_by_the_generated_reader(kind: str, finished_build: Request) -> None:
    """Every field of every table is equal, for models from the converter and from Vela."""
    data = model(kind, finished_build)
    record, unknown = decode(Reader(data))
    assert unknown == ()
    _assert_equal(record, schema.ModelT.InitFromPackedBuf(data, 0))


def model(kind: str, build: Request) -> bytes:
    """A tiny model, or the small build's INT8 or Ethos-U model."""
    if kind not in ("small", "vela"):
        return tiny_model(kind)
    pattern = "*_INT8/*_INT8.tflite" if kind == "small" else "*_INT8/ethos_u/*/*.tflite"
    (path,) = Path(build.out).glob(pattern)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "4 bytes at offset 0 of a file of 0 bytes"),
        (struct.pack("<I", 0xFFFFFFFF), "bytes at offset 4294967295"),
        (struct.pack("<I4si", 8, b"TFL3", -2000), "2 bytes at offset 2008"),
        (struct.pack("<I4si", 8, b"TFL3", 2000), "2 bytes at offset -1992"),
        (struct.pack("<I4sHHi", 12, b"TFL3", 0, 4, 4), "an invalid vtable"),
        (struct.pack("<I4sHHi", 12, b"TFL3", 4, 0, 4), "an invalid vtable"),
        (struct.pack("<I4sHHi", 12, b"TFL3", 4, 500, 4), "500 bytes at offset 12"),
        (table([500], b""), "a field outside its table"),
        (table([2], bytes(4)), "a field outside its table"),
        (table([0, 0, 0, 4], struct.pack("<I", 1 << 31)), "Model.description"),
        (table([0, 0, 0, 4], struct.pack("<II", 4, 1 << 31)), "Model.description"),
        (table([0, 0, 0, 4], struct.pack("<II2s", 4, 2, b"\xff\xfe")), "not UTF-8, in Model.description"),
        (table([0, 0, 0, 0, 0, 4], struct.pack("<II", 4, 0x7FFFFFFF)), "Model.metadata_buffer"),
    ],
)
def test_an_offset_outside_the_file_is_refused(data: bytes, message: str) -> None:
    """The offset is that of a root, vtable, field, string or vector. The error names the field if there is one."""
    with pytest.raises(FlatbufferError, match=message):
        decode(Reader(data))


def test_a_field_unknown_to_the_schema_is_listed() -> None:
    """These are a slot after the last one, and options of an unknown type. Their content may be anything."""
    assert decode(Reader(table([0] * 10 + [4], bytes(4))))[1] == ("Model field 10",)
    builder = flatbuffers.Builder()
    builder.StartObject(0)
    options = builder.EndObject()
    builder.StartObject(5)
    builder.PrependUint8Slot(3, 250, 0)
    builder.PrependUOffsetTRelativeSlot(4, options, 0)
    step = builder.EndObject()
    steps = _vector(builder, [step])
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(3, steps, 0)
    graphs = _vector(builder, [builder.EndObject()])
    builder.StartObject(3)
    builder.PrependUOffsetTRelativeSlot(2, graphs, 0)
    builder.Finish(builder.EndObject(), b"TFL3")
    assert decode(Reader(bytes(builder.Output())))[1] == ("Operator.builtin_options",)


def _vector(builder: flatbuffers.Builder, parts: list[int]) -> int:
    builder.StartVector(4, len(parts), 4)
    for part in reversed(parts):
        builder.PrependUOffsetTRelative(part)
    return int(builder.EndVector())


@pytest.mark.parametrize("size", [1 << 16, 1 << 20])
def test_overlapping_parts_that_multiply_the_work_are_refused(size: int) -> None:
    """Every entry of a vector is the same table with the same long string. The error comes at once."""
    builder = flatbuffers.Builder()
    text = builder.CreateString("x" * size)
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(1, text, 0)
    codes = _vector(builder, [builder.EndObject()] * 5000)
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(1, codes, 0)
    builder.Finish(builder.EndObject(), b"TFL3")
    start = time.process_time()
    with pytest.raises(FlatbufferError, match="overlap"):
        decode(Reader(bytes(builder.Output())))
    assert time.process_time() - start < 1


def test_a_valid_file_of_the_smallest_parts_is_read() -> None:
    """It has only empty buffers, which cost the most work for their size."""
    builder = flatbuffers.Builder()

    def empty() -> int:
        builder.StartObject(0)
        return int(builder.EndObject())

    buffers = _vector(builder, [empty() for _ in range(20_000)])
    builder.StartObject(5)
    builder.PrependUOffsetTRelativeSlot(4, buffers, 0)
    builder.Finish(builder.EndObject(), b"TFL3")
    assert len(decode(Reader(bytes(builder.Output())))[0]["buffers"]) == 20_000

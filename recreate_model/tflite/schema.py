"""The tables of tensorflow/lite/schema, decoded as a whole: every field of every table by its name.

The classes that `flatc` generated for LiteRT read them, over the checked `flatbuffer.Table`: what a table has, of which
type each field is and which default it has is theirs to know. A field that they do not ask for is noted as unknown, as
two files that differ in it may look the same otherwise.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from recreate_model.tflite.flatbuffer import FlatbufferError, Reader, Table

Record = Mapping[str, Any]

# What the generated classes say in comments only: which union a field is; the field before it, `..._type`, says which
# of the union's tables is there.
_UNIONS = {
    "builtin_options": "BuiltinOptions",
    "builtin_options_2": "BuiltinOptions2",
    "details": "QuantizationDetails",
    "array_segments": "SparseIndexVector",
    "array_indices": "SparseIndexVector",
}
# And which enumeration a number is from.
_ENUMS = {
    "padding": "Padding",
    "fused_activation_function": "ActivationFunctionType",
    "weights_format": "FullyConnectedOptionsWeightsFormat",
    "kernel_type": "LSTMKernelType",
    "combiner": "CombinerType",
    "custom_options_format": "CustomOptionsFormat",
    **dict.fromkeys(
        ("in_data_type", "out_data_type", "output_type", "out_type", "idx_out_type", "quantized_bias_type"),
        "TensorType",
    ),
}


@dataclass(frozen=True)
class Field:
    """A field of a table.

    Attributes:
        name: the schema's.
        accessor: name of the method of the generated class that reads it.
        kind: `one` value; a vector of `numbers`; or a vector of `parts`, which are tables or texts.
        default: what the schema has where the field is left out.
    """

    name: str
    accessor: str
    kind: str
    default: Any


def decode(reader: Reader) -> tuple[Record, tuple[str, ...]]:
    """The root table with all that hangs on it, and the fields in the file that the schema does not know.

    A table is a mapping of all its fields in the schema's order, defaults filled in; a vector is a tuple, or bytes;
    what is left out is None.

    Raises:
        FlatbufferError: an offset or a length leads out of the file, or parts overlap; the field is named.
    """
    unknown: set[str] = set()
    return _decode(_table("Model", reader, reader.follow(0)), unknown), tuple(sorted(unknown))


@functools.cache
def enum_names(enumeration: str) -> Mapping[int, str]:
    """Value -> name."""
    return {value: name for name, value in vars(getattr(_generated(), enumeration)).items() if isinstance(value, int)}


@functools.cache
def fields(table: str) -> tuple[Field, ...]:
    """The fields of a table, in the schema's order."""
    reader = getattr(_generated(), table)
    found = []
    # The object that is for writing a table has its fields as attributes, with their defaults.
    for name, default in vars(getattr(_generated(), f"{table}T")()).items():
        accessor = name[0].upper() + name[1:]
        numbers, parts = (hasattr(reader, f"{accessor}{suffix}") for suffix in ("AsNumpy", "Length"))
        found.append(Field(_snake(name), accessor, "numbers" if numbers else "parts" if parts else "one", default))
    return tuple(found)


def many(records: tuple[Record, ...] | None) -> tuple[Record, ...]:
    """The tables of a vector, none where it is left out."""
    return records or ()


def rest_of(table: str, record: Record, taken: Collection[str]) -> dict[str, Any]:
    """The fields that are not taken, without those that have the schema's default."""
    defaults = {one.name: one.default for one in fields(table)}
    return {
        name: value
        for name, value in record.items()
        if name not in taken and value is not None and value != defaults[name]
    }


@functools.cache
def _generated() -> Any:
    """LiteRT's generated classes, over the checked `Table`.

    This is a second copy of the module, so the checks do not reach other users of LiteRT's.
    """
    spec = importlib.util.find_spec("ai_edge_litert.schema_py_generated")
    assert spec is not None  # it is a requirement
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for one in vars(module).values():
        if hasattr(one, "Init"):
            one.Init = _init
    return module


def _init(table: Any, reader: Reader, position: int) -> None:
    table._tab = Table(reader, position)


def _table(name: str, reader: Reader, position: int) -> Any:
    table = getattr(_generated(), name)()
    table.Init(reader, position)
    return table


def _decode(table: Any, unknown: set[str]) -> Record:
    name, record = type(table).__name__, dict[str, Any]()
    for field in fields(name):
        record[field.name] = _value(table, field, record, unknown)
    unknown.update(f"{name} field {slot}" for slot in table._tab.unknown())
    return record


def _value(table: Any, field: Field, record: Record, unknown: set[str]) -> Any:
    try:
        return _read(table, field, record, unknown)
    except FlatbufferError as error:
        # The innermost field is named; those on the way to it add nothing.
        error.where = error.where or f"{type(table).__name__}.{field.name}"
        raise


def _read(table: Any, field: Field, record: Record, unknown: set[str]) -> Any:
    read = getattr(table, field.accessor)
    if field.kind == "one":
        value = read()
        if field.name in _ENUMS:
            return enum_names(_ENUMS[field.name]).get(value, value)
        if field.name in _UNIONS and value is not None:
            return _union(table, field, value, record, unknown)
        return _decode(value, unknown) if hasattr(value, "_tab") else value
    if getattr(table, f"{field.accessor}IsNone")():
        return None
    if field.kind == "numbers":
        return getattr(table, f"{field.accessor}AsNumpy")()
    parts = map(read, range(getattr(table, f"{field.accessor}Length")()))
    return tuple(_decode(one, unknown) if hasattr(one, "_tab") else one for one in parts)


def _union(table: Any, field: Field, place: Any, record: Record, unknown: set[str]) -> Record | None:
    kind = enum_names(_UNIONS[field.name]).get(record[f"{field.name}_type"])
    if kind in (None, "NONE"):
        unknown.add(f"{type(table).__name__}.{field.name}")
        return None
    return _decode(_table(kind, place.Bytes, place.Pos), unknown)


def _snake(name: str) -> str:
    """As the schema has it: `dilationWFactor` is `dilation_w_factor`, `builtinOptions2` is `builtin_options_2`."""
    return re.sub(r"(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=Options)(?=2)", "_", name).lower()

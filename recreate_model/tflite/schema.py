"""The tables of tensorflow/lite/schema, decoded whole: every field of every table by its name.

Which fields there are is asked of the classes that `flatc` generated for LiteRT, and nothing else of them: they are
given a builder that only notes what would be written. Their reader checks nothing, so the bytes are read by
`flatbuffer`. A field that this schema does not know is noted too, as two files that differ in it may look the same.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from recreate_model.tflite.flatbuffer import FlatbufferError, Reader, Table

Record = Mapping[str, Any]

# What the generated classes say in comments alone: which table a field holds.
_TABLES = {
    "operator_codes": "OperatorCode",
    "subgraphs": "SubGraph",
    "buffers": "Buffer",
    "metadata": "Metadata",
    "signature_defs": "SignatureDef",
    "external_buffer_groups": "ExternalBufferGroup",
    "external_buffers": "ExternalBuffer",
    "tensors": "Tensor",
    "operators": "Operator",
    "quantization": "QuantizationParameters",
    "sparsity": "SparsityParameters",
    "dim_metadata": "DimensionMetadata",
    "variant_tensors": "VariantSubType",
    "inputs": "TensorMap",
    "outputs": "TensorMap",
}
# And which union; the field before it, `..._type`, says which of its tables.
_UNIONS = {
    "builtin_options": "BuiltinOptions",
    "builtin_options_2": "BuiltinOptions2",
    "details": "QuantizationDetails",
    "array_segments": "SparseIndexVector",
    "array_indices": "SparseIndexVector",
}
# And which numbers are names.
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
        kind: the method of `flatbuffer.Table` that reads it.
        code: of a number, the letter of the `struct` module.
    """

    name: str
    slot: int
    kind: str
    code: str = ""
    default: float = 0


def decode(reader: Reader) -> tuple[Record, tuple[str, ...]]:
    """The root table with all that hangs on it, and the fields in the file that the schema does not know.

    A table is a mapping of all its fields in the schema's order, defaults filled in; a vector is a tuple, or bytes;
    what is left out is None.

    Raises:
        FlatbufferError: an offset or a length leads out of the file, or parts overlap; the field is named.
    """
    unknown: set[str] = set()
    return _decode(reader.root(), "Model", unknown), tuple(sorted(unknown))


@functools.cache
def enum_names(enumeration: str) -> Mapping[int, str]:
    """Value -> name."""
    from ai_edge_litert import schema_py_generated as generated

    return {value: name for name, value in vars(getattr(generated, enumeration)).items() if isinstance(value, int)}


@functools.cache
def fields(table: str) -> tuple[Field, ...]:
    """The fields of a table, in the schema's order."""
    from ai_edge_litert import schema_py_generated as generated

    instance = getattr(generated, f"{table}T")()
    names = list(vars(instance))
    for name in names:
        setattr(instance, name, _Anything())
    notes = _Notes()
    instance.Pack(notes)
    return tuple(
        Field(_snake(name), slot, kind, code, default)
        for name, (slot, kind, code, default) in zip(names, notes.fields, strict=True)
    )


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


def _decode(table: Table, name: str, unknown: set[str]) -> Record:
    record: dict[str, Any] = {}
    for field in fields(name):
        record[field.name] = _value(table, name, field, record, unknown)
    known = {field.slot for field in fields(name)}
    unknown.update(f"{name} field {slot}" for slot in table.present() if slot not in known)
    return record


def _value(table: Table, name: str, field: Field, record: Record, unknown: set[str]) -> Any:
    try:
        return _read(table, name, field, record, unknown)
    except FlatbufferError as error:
        # The innermost field is named; those on the way to it add nothing.
        error.where = error.where or f"{name}.{field.name}"
        raise


def _read(table: Table, name: str, field: Field, record: Record, unknown: set[str]) -> Any:
    if field.kind == "scalar":
        value = table.scalar(field.slot, field.code, field.default)
        return enum_names(_ENUMS[field.name]).get(int(value), value) if field.name in _ENUMS else value
    if field.kind == "numbers":
        return table.numbers(field.slot, field.code)
    if field.kind in ("raw", "string", "strings"):
        return getattr(table, field.kind)(field.slot)
    if field.kind == "tables" and field.name in _TABLES:
        found = table.tables(field.slot)
        return None if found is None else tuple(_decode(one, _TABLES[field.name], unknown) for one in found)
    one = table.table(field.slot)
    if one is None:
        return None
    inner = _TABLES.get(field.name)
    if field.name in _UNIONS:
        inner = enum_names(_UNIONS[field.name]).get(record[f"{field.name}_type"])
    if inner in (None, "NONE"):
        unknown.add(f"{name}.{field.name}")
        return None
    return _decode(one, inner, unknown)


def _snake(name: str) -> str:
    """As the schema has it: `dilationWFactor` is `dilation_w_factor`, `builtinOptions2` is `builtin_options_2`."""
    return re.sub(r"(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=Options)(?=2)", "_", name).lower()


class _Anything(int):
    """Stands for every value: a number, a text, a table, or a vector of one of them."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> _Anything:
        return self

    def Pack(self, builder: _Notes) -> int:  # noqa: N802
        return builder.made("table")


class _Notes:
    """A builder in place of the flatbuffers library's: it writes nothing and notes the fields."""

    _TYPES = ("Bool", "Int8", "Uint8", "Int16", "Uint16", "Int32", "Uint32", "Int64", "Uint64", "Float32")
    _CODES: ClassVar = dict(zip(_TYPES, "?bBhHiIqQf", strict=True))

    def __init__(self) -> None:
        self.fields: list[tuple[int, str, str, float]] = []
        # Kind and code of each part made so far; where the library returns its offset, this returns its index.
        self._parts: list[tuple[str, str]] = []

    def made(self, kind: str, code: str = "") -> int:
        self._parts.append((kind, code))
        return len(self._parts) - 1

    def __getattr__(self, method: str) -> Any:
        """`PrependInt32Slot` writes a number of the table, `PrependInt32` one of a vector."""
        code = self._CODES[method.removeprefix("Prepend").removesuffix("Slot")]
        if method.endswith("Slot"):
            typed = bool if code == "?" else float if code == "f" else int
            return lambda slot, value, default: self.fields.append((slot, "scalar", code, typed(default)))
        return lambda value: self.made("raw" if code == "B" else "numbers", code)

    def PrependUOffsetTRelativeSlot(self, slot: int, part: int, default: int) -> None:  # noqa: N802
        self.fields.append((slot, *self._parts[part], 0))

    def PrependUOffsetTRelative(self, part: int) -> None:  # noqa: N802
        self.made(f"{self._parts[part][0]}s")

    def CreateString(self, text: object) -> int:  # noqa: N802
        return self.made("string")

    def StartObject(self, slots: int) -> None:  # noqa: N802
        pass

    def StartVector(self, width: int, count: int, alignment: int) -> None:  # noqa: N802
        pass

    def EndObject(self) -> None:  # noqa: N802
        pass

    def EndVector(self) -> int:  # noqa: N802
        return len(self._parts) - 1  # its one element came last

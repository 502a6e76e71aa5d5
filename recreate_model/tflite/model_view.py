"""A typed, read-only view of a `.tflite` file, read without TensorFlow.

It has the tensors, operators, quantization and everything else in the file. `interpret` runs a model; `convert.parse`
and `convert.pack` change one. Layout and names follow tensorflow/lite/schema/schema.fbs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recreate_model.support.archive import placeholder
from recreate_model.support.errors import InputError, reason
from recreate_model.tflite.buffers import content, contents, stored
from recreate_model.tflite.flatbuffer import FlatbufferError, Reader, UnsupportedError
from recreate_model.tflite.schema import Record, decode, enum_names, many, rest_of
from recreate_model.tflite.soundness import check_length, check_quantization, check_sharing, entry, indices, short

_FILE_IDENTIFIER = b"TFL3"
_SHOWN = 60  # longest name from the file in a message, in characters


@dataclass(frozen=True)
class Quantization:
    """Affine quantization: real = scale * (q - zero_point).

    Attributes:
        scales: one scale per tensor, or one per channel.
        zero_points: as many zero points.
        axis: the axis of the channels.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model's only subgraph.

    Attributes:
        dtype: the schema's name in lower case, such as `int8` or `float32`; `type 99` for a type that the schema lacks.
        buffer: index of the tensor's buffer; tensors may share a buffer.
        data: the constant's bytes, little-endian; empty for an activation.
        quantization: scales and zero points; None if the tensor has no scale.
        minimum, maximum: range that calibration wrote, in real units; one entry per tensor or per channel, usually
            empty.
        is_variable: the tensor keeps its value between inferences.
        shape_signature: the shape with -1 for dynamic dimensions; None if the file has none.
        rest: all other fields of the tensor and its quantization, such as sparsity, by the schema's names.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    buffer: int
    data: bytes
    quantization: Quantization | None
    minimum: tuple[float, ...] = ()
    maximum: tuple[float, ...] = ()
    is_variable: bool = False
    shape_signature: tuple[int, ...] | None = None
    rest: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Operator:
    """An operator.

    Attributes:
        name: the schema's name, such as `CONV_2D` or `CUSTOM`; `BUILTIN_999` for an operator that the schema lacks.
        inputs, outputs: indices of tensors; -1 for an omitted optional tensor.
        version: version of the operator.
        options: field -> value by the schema's names, with defaults filled in; padding and activation are names.
        options_kind: name of the options' table, such as `Conv2DOptions`; `NONE` if the operator has no options.
        custom_code: name of a custom operator.
        custom_options: options of a custom operator, in a format of its own.
        intermediates: indices of tensors that only the kernel uses.
        rest: all other fields by the schema's names.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    version: int = 1
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    options_kind: str = "NONE"
    custom_code: str = ""
    custom_options: bytes = b""
    intermediates: tuple[int, ...] = ()
    rest: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class OperatorCode:
    """An entry of the file's list of operator codes, whether or not an operator uses it."""

    name: str
    version: int
    custom_code: str


@dataclass(frozen=True)
class Signature:
    """A signature: names by which a caller finds inputs and outputs.

    Attributes:
        key: name of the signature.
        inputs, outputs: pairs of a name and the index of a tensor.
    """

    key: str
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class ModelView:
    """The whole content of a file, in file order.

    Attributes:
        size: size of the file in bytes.
        version: version of the schema that the file claims.
        inputs, outputs: indices of the subgraph's input and output tensors.
        graph_name: name of the subgraph.
        buffers: contents of all buffers, including unused ones.
        metadata: pairs of a name and its content.
        rest: all other fields of the model, by the schema's names.
        unknown: fields in the file that the schema lacks, so that their meaning is unknown.
    """

    size: int
    version: int
    description: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    graph_name: str = ""
    operator_codes: tuple[OperatorCode, ...] = ()
    buffers: tuple[bytes, ...] = ()
    metadata: tuple[tuple[str, bytes], ...] = ()
    signatures: tuple[Signature, ...] = ()
    rest: Mapping[str, Any] = field(default_factory=dict, hash=False)
    unknown: tuple[str, ...] = ()

    @property
    def input(self) -> Tensor:
        """The first input."""
        return self.tensors[self.inputs[0]]

    @property
    def output(self) -> Tensor:
        """The first output."""
        return self.tensors[self.outputs[0]]

    @property
    def operator_names(self) -> tuple[str, ...]:
        """The distinct names of the operators in use, sorted."""
        return tuple(sorted({operator.name for operator in self.operators}))


def read_file(path: Path) -> bytes:
    """Return the content of a file that the user named as a model.

    Raises:
        InputError: the file does not exist, is no regular file, or is not readable.
    """
    try:
        # Reading a pipe or a device may never end.
        if path.exists() and not path.is_file():
            raise _unreadable(str(path), "a folder" if path.is_dir() else "something that is not a regular file")
        return path.read_bytes()
    except (OSError, ValueError, MemoryError) as error:
        raise _unreadable(str(path), reason(error)) from error


def read_model(data: bytes, source: str = "the model") -> ModelView:
    """Parse a `.tflite` file with one subgraph.

    Args:
        data: content of the file.
        source: name of the file in error messages.

    Raises:
        InputError: the data is no TensorFlow Lite file, truncated or damaged, it does not have exactly one subgraph, or
            it uses a feature that runtimes interpret differently.
    """
    if stand_in := placeholder(data[:512]):
        raise _unreadable(source, f"{stand_in}: the file itself was not downloaded")
    if not data:
        raise _unreadable(source, "an empty file")
    if len(data) < 8 or data[4:8] != _FILE_IDENTIFIER:
        raise _unreadable(source, f"{len(data)} bytes without the TFL3 file identifier")
    try:
        reader = Reader(data)
        model, unknown = decode(reader)
        graphs = many(model["subgraphs"])
        if len(graphs) != 1:
            raise _unreadable(source, f"{len(graphs)} subgraphs instead of one")
        return _view(reader, model, graphs[0], unknown)
    except UnsupportedError as error:
        raise _unreadable(source, str(error)) from error
    except FlatbufferError as error:
        raise _unreadable(source, f"a damaged or truncated TensorFlow Lite file: {error}") from error


def _view(reader: Reader, model: Record, graph: Record, unknown: tuple[str, ...]) -> ModelView:
    buffers = contents(reader, many(model["buffers"]))
    codes = tuple(map(_operator_code, many(model["operator_codes"])))
    tensors = tuple(_tensor(number, record, buffers) for number, record in enumerate(many(graph["tensors"])))
    check_sharing(sum(len(tensor.data) for tensor in tensors), len(reader.data))
    count = len(tensors)
    return ModelView(
        size=len(reader.data),
        version=model["version"],
        description=model["description"] or "",
        tensors=tensors,
        operators=tuple(
            _operator(reader, number, record, codes, count) for number, record in enumerate(many(graph["operators"]))
        ),
        inputs=indices(graph["inputs"], count, "the graph's inputs"),
        outputs=indices(graph["outputs"], count, "the graph's outputs"),
        graph_name=graph["name"] or "",
        operator_codes=codes,
        buffers=buffers,
        metadata=tuple(
            (record["name"] or "", content(buffers, record["buffer"], "metadata")) for record in many(model["metadata"])
        ),
        signatures=tuple(_signature(record, count) for record in many(model["signature_defs"])),
        rest={"metadata_buffer": model["metadata_buffer"], "debug_metadata_index": graph["debug_metadata_index"]},
        unknown=unknown,
    )


def _operator_code(record: Record) -> OperatorCode:
    # Files from before 2020 have only the deprecated one-byte field. In newer files the larger field is the code.
    code = max(record["builtin_code"], record["deprecated_builtin_code"])
    name = enum_names("BuiltinOperator").get(code, f"BUILTIN_{code}")
    return OperatorCode(name, record["version"], record["custom_code"] or "")


def _tensor(number: int, record: Record, buffers: Sequence[bytes]) -> Tensor:
    name = record["name"] or ""
    what = f"tensor {number} {name[:_SHOWN]!r}"
    if record["external_buffer"]:
        raise UnsupportedError(f"{what} has its data in another file")
    dtype = enum_names("TensorType").get(record["type"], f"type {record['type']}").lower()
    shape = tuple(record["shape"] or ())
    if any(length < -1 for length in shape):
        raise FlatbufferError(f"{what} has the shape {short(shape)}")
    data = content(buffers, record["buffer"], what)
    if data and record["sparsity"] is None:
        check_length(what, data, shape, dtype)
    parameters = record["quantization"] or {}
    quantization = _quantization(parameters, shape, what)
    used = {"name", "shape", "type", "buffer", "quantization", "is_variable", "shape_signature", "external_buffer"}
    # Without a scale, zero point and axis mean nothing, but files may still differ in them: they go into `rest`.
    used_parameters = {"min", "max", "scale"} | ({"zero_point", "quantized_dimension"} if quantization else set())
    return Tensor(
        name=name,
        shape=shape,
        dtype=dtype,
        buffer=record["buffer"],
        data=data,
        quantization=quantization,
        minimum=parameters.get("min") or (),
        maximum=parameters.get("max") or (),
        is_variable=record["is_variable"],
        shape_signature=record["shape_signature"],
        rest={**rest_of("Tensor", record, used), **rest_of("QuantizationParameters", parameters, used_parameters)},
    )


def _quantization(parameters: Record, shape: tuple[int, ...], what: str) -> Quantization | None:
    scales, zero_points = parameters.get("scale") or (), parameters.get("zero_point") or ()
    if not scales:
        return None
    axis = parameters["quantized_dimension"]
    check_quantization(what, scales, zero_points, axis, shape)
    return Quantization(scales, zero_points, axis)


def _operator(reader: Reader, number: int, record: Record, codes: Sequence[OperatorCode], tensors: int) -> Operator:
    what = f"operator {number}"
    code = entry(codes, record["opcode_index"], "operator code", what)
    kinds = {}
    for union, enumeration in (("builtin_options", "BuiltinOptions"), ("builtin_options_2", "BuiltinOptions2")):
        kind = record[f"{union}_type"]
        kinds[union] = enum_names(enumeration).get(kind, f"{union} {kind}")
    large = (record["large_custom_options_offset"], record["large_custom_options_size"])
    used = {"opcode_index", "inputs", "outputs", "custom_options", "intermediates"}
    used |= {"large_custom_options_offset", "large_custom_options_size"}
    used |= {name for union in kinds for name in (union, f"{union}_type")}
    return Operator(
        name=code.name,
        inputs=indices(record["inputs"], tensors, f"the inputs of {what}", optional=True),
        outputs=indices(record["outputs"], tensors, f"the outputs of {what}", optional=True),
        version=code.version,
        options={**(record["builtin_options"] or {}), **(record["builtin_options_2"] or {})},
        options_kind=" and ".join(kind for kind in kinds.values() if kind != "NONE") or "NONE",
        custom_code=code.custom_code,
        custom_options=stored(reader, what, record["custom_options"], *large),
        intermediates=indices(record["intermediates"], tensors, f"the intermediates of {what}", optional=True),
        rest=rest_of("Operator", record, used),
    )


def _signature(record: Record, tensors: int) -> Signature:
    def names(side: str) -> tuple[tuple[str, int], ...]:
        found = indices([pair["tensor_index"] for pair in many(record[side])], tensors, f"a signature's {side}")
        return tuple(zip((pair["name"] or "" for pair in many(record[side])), found, strict=True))

    if record["subgraph_index"]:
        raise FlatbufferError(f"a signature of subgraph {record['subgraph_index']}, but there is only subgraph 0")
    return Signature(record["signature_key"] or "", names("inputs"), names("outputs"))


def _unreadable(source: str, found: str) -> InputError:
    return InputError(
        expected=f"{source} to be a TensorFlow Lite model with one subgraph",
        found=found,
        done="it was not used",
        next_step="give a .tflite file, or build one with `python -m pipeline quantize`",
    )

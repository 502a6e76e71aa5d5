"""A typed view of a `.tflite` file, read without TensorFlow.

For: asking a model for its tensors, operators, quantisation and all else that is in the file. Not for: running it
(`interpret`) or changing it (`convert`). Layout and names follow tensorflow/lite/schema/schema.fbs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recreate_model.support.archive import placeholder
from recreate_model.support.errors import InputError
from recreate_model.tflite.buffers import content, contents, stored
from recreate_model.tflite.flatbuffer import FlatbufferError, Reader, RefusedError
from recreate_model.tflite.schema import Record, decode, enum_names, many, rest_of
from recreate_model.tflite.soundness import check_length, check_quantisation, check_sharing, entry, indices, short

_FILE_IDENTIFIER = b"TFL3"
_SHOWN = 60  # most characters of a name from the file in a message


@dataclass(frozen=True)
class Quantisation:
    """Affine quantisation: real = scale * (q - zero_point); one entry per tensor, or one per channel of `axis`."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model's only subgraph.

    Attributes:
        dtype: the schema's name in lower case: `int8`, `int32`, `float32`; `type 99` where it knows none.
        buffer: index of the constant's buffer; buffers may be shared.
        data: the constant's bytes, little-endian; empty for an activation.
        quantisation: None where the tensor has no scale.
        minimum: range that a calibration wrote, in real units; one entry per tensor or per channel, mostly none.
        shape_signature: the shape with -1 for what is not fixed; None where the file has none.
        rest: every other field of the tensor and of its quantisation, sparsity among them, by the schema's names.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    buffer: int
    data: bytes
    quantisation: Quantisation | None
    minimum: tuple[float, ...] = ()
    maximum: tuple[float, ...] = ()
    is_variable: bool = False
    shape_signature: tuple[int, ...] | None = None
    rest: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Operator:
    """An operator and the indices of its tensors; -1 stands for an optional input left out.

    Attributes:
        name: the schema's, such as `CONV_2D` or `CUSTOM`; `BUILTIN_999` where it knows none.
        options: field -> value by the schema's names, padding and activation as names; defaults are filled in.
        options_kind: the options' table, such as `Conv2DOptions`; `NONE` where the operator has no options.
        custom_code: name of a custom operator.
        custom_options: its options, which are its own affair.
        intermediates: indices of tensors that only the kernel uses.
        rest: every other field by the schema's names.
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
    """An entry of the file's list of kinds of operator, used or not."""

    name: str
    version: int
    custom_code: str


@dataclass(frozen=True)
class Signature:
    """Names under which a caller finds inputs and outputs: pairs of a name and the index of a tensor."""

    key: str
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class ModelView:
    """All that a file holds, in file order.

    Attributes:
        size: of the file, in bytes.
        graph_name: of the subgraph.
        buffers: contents of all buffers, those that nothing uses among them.
        metadata: pairs of a name and the content.
        rest: every other field of the model, by the schema's names.
        unknown: fields in the file that the schema does not know; what they mean is anybody's guess.
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
        return self.tensors[self.inputs[0]]

    @property
    def output(self) -> Tensor:
        return self.tensors[self.outputs[0]]

    @property
    def operator_names(self) -> tuple[str, ...]:
        """The operators in use, sorted, each once."""
        return tuple(sorted({operator.name for operator in self.operators}))


def read_file(path: Path) -> bytes:
    """The bytes of a file that the user named as a model.

    Raises:
        InputError: there is no such file, it is a folder or a device, or it may not be read.
    """
    try:
        # Reading a pipe or a device may never end.
        if path.exists() and not path.is_file():
            raise _unreadable(str(path), "a folder" if path.is_dir() else "something that is no file")
        return path.read_bytes()
    except (OSError, ValueError, MemoryError) as error:
        raise _unreadable(str(path), getattr(error, "strerror", None) or str(error)) from error


def read_model(data: bytes, source: str = "the model") -> ModelView:
    """Parses the bytes of a `.tflite` file with one subgraph.

    Raises:
        InputError: not a TensorFlow Lite file, cut short, damaged, with more than one subgraph, or with data that two
            runtimes look for in two places.
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
    except RefusedError as error:
        raise _unreadable(source, str(error)) from error
    except FlatbufferError as error:
        raise _unreadable(source, f"a damaged or cut TensorFlow Lite file: {error}") from error


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
    # Files of before 2020 hold the code in a byte of its own; newer ones hold the larger of the two.
    code = max(record["builtin_code"], record["deprecated_builtin_code"])
    name = enum_names("BuiltinOperator").get(code, f"BUILTIN_{code}")
    return OperatorCode(name, record["version"], record["custom_code"] or "")


def _tensor(number: int, record: Record, buffers: Sequence[bytes]) -> Tensor:
    name = record["name"] or ""
    what = f"tensor {number} {name[:_SHOWN]!r}"
    if record["external_buffer"]:
        raise RefusedError(f"{what} keeps its data in another file")
    dtype = enum_names("TensorType").get(record["type"], f"type {record['type']}").lower()
    shape = tuple(record["shape"] or ())
    if any(length < -1 for length in shape):
        raise FlatbufferError(f"{what} has the shape {short(shape)}")
    data = content(buffers, record["buffer"], what)
    if data and record["sparsity"] is None:
        check_length(what, data, shape, dtype)
    quantisation = record["quantization"] or {}
    scaled = _quantisation(quantisation, shape, what)
    plain = {"name", "shape", "type", "buffer", "quantization", "is_variable", "shape_signature", "external_buffer"}
    # Without a scale the other two mean nothing, but differ all the same.
    used = {"min", "max", "scale"} | ({"zero_point", "quantized_dimension"} if scaled else set())
    return Tensor(
        name=name,
        shape=shape,
        dtype=dtype,
        buffer=record["buffer"],
        data=data,
        quantisation=scaled,
        minimum=quantisation.get("min") or (),
        maximum=quantisation.get("max") or (),
        is_variable=record["is_variable"],
        shape_signature=record["shape_signature"],
        rest={**rest_of("Tensor", record, plain), **rest_of("QuantizationParameters", quantisation, used)},
    )


def _quantisation(parameters: Record, shape: tuple[int, ...], what: str) -> Quantisation | None:
    scales, zero_points = parameters.get("scale") or (), parameters.get("zero_point") or ()
    if not scales:
        return None
    axis = parameters["quantized_dimension"]
    check_quantisation(what, scales, zero_points, axis, shape)
    return Quantisation(scales, zero_points, axis)


def _operator(reader: Reader, number: int, record: Record, codes: Sequence[OperatorCode], tensors: int) -> Operator:
    what = f"operator {number}"
    code = entry(codes, record["opcode_index"], "operator code", what)
    kinds = {}
    for union, enumeration in (("builtin_options", "BuiltinOptions"), ("builtin_options_2", "BuiltinOptions2")):
        kind = record[f"{union}_type"]
        kinds[union] = enum_names(enumeration).get(kind, f"{union} {kind}")
    large = (record["large_custom_options_offset"], record["large_custom_options_size"])
    taken = {"opcode_index", "inputs", "outputs", "custom_options", "intermediates"}
    taken |= {"large_custom_options_offset", "large_custom_options_size"}
    taken |= {name for union in kinds for name in (union, f"{union}_type")}
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
        rest=rest_of("Operator", record, taken),
    )


def _signature(record: Record, tensors: int) -> Signature:
    def names(side: str) -> tuple[tuple[str, int], ...]:
        found = indices([pair["tensor_index"] for pair in many(record[side])], tensors, f"a signature's {side}")
        return tuple(zip((pair["name"] or "" for pair in many(record[side])), found, strict=True))

    if record["subgraph_index"]:
        raise FlatbufferError(f"a signature of subgraph {record['subgraph_index']} of one")
    return Signature(record["signature_key"] or "", names("inputs"), names("outputs"))


def _unreadable(source: str, found: str) -> InputError:
    return InputError(
        expected=f"{source} to be a TensorFlow Lite model with one subgraph",
        found=found,
        done="it was not used",
        next_step="give a .tflite file, or build one with `python -m pipeline quantize`",
    )

"""A typed view of a `.tflite` file, read without TensorFlow.

For: asking a model for its tensors, operators and quantisation. Not for: running it (`interpret`) or changing it
(`convert`). Layout and names follow tensorflow/lite/schema/schema.fbs.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import Any

from recreate_model.archive import placeholder
from recreate_model.errors import InputError

_FILE_IDENTIFIER = b"TFL3"


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
        dtype: the schema's name in lower case: `int8`, `int32`, `float32`.
        buffer: index of the constant's buffer; buffers may be shared.
        data: the constant's bytes, little-endian; empty for an activation.
        quantisation: None where the tensor has no scale.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    buffer: int
    data: bytes
    quantisation: Quantisation | None


@dataclass(frozen=True)
class Operator:
    """An operator and the indices of its tensors; -1 stands for an optional input left out."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class ModelView:
    """The parts of a model that decide what it computes, in file order."""

    size: int
    version: int
    description: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

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


def read_model(data: bytes, source: str = "the model") -> ModelView:
    """Parses the bytes of a `.tflite` file with one subgraph.

    Raises:
        InputError: not a TensorFlow Lite file, cut short, or with more than one subgraph.
    """
    if stand_in := placeholder(data[:512]):
        raise _unreadable(source, f"{stand_in}: the file itself was not downloaded")
    if len(data) < 8 or data[4:8] != _FILE_IDENTIFIER:
        raise _unreadable(source, f"{len(data)} bytes without the TFL3 file identifier")
    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromPackedBuf(data, 0)
        if model.subgraphs is None or len(model.subgraphs) != 1:
            raise _unreadable(source, f"{len(model.subgraphs or [])} subgraphs instead of one")
        graph = model.subgraphs[0]
        operator_names = [_operator_name(schema, code) for code in model.operatorCodes or []]
        return ModelView(
            size=len(data),
            version=model.version,
            description=_text(model.description),
            tensors=tuple(_tensor(schema, tensor, model.buffers) for tensor in graph.tensors),
            operators=tuple(
                Operator(operator_names[op.opcodeIndex], _indices(op.inputs), _indices(op.outputs))
                for op in graph.operators
            ),
            inputs=_indices(graph.inputs),
            outputs=_indices(graph.outputs),
        )
    except (struct.error, LookupError, ValueError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        # The generated reader checks nothing: whatever broken offsets make it raise means the same to a user.
        raise _unreadable(source, f"a damaged TensorFlow Lite file ({type(error).__name__}: {error})") from error


def _unreadable(source: str, found: str) -> InputError:
    return InputError(
        expected=f"{source} to be a TensorFlow Lite model with one subgraph",
        found=found,
        done="it was not used",
        next_step="give a .tflite file, or build one with `python -m pipeline quantize`",
    )


def _tensor(schema: Any, tensor: Any, buffers: Any) -> Tensor:
    data = buffers[tensor.buffer].data
    return Tensor(
        name=_text(tensor.name),
        shape=_indices(tensor.shape),
        dtype=_enum_names(schema.TensorType)[tensor.type].lower(),
        buffer=int(tensor.buffer),
        data=b"" if data is None else bytes(data),
        quantisation=_quantisation(tensor.quantization),
    )


def _quantisation(parameters: Any) -> Quantisation | None:
    if parameters is None or parameters.scale is None or len(parameters.scale) == 0:
        return None
    return Quantisation(
        scales=tuple(float(scale) for scale in parameters.scale),
        zero_points=tuple(int(zero) for zero in parameters.zeroPoint),
        axis=int(parameters.quantizedDimension),
    )


def _operator_name(schema: Any, code: Any) -> str:
    # Files of before 2020 hold the code in a byte of its own; newer ones hold the larger of the two.
    return _enum_names(schema.BuiltinOperator)[max(code.builtinCode, code.deprecatedBuiltinCode)]


@functools.cache
def _enum_names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _indices(values: Any) -> tuple[int, ...]:
    return () if values is None else tuple(int(value) for value in values)


def _text(value: Any) -> str:
    return "" if value is None else bytes(value).decode("utf-8", errors="replace")

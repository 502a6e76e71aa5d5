"""Convert a float graph and activation ranges to an INT8 model, with TensorFlow's own converter and quantizer.

TensorFlow's post-training quantization has three steps: convert the graph to a float model; run the representative
dataset and write each activation's minimum and maximum into its tensor; quantize. This module calls the first and the
last step as TensorFlow does, and replaces the middle one by writing given ranges. With the ranges that TensorFlow's
calibrator measures, the result is byte for byte that of `TFLiteConverter.convert()`, except for the names of input and
output (tests/test_convert.py).

The installed TensorFlow does not reproduce the bytes of published files; `recreate_model.prove` runs the releases of
2021 that do.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recreate_model.network.spec import MOBILENET_V2
from recreate_model.quantize.quantizer import WITHOUT_RANGE
from recreate_model.support.arrays import Array
from recreate_model.support.capture import captured
from recreate_model.support.errors import InputError, ToolError
from recreate_model.tflite.model_view import read_model

Ranges = Mapping[str, tuple[float, float]]  # activation name -> minimum and maximum, in real units


def activation_name(tensor_name: str) -> str:
    """Return the activation's name: the name of the last graph node that the converter fused into the tensor.

    The converter joins the names of fused nodes with `;`, the last node first.
    """
    return tensor_name.split(";")[0]


def activations(float_model: bytes) -> dict[str, int]:
    """Return name -> tensor index of every activation of a float model: the input, then all operators' outputs.

    Raises:
        ToolError: two activations have the same name.
    """
    view = read_model(float_model)
    indices = [*view.inputs, *(index for operator in view.operators for index in operator.outputs)]
    names = {activation_name(view.tensors[index].name): index for index in indices}
    if len(names) != len(indices):
        raise ToolError(
            expected="the converter to give every activation a unique name",
            found=f"{len(names)} names for {len(indices)} activations",
            next_step="build with the locked TensorFlow (make model)",
        )
    return names


def activations_with_a_range(float_model: bytes) -> tuple[str, ...]:
    """Return the names of the activations whose ranges affect the INT8 model: all but the outputs of WITHOUT_RANGE."""
    view = read_model(float_model)
    without = {index for operator in view.operators if operator.name in WITHOUT_RANGE for index in operator.outputs}
    return tuple(name for name, index in activations(float_model).items() if index not in without)


def convert_float(graph: bytes) -> bytes:
    """Convert a serialized frozen graph to a float `.tflite`. BatchNorm should be folded, as by `frozen_graph`.

    Raises:
        ToolError: the converter failed; the message quotes its error.
    """
    with tempfile.TemporaryDirectory(prefix="recreate_model-") as scratch, _tool("the TensorFlow converter"):
        import tensorflow as tf

        path = Path(scratch) / "graph.pb"
        path.write_bytes(graph)
        converter = tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(
            str(path), [MOBILENET_V2.input_name], [MOBILENET_V2.output_name]
        )
        model: bytes = converter.convert()
    return model


def quantize(float_model: bytes, ranges: Ranges) -> bytes:
    """Quantize a float model to full-integer INT8, with int8 input and output and the given activation ranges.

    Args:
        float_model: a `.tflite` from `convert_float`.
        ranges: a range for every name in `activations_with_a_range(float_model)`; further names must be in
            `activations(float_model)`.

    Returns:
        The content of the INT8 `.tflite` file.

    Raises:
        InputError: a range is missing, inverted or not finite, or its name is unknown.
        ToolError: the quantizer failed; the message quotes its error.
    """
    check_ranges(ranges, float_model)
    indices = activations(float_model)
    # The quantizer requires a range for every activation, even where it does not use it.
    ranges = {name: ranges.get(name, (0.0, 1.0)) for name in indices}
    with _tool("TensorFlow's quantizer"):
        import tensorflow as tf
        from tensorflow.lite.python.convert import deduplicate_readonly_buffers, mlir_quantize
        from tensorflow.lite.python.util import (
            get_conversion_metadata,
            get_model_hash,
            populate_conversion_metadata,
        )

        calibrated = _with_ranges(float_model, {indices[name]: span for name, span in ranges.items()})
        quantized = mlir_quantize(calibrated, input_data_type=tf.int8, output_data_type=tf.int8)
        model = parse(deduplicate_readonly_buffers(quantized))
        metadata = get_conversion_metadata(float_model)
        metadata.options.modelOptimizationModes = [_full_integer()]
        metadata.environment.modelHash = get_model_hash(model)
        model = populate_conversion_metadata(model, metadata)
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].name = MOBILENET_V2.int8_input_name
    graph.tensors[graph.outputs[0]].name = MOBILENET_V2.int8_output_name
    return pack(model)


def with_all_activations_as_outputs(float_model: bytes) -> bytes:
    """Return the model with all activations as outputs, in the order of `activations`, so that their memory is kept."""
    model = parse(float_model)
    model.subgraphs[0].outputs = np.array(list(activations(float_model).values()), np.int32)
    return pack(model)


def with_ranges_as_outputs(float_model: bytes) -> bytes:
    """Return the model with the ranges of all activations as its outputs: two scalars each, minimum and maximum.

    The outputs are in the order of `activations`. They are bit for bit the ranges of the values from
    `with_all_activations_as_outputs`. A NaN may be missing from the range of the activation in which it first occurs,
    but not from the range of the softmax.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = parse(float_model)
    graph = model.subgraphs[0]
    graph.outputs = []
    codes = [schema.BuiltinOperator.REDUCE_MIN, schema.BuiltinOperator.REDUCE_MAX]
    first_code = len(model.operatorCodes)
    model.operatorCodes += [_operator_code(code) for code in codes]
    axes: dict[int, int] = {}  # rank -> index of the tensor that lists all axes

    def reductions(index: int) -> Iterator[Any]:
        rank = len(graph.tensors[index].shape)
        if rank not in axes:
            axes[rank] = _add_tensor(model, schema.TensorType.INT32, np.arange(rank, dtype=np.int32))
        for code in range(first_code, first_code + len(codes)):
            operator = schema.OperatorT()
            operator.opcodeIndex = code
            operator.inputs = np.array([index, axes[rank]], np.int32)
            graph.outputs.append(_add_tensor(model, schema.TensorType.FLOAT32))
            operator.outputs = np.array(graph.outputs[-1:], np.int32)
            operator.builtinOptionsType = schema.BuiltinOptions.ReducerOptions
            operator.builtinOptions = schema.ReducerOptionsT()
            yield operator

    operators = [reduction for index in graph.inputs for reduction in reductions(index)]
    for operator in graph.operators:
        # Reduce each activation right after it is computed: it is still in the CPU's cache, and the arena can then
        # reuse its memory.
        operators += [operator, *(reduction for index in operator.outputs for reduction in reductions(index))]
    graph.operators = operators
    return pack(model)


def check_ranges(ranges: Ranges, float_model: bytes) -> None:
    """Check that a float model can be quantized with these ranges.

    Raises:
        InputError: a range is missing, inverted or not finite, or its name is unknown; the message names it.
    """
    known, needed = activations(float_model).keys(), activations_with_a_range(float_model)
    for name in sorted((set(needed) - ranges.keys()) | (ranges.keys() - known)):
        raise InputError(
            expected=f"one range for each of the network's {len(needed)} activations that need one",
            found=f"none for {name}" if name in known else f"one for {name}, which the network does not have",
            next_step="measure ranges for this network (python -m pipeline calibrate --force)",
        )
    for name, (low, high) in ranges.items():
        with np.errstate(over="ignore"):
            span = np.array([low, high]).astype(np.float32)
        # A constant activation has an empty range, which is valid; a uniform image can cause it.
        if not (np.isfinite(span).all() and span[0] <= span[1]):
            raise InputError(
                expected="every range to be finite in float32, its minimum not above its maximum",
                found=f"[{low}, {high}] for {name}",
                next_step="measure ranges for this network (python -m pipeline calibrate --force)",
            )


def _with_ranges(float_model: bytes, ranges: Mapping[int, tuple[float, float]]) -> bytes:
    """Return the model with the given ranges, by tensor index, as a calibrator would write them."""
    from ai_edge_litert import schema_py_generated as schema

    model = parse(float_model)
    # This metadata describes the float conversion. `quantize` writes new metadata for the INT8 model.
    model.metadata = [entry for entry in model.metadata if entry.name != b"CONVERSION_METADATA"]
    for index, (low, high) in ranges.items():
        parameters = schema.QuantizationParametersT()
        parameters.min = np.array([low], np.float32)
        parameters.max = np.array([high], np.float32)
        model.subgraphs[0].tensors[index].quantization = parameters
    return pack(model)


def _operator_code(code: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    entry = schema.OperatorCodeT()
    entry.builtinCode = entry.deprecatedBuiltinCode = code
    return entry


def _add_tensor(model: Any, dtype: int, values: Array | None = None) -> int:
    """Add a tensor, a constant vector or (without values) a computed scalar; return its index."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.type = dtype
    tensor.shape = np.array([] if values is None else values.shape, np.int32)
    if values is not None:
        buffer = schema.BufferT()
        buffer.data = values.view(np.uint8)
        tensor.buffer = len(model.buffers)
        model.buffers.append(buffer)
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def _full_integer() -> int:
    from tensorflow.lite.python import conversion_metadata_schema_py_generated as metadata

    mode: int = metadata.ModelOptimizationMode.PTQ_FULL_INTEGER
    return mode


def parse(data: bytes) -> Any:
    """Return the content of a `.tflite` file as a mutable tree of the generated schema's objects, for `pack`."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(data, 0)


def pack(model: Any) -> bytes:
    """Serialize a tree from `parse` to the content of a `.tflite` file."""
    import flatbuffers

    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@contextlib.contextmanager
def _tool(what: str) -> Iterator[None]:
    """Capture the output of a TensorFlow call, and turn any exception of it into a ToolError that quotes it."""
    with captured() as printed:
        try:
            yield
        except Exception as error:
            if isinstance(error, OSError) and error.errno:
                raise  # an error of the file system, not of the tool
            lines = [line for line in f"{error}\n{printed()}".splitlines() if line.strip()]
            raise ToolError(
                expected=f"{what} to succeed",
                found=lines[0] if lines else type(error).__name__,
                next_step="run again with the locked environment (make model)",
            ) from error

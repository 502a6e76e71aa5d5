"""Float graph + activation ranges -> INT8 model, through TensorFlow's own converter and quantiser.

Post-training quantisation in TensorFlow runs in three steps: convert to a float model, run pictures through it and
write each activation's minimum and maximum into its tensor, then quantise. The first and the last are called here as
TensorFlow calls them; the middle one is replaced by writing ranges that are given. With the ranges its own calibrator
measures, the result is byte for byte what `TFLiteConverter.convert()` returns, but for the names of input and output
(tests/test_convert.py).

Not for: the bytes of published files, which the toolchain of 2021 made.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recreate_model.network.spec import MOBILENET_V2
from recreate_model.quantize.quantiser import WITHOUT_RANGE
from recreate_model.support.arrays import Array
from recreate_model.support.capture import captured
from recreate_model.support.errors import InputError, ToolError
from recreate_model.tflite.model_view import read_model

Ranges = Mapping[str, tuple[float, float]]


def activation_name(tensor_name: str) -> str:
    """The converter joins the names of the nodes it fused with `;`; the first is the last of them in the graph."""
    return tensor_name.split(";")[0]


def activations(float_model: bytes) -> dict[str, int]:
    """Name and tensor index of every activation of a float model: the input, then each operator's output in order."""
    view = read_model(float_model)
    indices = [*view.inputs, *(index for operator in view.operators for index in operator.outputs)]
    names = {activation_name(view.tensors[index].name): index for index in indices}
    if len(names) != len(indices):
        raise ToolError(
            expected="the converter to give every activation a name of its own",
            found=f"{len(names)} names for {len(indices)} activations",
            next_step="build with the locked TensorFlow (make model)",
        )
    return names


def activations_with_a_range(float_model: bytes) -> tuple[str, ...]:
    """The activations whose ranges decide a byte of the INT8 model: not those of an operator without a range."""
    view = read_model(float_model)
    without = {index for operator in view.operators if operator.name in WITHOUT_RANGE for index in operator.outputs}
    return tuple(name for name, index in activations(float_model).items() if index not in without)


def convert_float(graph: bytes) -> bytes:
    """A serialised frozen graph, as `network.frozen_graph` gives it, as a float `.tflite`.

    Raises:
        ToolError: the converter failed; its own words are in the message.
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
    """Full-integer INT8 model, int8 input and output, with the given range for each activation.

    Args:
        float_model: from `convert_float`.
        ranges: minimum and maximum in real units, one for every name of `activations_with_a_range(float_model)`, and
            none for a name that is not in `activations(float_model)`.

    Raises:
        InputError: a range is missing, left over, inverted or not finite.
        ToolError: the quantiser failed; its own words are in the message.
    """
    check_ranges(ranges, float_model)
    indices = activations(float_model)
    # The quantiser wants a range for every activation, even where it reads none.
    ranges = {name: ranges.get(name, (0.0, 1.0)) for name in indices}
    with _tool("TensorFlow's quantiser"):
        import tensorflow as tf
        from tensorflow.lite.python.convert import deduplicate_readonly_buffers, mlir_quantize
        from tensorflow.lite.python.util import (
            get_conversion_metadata,
            get_model_hash,
            populate_conversion_metadata,
        )

        calibrated = _with_spans(float_model, {indices[name]: span for name, span in ranges.items()})
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
    """The same model with every activation declared an output, in the order of `activations`, so that none is lost."""
    model = parse(float_model)
    model.subgraphs[0].outputs = np.array(list(activations(float_model).values()), np.int32)
    return pack(model)


def with_ranges_as_outputs(float_model: bytes) -> bytes:
    """The same model with the range of every activation as its outputs: two scalars, minimum and maximum, for each.

    They come in the order of `activations`, and are those of the values that `with_all_activations_as_outputs` gives,
    bit for bit. A NaN among other numbers is not always seen where it arises, but always in the scores.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = parse(float_model)
    graph = model.subgraphs[0]
    graph.outputs = []
    codes = [schema.BuiltinOperator.REDUCE_MIN, schema.BuiltinOperator.REDUCE_MAX]
    first_code = len(model.operatorCodes)
    model.operatorCodes += [_operator_code(code) for code in codes]
    axes: dict[int, int] = {}  # rank -> the tensor that lists all axes

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
        # At once, while the activation is in the cache; its memory can then be used again.
        operators += [operator, *(reduction for index in operator.outputs for reduction in reductions(index))]
    graph.operators = operators
    return pack(model)


def check_ranges(ranges: Ranges, float_model: bytes) -> None:
    """Raises InputError, naming the activation, unless there is one usable range where the float model needs one."""
    known, needed = activations(float_model).keys(), activations_with_a_range(float_model)
    for name in sorted((set(needed) - ranges.keys()) | (ranges.keys() - known)):
        raise InputError(
            expected=f"one range for each of the {len(needed)} activations of the network that need one",
            found=f"none for {name}" if name in known else f"one for {name}, which the network does not have",
            next_step="measure ranges for this network (python -m pipeline calibrate --force)",
        )
    for name, (low, high) in ranges.items():
        with np.errstate(over="ignore"):
            span = np.array([low, high]).astype(np.float32)
        # An activation that is always the same has an empty range, as a picture without content may give it.
        if not (np.isfinite(span).all() and span[0] <= span[1]):
            raise InputError(
                expected="every range to be finite in float32, its minimum not above its maximum",
                found=f"[{low}, {high}] for {name}",
                next_step="measure ranges for this network (python -m pipeline calibrate --force)",
            )


def _with_spans(float_model: bytes, ranges: Mapping[int, tuple[float, float]]) -> bytes:
    from ai_edge_litert import schema_py_generated as schema

    model = parse(float_model)
    # The converter writes its metadata after quantising; what it wrote after the float conversion is stale by now.
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
    """Index of a new tensor: a constant vector, or a scalar to be computed."""
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
    """A `.tflite` file as a tree of the generated schema's objects, to be changed and packed again."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(data, 0)


def pack(model: Any) -> bytes:
    """The bytes of a tree from `parse`; the whole file is written anew."""
    import flatbuffers

    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@contextlib.contextmanager
def _tool(what: str) -> Iterator[None]:
    """Turns whatever TensorFlow raises, from ValueError to its own ConverterError, into one line with its own words."""
    with captured() as printed:
        try:
            yield
        except Exception as error:
            if isinstance(error, OSError) and error.errno:
                raise  # the file system refused, which is no failure of the tool
            said = [line for line in f"{error}\n{printed()}".splitlines() if line.strip()]
            raise ToolError(
                expected=f"{what} to succeed",
                found=said[0] if said else type(error).__name__,
                next_step="run again with the locked environment (make model)",
            ) from error

"""Comparing two models: the verdict claims no more than was compared, and every difference is listed."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.interface.commands.diff import ACCEPTED
from pipeline.request.request import Request
from recreate_model.compare.diff import Kind, Verdict, compare, comparison_json
from recreate_model.compare.elements import same
from recreate_model.support.errors import InputError
from recreate_model.tflite.model_view import read_model
from tests.edited_models import (
    code,
    computed,
    data,
    edited,
    insert,
    new_tensor,
    operand,
    operator,
    permuted,
    result,
)
from tests.test_bad_input import ROOT, assert_one_error, run
from tests.test_flatbuffer import model
from tests.tiny_models import tiny_model

Change = Callable[[Any], None]


@pytest.fixture(scope="session")
def small(finished_build: Request) -> bytes:
    """The smallest network as an INT8 model. It has ADD operators."""
    return model("small", finished_build)


def ulp_up(value: float) -> float:
    """The next larger float32."""
    return float(np.nextafter(np.float32(value), np.float32(np.inf)))


def _weight(tree: Any) -> None:
    data(tree, operand(tree, "CONV_2D", 1))[7] += 1


def _bias(tree: Any) -> None:
    numbers = data(tree, operand(tree, "CONV_2D", 2)).view(np.int32)
    numbers[3] += 1


def _weight_scale(tree: Any) -> None:
    scales = operand(tree, "CONV_2D", 1).quantization.scale = operand(tree, "CONV_2D", 1).quantization.scale.copy()
    scales[5] = ulp_up(scales[5])


def _bias_scale(tree: Any) -> None:
    scales = operand(tree, "CONV_2D", 2).quantization.scale = operand(tree, "CONV_2D", 2).quantization.scale.copy()
    scales[5] *= 2


def _activation_scale(tree: Any) -> None:
    scale = ulp_up(result(tree, "FULLY_CONNECTED").quantization.scale[0])
    result(tree, "FULLY_CONNECTED").quantization.scale = [scale]


def _zero_point(tree: Any) -> None:
    zero_point = result(tree, "FULLY_CONNECTED").quantization.zeroPoint[0]
    result(tree, "FULLY_CONNECTED").quantization.zeroPoint = [zero_point + 1]


def _calibrated(tree: Any) -> None:
    result(tree, "CONV_2D").quantization.min = [-1.0]


def _stride(tree: Any) -> None:
    operator(tree, "CONV_2D").builtinOptions.strideH = 1


def _padding(tree: Any) -> None:
    operator(tree, "CONV_2D").builtinOptions.padding = schema.Padding.VALID


def _activation(tree: Any) -> None:
    operator(tree, "CONV_2D").builtinOptions.fusedActivationFunction = 0


def _no_options(tree: Any) -> None:
    one = operator(tree, "SOFTMAX")
    one.builtinOptionsType, one.builtinOptions = 0, None


def _softmax_beta(tree: Any) -> None:
    operator(tree, "SOFTMAX").builtinOptions.beta = ulp_up(1)


def _version(tree: Any) -> None:
    tree.operatorCodes[operator(tree, "CONV_2D").opcodeIndex].version += 1


def _new_shape(tree: Any) -> None:
    data(tree, operand(tree, "RESHAPE", 1))[0] ^= 3


def _dynamic_shape(tree: Any) -> None:
    result(tree, "CONV_2D").shapeSignature = [-1, 4, 4, 8]


def _variable(tree: Any) -> None:
    result(tree, "CONV_2D").isVariable = True


def _left_out_bias(tree: Any) -> None:
    one = operator(tree, "CONV_2D")
    one.inputs = [*one.inputs[:2], -1]


def _missing_bias(tree: Any) -> None:
    one = operator(tree, "CONV_2D")
    one.inputs = one.inputs[:2]


def _unknown_operator(tree: Any) -> None:
    operator(tree, "SOFTMAX").opcodeIndex = code(tree, 999)


def _custom_operator(tree: Any) -> None:
    operator(tree, "SOFTMAX").opcodeIndex = code(tree, "CUSTOM", custom=b"softmax")


def _other_version_of_the_schema(tree: Any) -> None:
    tree.version = 4


def _asymmetric(tree: Any) -> None:
    operator(tree, "FULLY_CONNECTED").builtinOptions.asymmetricQuantizeInputs = True


def _no_scale(tree: Any) -> None:
    result(tree, "FULLY_CONNECTED").quantization = None


def _softmax_scale(tree: Any) -> None:
    result(tree, "SOFTMAX").quantization.scale = [1.0]


def _softmax_zero_point(tree: Any) -> None:
    result(tree, "SOFTMAX").quantization.zeroPoint = [5]


def _reshape_scale(tree: Any) -> None:
    result(tree, "RESHAPE").quantization.scale = [77.0]


def _scale_that_reshape_does_not_keep(tree: Any) -> None:
    operand(tree, "RESHAPE", 0).quantization.scale = [77.0]


@pytest.mark.parametrize(
    ("change", "verdict", "kind", "message"),
    [
        (
            _weight,
            Verdict.SAME_GRAPH,
            Kind.WEIGHTS,
            "1 of 216 elements differs by at most 1 level (mean 1), the first at index 7 in channel 0",
        ),
        (
            _bias,
            Verdict.SAME_GRAPH,
            Kind.BIASES,
            "1 of 8 elements differs by at most 1 level (mean 1), the first at index 3 in channel 3",
        ),
        (_weight_scale, Verdict.SAME_GRAPH, Kind.WEIGHTS, "scale differs in 1 of 8 channels, the first in channel 5: "),
        (_bias_scale, Verdict.SAME_GRAPH, Kind.BIASES, "scale differs in 1 of 8 channels, the first in channel 5: "),
        (_activation_scale, Verdict.SAME_WEIGHTS, Kind.RANGES, "scale "),
        (_zero_point, Verdict.SAME_WEIGHTS, Kind.RANGES, "zero point "),
        (_no_scale, Verdict.DIFFERENT, Kind.TYPES, ""),
        (_softmax_scale, Verdict.DIFFERENT, Kind.OPTIONS, "output, which SOFTMAX fixes"),
        (_softmax_zero_point, Verdict.DIFFERENT, Kind.OPTIONS, "output, which SOFTMAX fixes"),
        (_reshape_scale, Verdict.DIFFERENT, Kind.OPTIONS, "output, which RESHAPE takes from its input"),
        (_scale_that_reshape_does_not_keep, Verdict.DIFFERENT, Kind.OPTIONS, "which RESHAPE takes from its input"),
        (_calibrated, Verdict.SAME_WEIGHTS, Kind.RANGES, "recorded minimum"),
        (_stride, Verdict.DIFFERENT, Kind.OPTIONS, "stride_h 2 against 1"),
        (_padding, Verdict.DIFFERENT, Kind.OPTIONS, "padding SAME against VALID"),
        (_activation, Verdict.DIFFERENT, Kind.OPTIONS, "fused_activation_function RELU6 against NONE"),
        (_no_options, Verdict.DIFFERENT, Kind.OPTIONS, "options SoftmaxOptions against NONE"),
        (_softmax_beta, Verdict.DIFFERENT, Kind.OPTIONS, "beta 1 against 1.00000012"),
        (_asymmetric, Verdict.DIFFERENT, Kind.OPTIONS, "asymmetric_quantize_inputs False against True"),
        (_version, Verdict.SAME_GRAPH, Kind.VERSIONS, "version 3 against 4"),
        (_new_shape, Verdict.DIFFERENT, Kind.OPERANDS, "1 of 2 elements differs"),
        (_dynamic_shape, Verdict.DIFFERENT, Kind.SHAPES, "shape signature nothing against [-1, 4, 4, 8]"),
        (_variable, Verdict.DIFFERENT, Kind.OTHER, "variable False against True"),
        (_left_out_bias, Verdict.DIFFERENT, Kind.WIRING, "against none"),
        (_missing_bias, Verdict.DIFFERENT, Kind.WIRING, "against none"),
        (_unknown_operator, Verdict.DIFFERENT, Kind.OPERATORS, "only in the first model"),
        (_custom_operator, Verdict.DIFFERENT, Kind.OPERATORS, "only in the first model"),
        (_other_version_of_the_schema, Verdict.DIFFERENT, Kind.OTHER, "schema version 3 against 4"),
    ],
)
def test_a_change_of_the_computation_is_found_and_named(
    change: Change, verdict: Verdict, kind: Kind, message: str
) -> None:
    """One number, option or operator changes. The verdict fits, and the change is the first that decides it."""
    one = tiny_model("int8")
    comparison = compare(one, edited(one, change))
    assert comparison.verdict is verdict
    assert comparison.decisive[0].kind is kind
    assert message in comparison.decisive[0].what
    assert compare(edited(one, change), one).verdict is verdict


def _renamed(tree: Any) -> None:
    result(tree, "CONV_2D").name = b"another"


def _with_another_description(tree: Any) -> None:
    tree.description = b"Mine."


def _metadata(tree: Any) -> None:
    tree.buffers[tree.metadata[0].buffer].data = np.frombuffer(b"9.9.9", np.uint8)


def _no_metadata(tree: Any) -> None:
    tree.metadata = None


def _unused_code(tree: Any) -> None:
    code(tree, "TANH")


def _other_order_of_codes(tree: Any) -> None:
    tree.operatorCodes.reverse()
    for one in tree.subgraphs[0].operators:
        one.opcodeIndex = len(tree.operatorCodes) - 1 - one.opcodeIndex


def _other_order_of_buffers(tree: Any) -> None:
    last = len(tree.buffers) - 1
    tree.buffers[1:] = tree.buffers[:0:-1]
    for one in (*tree.subgraphs[0].tensors, *tree.metadata):
        one.buffer = one.buffer and last + 1 - one.buffer


def _own_buffer(tree: Any) -> None:
    tensor = operand(tree, "CONV_2D", 1)
    tree.buffers.append(tree.buffers[tensor.buffer])
    tensor.buffer = len(tree.buffers) - 1


def _own_constant(tree: Any) -> None:
    graph, one = tree.subgraphs[0], operator(tree, "CONV_2D")
    graph.tensors.append(graph.tensors[one.inputs[1]])
    one.inputs = [one.inputs[0], len(graph.tensors) - 1, one.inputs[2]]


def _unused_tensor(tree: Any) -> None:
    new_tensor(tree, tree.subgraphs[0].tensors[0], 0, b"nobody")


def _with_signature(tree: Any) -> None:
    signature, names = schema.SignatureDefT(), schema.TensorMapT()
    signature.signatureKey, signature.inputs, signature.outputs = b"serve", [names], [schema.TensorMapT()]
    names.name, names.tensorIndex = b"x", int(tree.subgraphs[0].inputs[0])
    signature.outputs[0].name, signature.outputs[0].tensorIndex = b"y", int(tree.subgraphs[0].outputs[0])
    tree.signatureDefs = [signature]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_renamed, Kind.NAMES),
        (_with_another_description, Kind.METADATA),
        (_metadata, Kind.METADATA),
        (_no_metadata, Kind.METADATA),
        (_with_signature, Kind.METADATA),
        (_unused_code, Kind.LAYOUT),
        (_other_order_of_codes, Kind.LAYOUT),
        (_other_order_of_buffers, Kind.LAYOUT),
        (_own_buffer, Kind.LAYOUT),
        (_own_constant, Kind.LAYOUT),
        (_unused_tensor, Kind.LAYOUT),
    ],
)
def test_a_change_outside_the_computation_keeps_the_content(change: Change, kind: Kind) -> None:
    """Names, descriptions, order or packing change. The verdict is SAME_CONTENT, and the kind of change is counted."""
    one = tiny_model("int8")
    for other in (edited(one, change), edited(one, change, filler=b"12345678")):
        comparison = compare(one, other)
        assert comparison.verdict is Verdict.SAME_CONTENT
        assert kind in comparison.counts


def test_a_file_is_identical_only_to_itself() -> None:
    """The same bytes have no difference. One additional byte at the end is a difference."""
    one = tiny_model("int8")
    assert compare(one, bytes(bytearray(one))).verdict is Verdict.IDENTICAL
    assert compare(one, edited(one, filler=b"12345678")).verdict is Verdict.SAME_CONTENT
    comparison = compare(one, one + b"\0")
    assert comparison.verdict is Verdict.SAME_CONTENT
    assert comparison.decisive[0].what.endswith(f"from byte {len(one)} of {len(one)} and {len(one) + 1}")


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_tensors_does_not_matter(seed: int, small: bytes) -> None:
    """Tensors are paired by the operands that they are, not by their index."""
    order = list(range(len(read_model(small).tensors)))
    random.Random(seed).shuffle(order)
    assert compare(small, permuted(small, order)).verdict is Verdict.SAME_CONTENT

    def change(tree: Any) -> None:
        data(tree, operand(tree, "CONV_2D", 1))[7] += 1

    changed = compare(small, permuted(edited(small, change), order))
    assert (changed.verdict, len(changed.decisive)) == (Verdict.SAME_GRAPH, 1)
    assert changed.decisive[0].elements is not None
    assert changed.decisive[0].elements.first == 7


def test_swapped_operands_of_an_addition_change_the_wiring(small: bytes) -> None:
    """The sum is the same, but the comparison does not know that addition is commutative."""

    def change(tree: Any) -> None:
        one = operator(tree, "ADD")
        one.inputs = one.inputs[::-1]

    comparison = compare(small, edited(small, change))
    assert comparison.verdict is Verdict.DIFFERENT
    assert [one.kind for one in comparison.decisive] == [Kind.WIRING, Kind.WIRING]
    assert "ADD, input 0" in comparison.decisive[0].where


def test_swapped_outputs_of_a_signature_change_the_wiring() -> None:
    """A name in both signatures has to mean the same tensor, because callers use the names."""

    def two_outputs(first: str, second: str) -> bytes:
        def change(tree: Any) -> None:
            graph = tree.subgraphs[0]
            outputs = [int(operator(tree, "CONV_2D").outputs[0]), int(graph.outputs[0])]
            graph.outputs = outputs
            signature = schema.SignatureDefT()
            signature.signatureKey, signature.inputs, signature.outputs = b"serve", [], []
            for name, index in zip((first, second), outputs, strict=True):
                names = schema.TensorMapT()
                names.name, names.tensorIndex = name.encode(), index
                signature.outputs.append(names)
            tree.signatureDefs = [signature]

        return edited(tiny_model("int8"), change)

    assert compare(two_outputs("a", "b"), two_outputs("b", "a")).verdict is Verdict.DIFFERENT
    assert compare(two_outputs("a", "b"), two_outputs("c", "d")).verdict is Verdict.SAME_CONTENT
    assert compare(two_outputs("a", "a"), two_outputs("a", "b")).verdict is Verdict.SAME_CONTENT


def _signature_of_an_inner_tensor(tree: Any) -> None:
    _with_signature(tree)
    tree.signatureDefs[0].outputs[0].tensorIndex = int(operator(tree, "CONV_2D").outputs[0])


def _signature_of_an_inner_tensor_by_another_name(tree: Any) -> None:
    _signature_of_an_inner_tensor(tree)
    tree.signatureDefs[0].outputs[0].name = b"z"


def _signature_without_output(tree: Any) -> None:
    _with_signature(tree)
    tree.signatureDefs[0].outputs = []


@pytest.mark.parametrize(
    "change", [_signature_of_an_inner_tensor, _signature_of_an_inner_tensor_by_another_name, _signature_without_output]
)
def test_a_signature_with_another_output_changes_the_wiring(change: Change) -> None:
    """Its output is not that of the graph, or is missing. The other model has a usual signature or none."""
    plain = tiny_model("int8")
    for one in (plain, edited(plain, _with_signature)):
        for comparison in (compare(one, edited(plain, change)), compare(edited(plain, change), one)):
            assert comparison.verdict is Verdict.DIFFERENT
            assert {each.kind for each in comparison.decisive} == {Kind.WIRING}


def _with_metadata(name: bytes) -> Change:
    def change(tree: Any) -> None:
        entry, buffer = schema.MetadataT(), schema.BufferT()
        buffer.data = np.frombuffer(b"fp16accfp16", np.uint8)
        tree.buffers.append(buffer)
        entry.name, entry.buffer = name, len(tree.buffers) - 1
        tree.metadata.append(entry)

    return change


@pytest.mark.parametrize(
    "name", ["reduced_precision_support", "model_control_dependencies", "OfflineMemoryAllocation", "TFLITE_METADATA"]
)
def test_metadata_that_runtimes_use_is_a_difference(name: str) -> None:
    """It decides the precision, the order of operators, the memory of tensors, or the preprocessing of the input."""
    one = tiny_model("int8")
    comparison = compare(one, edited(one, _with_metadata(name.encode())))
    assert (comparison.verdict, comparison.decisive[0].kind) == (Verdict.DIFFERENT, Kind.OTHER)
    assert compare(one, edited(one, _with_metadata(b"my notes"))).verdict is Verdict.SAME_CONTENT


def test_a_memory_plan_depends_on_the_order_of_tensors() -> None:
    """The same plan with tensors in another order gives them other addresses."""
    one = edited(tiny_model("int8"), _with_metadata(b"OfflineMemoryAllocation"))
    order = list(range(len(read_model(one).tensors)))[::-1]
    assert compare(one, permuted(one, order)).verdict is Verdict.DIFFERENT
    assert compare(one, edited(one, filler=b"12345678")).verdict is Verdict.SAME_CONTENT


def test_compiled_code_after_the_model_is_a_difference() -> None:
    """LiteRT's operator for compiled code refers to bytes after the flatbuffer, so they are part of the model."""

    def change(tree: Any) -> None:
        one = operator(tree, "SOFTMAX")
        one.opcodeIndex = code(tree, "CUSTOM", custom=b"DISPATCH_OP")

    one = edited(tiny_model("int8"), change)
    assert compare(one + b"0", one + b"1").verdict is Verdict.DIFFERENT
    assert compare(one + b"0", one + b"0").verdict is Verdict.IDENTICAL


def test_a_requantized_bias_is_the_same_within_half_a_step() -> None:
    """Another input range changes the scale of a bias, but not its weight. A bias that is off by two steps differs."""

    def rescaled(off: int) -> Change:
        def change(tree: Any) -> None:
            source, bias = operand(tree, "CONV_2D", 0), operand(tree, "CONV_2D", 2)
            source.quantization.scale = source.quantization.scale * np.float32(1.1)
            old = bias.quantization.scale.astype(np.float64)
            bias.quantization.scale = source.quantization.scale * operand(tree, "CONV_2D", 1).quantization.scale
            numbers = data(tree, bias).view(np.int32)
            numbers[:] = np.round(numbers * old / bias.quantization.scale)
            numbers[2] += off

        return change

    def with_bias(tree: Any) -> None:
        data(tree, operand(tree, "CONV_2D", 2)).view(np.int32)[:] = [1000, -77, 12345, 0, -4, 300_000, -1, 1]

    one = edited(tiny_model("int8"), with_bias)
    comparison = compare(one, edited(one, rescaled(0)))
    assert comparison.verdict is Verdict.SAME_WEIGHTS
    assert comparison.counts[Kind.REQUANTIZED] == 1
    comparison = compare(one, edited(one, rescaled(2)))
    assert comparison.verdict is Verdict.SAME_GRAPH
    assert [one.kind for one in comparison.decisive] == [Kind.BIASES]


@pytest.mark.parametrize("factor", [300.0, 1e9])
def test_a_bias_that_a_wide_step_rounds_to_zero_is_another_one(factor: float) -> None:
    """Zero is within half a step of any value if the step is wide enough, so it proves nothing."""

    def small(tree: Any) -> None:
        data(tree, operand(tree, "CONV_2D", 2)).view(np.int32)[:] = [100, -77, 12, 0, -4, 30, -1, 1]

    def widened(tree: Any) -> None:
        source, bias = operand(tree, "CONV_2D", 0), operand(tree, "CONV_2D", 2)
        source.quantization.scale = source.quantization.scale * np.float32(factor)
        bias.quantization.scale = source.quantization.scale * operand(tree, "CONV_2D", 1).quantization.scale
        data(tree, bias)[:] = 0

    one = edited(tiny_model("int8"), small)
    for comparison in (compare(one, edited(one, widened)), compare(edited(one, widened), one)):
        assert comparison.verdict is Verdict.SAME_GRAPH
        assert [each.kind for each in comparison.decisive] == [Kind.BIASES]


def test_a_requantized_bias_that_moves_an_output_is_another_one() -> None:
    """Each bias is within half a step of its old value, but that is many levels of the output."""

    def rough(tree: Any) -> None:
        output = result(tree, "CONV_2D").quantization
        output.scale = output.scale * np.float32(1e-6)
        operand(tree, "FULLY_CONNECTED", 0).quantization.scale = output.scale
        data(tree, operand(tree, "CONV_2D", 2)).view(np.int32)[:] = 5

    def rescaled(tree: Any) -> None:
        source, bias = operand(tree, "CONV_2D", 0), operand(tree, "CONV_2D", 2)
        source.quantization.scale = source.quantization.scale * np.float32(1.2)
        bias.quantization.scale = source.quantization.scale * operand(tree, "CONV_2D", 1).quantization.scale
        data(tree, bias).view(np.int32)[:] = 4

    one = edited(tiny_model("int8"), rough)
    assert Kind.BIASES in compare(one, edited(one, rescaled)).counts


def test_a_range_that_an_operator_passes_on_is_one_range() -> None:
    """Input and output of a RESHAPE get the same new scale. Only the calibration differs."""

    def change(tree: Any) -> None:
        for tensor in (operand(tree, "RESHAPE", 0), result(tree, "RESHAPE")):
            tensor.quantization.scale = [ulp_up(tensor.quantization.scale[0])]

    comparison = compare(tiny_model("int8"), edited(tiny_model("int8"), change))
    assert (comparison.verdict, comparison.counts) == (Verdict.SAME_WEIGHTS, {Kind.RANGES: 2})


def test_float_and_int8_models_are_paired_although_their_types_differ() -> None:
    """The operators are the same, and so are the shapes."""
    comparison = compare(tiny_model("float"), tiny_model("int8"))
    assert comparison.verdict is Verdict.DIFFERENT
    assert comparison.operators == 4
    assert Kind.TYPES in comparison.counts
    assert not {Kind.OPERATORS, Kind.WIRING, Kind.SHAPES} & set(comparison.counts)


def with_float_ends(tree: Any) -> None:
    """Adds QUANTIZE before the first operator, and DEQUANTIZE after the last."""
    graph = tree.subgraphs[0]
    first, last = int(graph.inputs[0]), int(graph.outputs[0])
    source = new_tensor(tree, graph.tensors[first], schema.TensorType.FLOAT32, b"float in")
    sink = new_tensor(tree, graph.tensors[last], schema.TensorType.FLOAT32, b"float out")
    insert(tree, 0, code(tree, "QUANTIZE"), [source], [first])
    insert(tree, len(graph.operators), code(tree, "DEQUANTIZE", 2), [last], [sink])
    graph.inputs, graph.outputs = [source], [sink]


@pytest.mark.parametrize("kind", ["tiny", "small"])
def test_conversions_at_the_ends_are_reported_and_the_rest_is_paired(kind: str, small: bytes) -> None:
    """A model with float input and output is DIFFERENT. Apart from its ends it has the same content."""
    one = tiny_model("int8") if kind == "tiny" else small
    for first, second in ((one, edited(one, with_float_ends)), (edited(one, with_float_ends), one)):
        comparison = compare(first, second)
        assert comparison.verdict is Verdict.DIFFERENT
        assert comparison.counts[Kind.CONVERSIONS] == 2
        assert comparison.apart_from_ends is Verdict.SAME_CONTENT

    def both(tree: Any) -> None:
        with_float_ends(tree)
        _weight(tree)

    comparison = compare(one, edited(one, both))
    assert comparison.apart_from_ends is Verdict.SAME_GRAPH
    assert compare(edited(one, with_float_ends), edited(one, both)).verdict is Verdict.SAME_GRAPH


def with_uint8_ends(tree: Any) -> None:
    """Adds QUANTIZE before the first operator and after the last."""
    with_float_ends(tree)
    graph = tree.subgraphs[0]
    graph.operators[-1].opcodeIndex = code(tree, "QUANTIZE")
    for tensor in (graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]):
        tensor.type = schema.TensorType.UINT8


def _additional_unread_operator(tree: Any) -> None:
    with_uint8_ends(tree)
    graph = tree.subgraphs[0]
    dead = new_tensor(tree, graph.tensors[graph.inputs[0]], schema.TensorType.INT8, b"dead")
    insert(tree, 0, code(tree, "QUANTIZE"), [int(graph.inputs[0])], [dead])


def _only_an_unread_operator(tree: Any) -> None:
    graph = tree.subgraphs[0]
    dead = new_tensor(tree, graph.tensors[graph.inputs[0]], schema.TensorType.INT8, b"dead")
    insert(tree, 0, code(tree, "QUANTIZE"), [int(graph.inputs[0])], [dead])


def _end_of_another_shape(tree: Any) -> None:
    with_uint8_ends(tree)
    graph = tree.subgraphs[0]
    graph.tensors[graph.inputs[0]].shape = [1, 8, 8, 4]


def test_conversions_to_and_from_uint8_are_ends() -> None:
    """QUANTIZE at both ends converts uint8 to int8 and back."""
    one = tiny_model("int8")
    comparison = compare(one, edited(one, with_uint8_ends))
    assert (comparison.counts[Kind.CONVERSIONS], comparison.apart_from_ends) == (2, Verdict.SAME_CONTENT)
    assert Kind.OPERATORS not in comparison.counts


@pytest.mark.parametrize("change", [_additional_unread_operator, _only_an_unread_operator, _end_of_another_shape])
def test_an_operator_that_does_not_convert_the_input_is_not_an_end(change: Change) -> None:
    """A second operator at the same input, one whose output is not read, and one that would change the shape."""
    one = tiny_model("int8")
    for comparison in (compare(one, edited(one, change)), compare(edited(one, change), one)):
        assert Kind.OPERATORS in comparison.counts
        assert comparison.apart_from_ends in (None, Verdict.DIFFERENT)


def test_operators_in_only_one_model_are_named_and_the_others_paired() -> None:
    """The operators before and after an inserted GATHER are still paired."""
    comparison = compare(tiny_model("int8"), tiny_model("gather"))
    assert comparison.verdict is Verdict.DIFFERENT
    inserted = [one for one in comparison.differences if one.kind is Kind.OPERATORS]
    assert [(one.where, one.what) for one in inserted] == [("operator 1 GATHER", "only in the second model")]
    assert comparison.operators == 4
    assert comparison.apart_from_ends is None


def test_custom_operators_are_compared_by_their_name_and_options(finished_build: Request) -> None:
    """The command stream of an Ethos-U model is not a weight, so one changed bit makes the models DIFFERENT."""
    one = model("vela", finished_build)
    assert compare(one, edited(one)).verdict is Verdict.SAME_CONTENT

    def stream(tree: Any) -> None:
        data(tree, tree.subgraphs[0].tensors[tree.subgraphs[0].operators[0].inputs[0]])[40] ^= 1

    def options(tree: Any) -> None:
        tree.subgraphs[0].operators[0].customOptions = np.array([1, 4, 2], np.uint8)

    for change, kind in ((stream, Kind.OPERANDS), (options, Kind.OPTIONS)):
        comparison = compare(one, edited(one, change))
        assert (comparison.verdict, comparison.decisive[0].kind) == (Verdict.DIFFERENT, kind)
    assert "operator 0 ethos-u" in comparison.decisive[0].where


def test_a_field_unknown_to_the_schema_is_never_the_same_content() -> None:
    """Two files with a field of a later schema may differ in it, even if everything else is equal."""

    def file(value: int) -> bytes:
        one = tiny_model("int8")
        root = struct.unpack_from("<I", one)[0]
        layout = root - struct.unpack_from("<i", one, root)[0]
        slots = struct.unpack_from(f"<{struct.unpack_from('<H', one, layout)[0] // 2 - 2}H", one, layout + 4)
        builder = flatbuffers.Builder()
        builder.StartObject(12)
        builder.PrependInt32Slot(11, value, 0)
        builder.Finish(builder.EndObject())
        # The simplest way is a new root table at the front, whose shared fields point into the old model.
        fields = [slot for slot, offset in enumerate(slots) if offset]
        body, places = b"", [0] * 12
        for slot in (*fields, 11):
            places[slot] = 4 + len(body)
            body += bytes(4)
        size = 4 + len(body)
        head = struct.pack("<I4s", 8 + 28, b"TFL3") + struct.pack("<14H", 28, size, *places) + struct.pack("<i", 28)
        filled = bytearray(head + body)
        for slot in fields:
            at = 36 + places[slot]
            old = root + slots[slot]
            stored = struct.unpack_from("<I", one, old)[0]
            target = stored if slot == 0 else len(filled) + old + stored - at
            struct.pack_into("<I", filled, at, target)
        struct.pack_into("<I", filled, 36 + places[11], value)
        return bytes(filled) + one

    assert read_model(file(5)).operators == read_model(tiny_model("int8")).operators
    comparison = compare(file(5), file(6))
    assert comparison.verdict is Verdict.DIFFERENT
    assert comparison.decisive[0].what == "the first model has Model field 11, which this schema does not know"
    assert compare(file(5), file(5)).verdict is Verdict.IDENTICAL


def test_numbers_are_compared_bit_by_bit() -> None:
    """-0.0 differs from 0.0, and NaN differs from everything."""
    assert same((1.5, 0.0, None, "a"), (1.5, 0.0, None, "a"))
    assert not same(0.0, -0.0)
    assert not same((float("nan"),), (float("nan"),))


@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=400)
def test_the_verdict_on_a_flipped_bit_is_true(position: float, bit: int) -> None:
    """SAME_CONTENT requires that a second, independent reader finds the same numbers."""
    assert_true_verdict(tiny_model("int8"), int(position * len(tiny_model("int8"))), bit)


@pytest.mark.slow
def test_the_verdict_on_every_flipped_bit_of_a_model_is_true() -> None:
    """The test above, for every bit of the model."""
    one = tiny_model("int8")
    for position in range(len(one)):
        for bit in range(8):
            assert_true_verdict(one, position, bit)


def assert_true_verdict(one: bytes, position: int, bit: int) -> None:
    """Requires that the verdict on a flipped bit claims nothing false."""
    flipped = bytearray(one)
    flipped[position] ^= 1 << bit
    try:
        comparison = compare(one, bytes(flipped))
    except InputError:
        return
    assert comparison.verdict is not Verdict.IDENTICAL
    assert comparison.verdict is not Verdict.CONSISTENT
    assert comparison.decisive
    json.dumps(comparison_json(comparison), allow_nan=False)
    if comparison.verdict is Verdict.SAME_CONTENT:
        assert computed(bytes(flipped)) == computed(one), f"byte {position} bit {bit}"


@pytest.mark.shared
def test_two_calibrations_of_one_checkpoint_have_the_same_weights(shared: Path) -> None:
    """In the stand-ins for published files, the graph and all weights agree. Ranges and the scales of biases differ."""
    one, two = ((shared / "published" / f"calibration-unknown-{which}.tflite").read_bytes() for which in "ab")
    comparison = compare(one, two)
    assert comparison.verdict is Verdict.SAME_WEIGHTS
    assert set(comparison.counts) == {Kind.RANGES, Kind.REQUANTIZED}
    assert (comparison.operators, comparison.tensors) == (66, 174)


@pytest.fixture
def pair_of_files(tmp_path: Path) -> tuple[Path, Path]:
    """A model, and one with another zero point."""
    one, two = tmp_path / "one.tflite", tmp_path / "two.tflite"
    one.write_bytes(tiny_model("int8"))
    two.write_bytes(edited(tiny_model("int8"), _zero_point))
    return one, two


def test_the_status_is_0_only_for_the_accepted_verdict(pair_of_files: tuple[Path, Path]) -> None:
    """The default requires identical bytes. A weaker verdict is a result with status 1 and without an error."""
    one, two = pair_of_files
    assert run("diff", one, one).returncode == 0
    result = run("diff", one, two)
    assert (result.returncode, result.stderr) == (1, "")
    assert "\nSAME_WEIGHTS: " in result.stdout
    assert "\nranges\toperator 2 FULLY_CONNECTED, output 0" in result.stdout
    assert result.stdout.endswith("Required verdict: IDENTICAL. To accept this one: --accept SAME_WEIGHTS\n")
    result = run("diff", one, two, "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "")
    for accepted, status in (("SAME_CONTENT", 1), ("same_weights", 0), ("SAME_GRAPH", 0), ("DIFFERENT", 0)):
        assert run("diff", one, two, "--accept", accepted, "--quiet").returncode == status
    assert run("diff", one, two, "--accept", "CONSISTENT").returncode == 2
    assert tuple(each.name for each in Verdict if each is not Verdict.CONSISTENT) == ACCEPTED


def test_json_contains_every_difference_and_both_digests(pair_of_files: tuple[Path, Path]) -> None:
    """Each difference has the values of both models."""
    result = run("diff", *pair_of_files, "--json", "--accept", "SAME_WEIGHTS")
    document = json.loads(result.stdout)
    assert (document["verdict"], document["asked"], document["status"]) == ("SAME_WEIGHTS", "SAME_WEIGHTS", 0)
    assert [len(file["sha1"]) for file in document["files"]] == [40, 40]
    (difference,) = document["differences"]
    (before,) = difference["one"]["zero_points"]
    assert difference["two"]["zero_points"] == [before + 1]


def test_tables_are_bounded_and_contain_no_control_characters(tmp_path: Path) -> None:
    """Tensor names from a file must not control the terminal, and long names must not flood it."""

    def change(tree: Any) -> None:
        for number, tensor in enumerate(tree.subgraphs[0].tensors):
            tensor.name = b"\x1b[2J\r\nred" + bytes([48 + number]) * 5000
        _weight(tree)

    one, two = tmp_path / "one.tflite", tmp_path / "two.tflite"
    one.write_bytes(edited(tiny_model("int8"), change))
    two.write_bytes(tiny_model("gather"))
    result = run("diff", one, two)
    assert result.returncode == 1
    assert "\x1b" not in result.stdout + result.stderr
    assert len(result.stdout) < 20_000
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing", None, ("missing", "No such file")),
        ("empty", b"", ("an empty file",)),
        ("pointer", b"version https://git-lfs.github.com/spec/v1\n", ("a Git LFS pointer",)),
        ("page", b"<html></html>", ("an HTML page",)),
        ("cut", tiny_model, ("damaged or truncated",)),
        ("folder", "folder", ("a folder",)),
    ],
)
def test_a_file_that_is_not_a_model_is_bad_input(
    name: str, content: Any, words: tuple[str, ...], pair_of_files: tuple[Path, Path]
) -> None:
    """The error is one line with status 3, for either of the two files."""
    good = pair_of_files[0]
    bad = good.parent / name
    if content == "folder":
        bad.mkdir()
    elif content is not None:
        bad.write_bytes(content if isinstance(content, bytes) else content("int8")[: len(content("int8")) // 2])
    for files in ((bad, good), (good, bad)):
        assert_one_error(run("diff", *files), 3, str(bad), *words)


def test_diff_imports_no_tensorflow(pair_of_files: tuple[Path, Path]) -> None:
    """Importing TensorFlow would take seconds, and the whole command takes less than one."""
    script = (
        "import sys, runpy; sys.argv[0] = 'pipeline'\n"
        "try: runpy.run_module('pipeline', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    command = [sys.executable, "-c", script, "diff", *map(str, pair_of_files)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    loaded = set(result.stdout.splitlines()[-1].split())
    assert {"numpy", "ai_edge_litert"} <= loaded
    assert not loaded & {"tensorflow", "ethosu", "cv2", "jax"}

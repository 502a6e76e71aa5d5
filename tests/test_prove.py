"""Comparing published files with a checkpoint: proved byte for byte if they come from it, refuted if they do not."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.console import NoBars
from pipeline.interface.views import prove as prove_view
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from recreate_model.compare.verdict import Verdict
from recreate_model.network import architecture, seeded
from recreate_model.network.layer import fold, is_folded
from recreate_model.network.spec import MOBILENET_V2
from recreate_model.prove import consistency, toolchain
from recreate_model.prove.channels import FACTOR_ULPS, convolutions, factors, from_channels
from recreate_model.prove.prove import OURS, Checkpoint, Proof, prove
from recreate_model.prove.recover import recover
from recreate_model.prove.toolchain import Edits, Job, Toolchain
from recreate_model.quantize import convert
from recreate_model.quantize.quantizer import Generation
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_file
from recreate_model.support.errors import InputError
from recreate_model.tflite.model_view import read_model
from tests import official_layout
from tests.conftest import SMALL
from tests.edited_models import edited, operator, result
from tests.published_models import Order, publish
from tests.test_bad_input import assert_one_error, run

TODAY = Toolchain("", "new")
LAYERS = architecture.layers(SMALL)
TARGET = Order("one picture")
ORDERS = [TARGET, Order("black", "float32"), Order("shrunk"), Order("noise", "uint8", "old")]
Values = Mapping[str, Array]


@pytest.fixture(scope="module")
def checkpoint(small_archive: Path) -> Checkpoint:
    """An archive in the official layout, read as the command line reads it."""
    request = Request(model="0.35_96", checkpoint=str(small_archive), images="procedural", calib=1, limit=0)
    recipe, machine = resolve(request, NoBars(), may_fetch=False)
    return prove_view.checkpoint(recipe, machine.checkpoint)


@pytest.fixture(scope="module")
def published(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[Order, bytes]:
    """Models that current TensorFlow makes from the archive's frozen graph, calibrated on inputs that `prove` lacks."""
    assert checkpoint.frozen_graph is not None
    return publish(checkpoint.frozen_graph, SMALL, ORDERS, tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def target(published: dict[Order, bytes]) -> bytes:
    """The published file that tests tamper with."""
    return published[TARGET]


def proved(model: bytes, checkpoint: Checkpoint) -> Proof:
    """Returns the proof, with current TensorFlow as a toolchain where it fits."""
    return prove(
        model, "the model", checkpoint, None, lambda chain: toolchain.ensure(chain, Path("/nonexistent"), print)
    )


def refuted(model: bytes, checkpoint: Checkpoint) -> Proof:
    """Returns the proof, after a check that it refutes the file without trying a toolchain."""
    found = proved(model, checkpoint)
    assert found.refutations
    assert not found.verdict.reaches(Verdict.CONSISTENT)
    assert [attempt.toolchain for attempt in found.attempts] == [OURS]
    return found


def in_place(model: bytes, old: bytes, new: bytes) -> bytes:
    """Returns the file with `old`, which occurs once, replaced by `new` of the same length."""
    assert model.count(old) == 1
    assert len(old) == len(new)
    return model.replace(old, new)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_a_file_converted_from_the_checkpoint_is_proved_byte_for_byte(
    order: Order, published: dict[Order, bytes], checkpoint: Checkpoint
) -> None:
    """For any calibration inputs, the checkpoint gives its bytes; on the same CPU no factor needs to be moved."""
    found = proved(published[order], checkpoint)
    assert found.verdict is Verdict.IDENTICAL
    assert found.refutations == ()
    last = found.attempts[-1]
    assert (last.toolchain, last.identical, last.corrections) == (
        replace(TODAY, quantizer=order.quantizer).name,
        True,
        None,
    )


def test_a_build_of_seeded_weights_is_proved_without_a_toolchain(small_weights: Values, small_float: bytes) -> None:
    """Without a frozen graph no toolchain can run, and none is needed."""
    names = convert.activations_with_a_range(small_float)
    model = convert.quantize(
        small_float,
        {name: (-1.0 - index, 2.0) if "Relu6" not in name else (0.0, 6.0) for index, name in enumerate(names)},
    )
    found = proved(model, Checkpoint(SMALL, small_weights, None))
    assert found.verdict is Verdict.IDENTICAL
    assert [attempt.toolchain for attempt in found.attempts] == [OURS]
    assert not found.has_graph


def test_an_impossible_range_in_an_identical_file_is_a_remark(
    small_weights: Values, small_float: bytes, small_archive: Path, tmp_path: Path
) -> None:
    """A build from an invented range table is IDENTICAL; a ReLU6 range up to 8 is a remark in every output."""
    names = convert.activations_with_a_range(small_float)
    spans = {name: (0.0 if "Relu6" in name else -6.0, 6.0) for name in names}
    odd = next(name for name in names if "Relu6" in name)
    model = convert.quantize(small_float, {**spans, odd: (0.0, 8.0)})
    found = proved(model, Checkpoint(SMALL, small_weights, None))
    assert (found.verdict, found.refutations) == (Verdict.IDENTICAL, ())
    (remark,) = found.remarks
    assert (remark.tensor.split(";")[0], remark.what) == (odd, "range")
    assert remark.found.startswith("0 to 8.0")
    (tmp_path / "published.tflite").write_bytes(model)
    document = json_result(*flags(tmp_path / "published.tflite", small_archive, "--accept", "identical"))
    assert (document["status"], document["verdict"], document["refutations"]) == (0, "IDENTICAL", [])
    assert document["remarks"] == [asdict(remark)]
    said = str(prove_view.blocks(document))
    assert "1 number that no calibration gives" in said
    assert "IDENTICAL: byte for byte the same, but no pictures give such ranges." in said
    assert proved(convert.quantize(small_float, spans), Checkpoint(SMALL, small_weights, None)).remarks == ()


def test_a_widened_scale_is_proved_without_a_remark(small_weights: Values) -> None:
    """A channel with small weights and a large bias has a larger scale than its largest weight requires."""
    values = {name: value.copy() for name, value in small_weights.items()}
    assert not LAYERS[2].depthwise
    values[LAYERS[2].weights_name][..., 1] *= np.float32(1e-8)
    values[f"{LAYERS[2].name}/BatchNorm/beta"][1] = 50
    found = proved(built(values), Checkpoint(SMALL, values, None))
    assert not any(layer.refutations for layer in found.layers)
    assert (found.verdict, found.refutations, found.remarks) == (Verdict.IDENTICAL, (), ())


def folded_elsewhere(checkpoint: Checkpoint, model: bytes, shifts: list[Callable[[int], Array]]) -> list[bytes]:
    """Returns files as other CPUs would make them: current TensorFlow on constants with moved folding factors.

    Args:
        checkpoint: with a frozen graph.
        model: the file that this CPU makes.
        shifts: for each file, a function from a number of channels to the ulps to move each factor by.
    """
    view = read_model(model)
    spans = np.array([each.span or (0.0, 1.0) for each in recover(view, "the model").activations], np.float32)
    attempts = []
    for shift in shifts:
        constants = []
        for convolution, layer in zip(convolutions(view), LAYERS, strict=True):
            given = factors(layer, checkpoint.values)
            folds = not is_folded(layer, checkpoint.values)
            moved = shift(layer.outputs) if folds else np.zeros(layer.outputs, int)
            weights, bias = given.fold(moved)
            shape = view.tensors[convolution.inputs[1]].shape
            constants.append((from_channels(weights, shape, convolution), bias))
        attempts.append(Edits(spans, constants))
    assert checkpoint.frozen_graph is not None
    shape = (1, SMALL.resolution, SMALL.resolution, 3)
    job = Job(
        checkpoint.frozen_graph, MOBILENET_V2.input_name, MOBILENET_V2.output_name, shape, "int8", "int8", attempts
    )
    return list(toolchain.convert(TODAY, Path(sys.executable), job).models)


@pytest.fixture(scope="module")
def elsewhere(checkpoint: Checkpoint, target: bytes) -> dict[int, bytes]:
    """Files by the largest difference of their folding factors in ulps; with 12, every factor differs by 12."""
    generator = np.random.default_rng(4)
    within = [lambda count, most=most: generator.integers(-most, most + 1, count) for most in (2, 5)]
    models = folded_elsewhere(checkpoint, target, [*within, lambda count: np.full(count, 12)])
    return dict(zip((2, 5, 12), models, strict=True))


@pytest.mark.parametrize("ulps", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_a_file_made_on_another_cpu_is_proved_by_moving_factors(
    ulps: int, elsewhere: dict[int, bytes], target: bytes, checkpoint: Checkpoint
) -> None:
    """Factors moved within the tolerance give its bytes, and the proof counts what was moved."""
    assert elsewhere[ulps] != target
    found = proved(elsewhere[ulps], checkpoint)
    assert found.verdict is Verdict.IDENTICAL
    moves = found.attempts[-1].corrections
    assert moves is not None
    assert 0 < moves.channels <= moves.of == sum(layer.outputs for layer in LAYERS if layer.batch_norm)
    assert 0 < moves.ulps <= FACTOR_ULPS
    assert moves.weights > 0
    assert moves.scales > 0


def test_factors_beyond_the_tolerance_are_refuted(elsewhere: dict[int, bytes], checkpoint: Checkpoint) -> None:
    """No CPU is off by 12 ulps."""
    refuted(elsewhere[12], checkpoint)


def test_another_checkpoint_is_refuted(target: bytes, checkpoint: Checkpoint) -> None:
    """The same network with other weights is refuted by every layer, from the first convolution on."""
    other = Checkpoint(SMALL, seeded.seeded_weights(SMALL, seed=1), None)
    found = refuted(target, other)
    assert found.refutations[0].tensor == weights_name(target, 0)
    assert {layer.refutations != () for layer in found.layers} == {True}


def weights_name(model: bytes, number: int) -> str:
    """Returns the name of the weights of a convolution."""
    view = read_model(model)
    return view.tensors[convolutions(view)[number].inputs[1]].name


def built(values: Values) -> bytes:
    """Returns this project's model of the weights, with range 0..6 for each ReLU6 and -6..6 otherwise."""
    float_model = convert.convert_float(architecture.frozen_graph(SMALL, values))
    names = convert.activations_with_a_range(float_model)
    return convert.quantize(float_model, {name: (0.0 if "Relu6" in name else -6.0, 6.0) for name in names})


def test_raw_variables_instead_of_averages_are_refuted(small_weights: Values, checkpoint: Checkpoint) -> None:
    """The archive's raw variables differ from its averages by 2 %."""
    raw = {
        name: value if "moving_" in name else value * official_layout.RAW_OFF_BY
        for name, value in small_weights.items()
    }
    model = built(raw)
    found = refuted(model, checkpoint)
    assert found.refutations[0].tensor == weights_name(model, 0)
    assert built(small_weights) != model
    assert proved(built(small_weights), checkpoint).verdict is Verdict.IDENTICAL


@pytest.mark.parametrize("part", ["gamma", "beta", "moving_mean", "moving_variance"])
def test_one_variable_slightly_off_is_refuted(part: str, small_weights: Values, checkpoint: Checkpoint) -> None:
    """One vector changes by a ten-thousandth, and only its layer is refuted."""
    name = f"MobilenetV2/expanded_conv_3/expand/BatchNorm/{part}"
    found = refuted(built({**small_weights, name: small_weights[name] * np.float32(1.0001)}), checkpoint)
    (number,) = (number for number, layer in enumerate(found.layers) if layer.refutations)
    assert LAYERS[number].name == "MobilenetV2/expanded_conv_3/expand"


@settings(max_examples=60)
@given(data=st.data())
def test_one_weight_off_by_one_is_refuted_or_lies_on_a_tie(
    data: st.DataObject, target: bytes, checkpoint: Checkpoint
) -> None:
    """For any weight. A change that passes is halfway between two levels, within the tolerance of a CPU's factor."""
    view = read_model(target)
    number = data.draw(st.integers(0, len(LAYERS) - 1), "convolution")
    convolution = convolutions(view)[number]
    index = convolution.inputs[1]
    tensor = view.tensors[index]
    levels = np.frombuffer(tensor.data, np.int8).copy()
    position = data.draw(st.integers(0, len(levels) - 1), "weight")
    before = int(levels[position])
    levels[position] += data.draw(st.sampled_from([-1, 1])) if abs(before) < 127 else -np.sign(before)
    changed = replace(tensor, data=levels.tobytes())
    tensors = (*view.tensors[:index], changed, *view.tensors[index + 1 :])
    compared = consistency.compare(replace(view, tensors=tensors), LAYERS, checkpoint.values, Generation.TODAY)
    assert not any(layer.refutations for other, layer in enumerate(compared) if other != number)
    if compared[number].refutations:
        assert compared[number].refutations[0].tensor == tensor.name
        return
    folded = fold(LAYERS[number], checkpoint.values).weights.astype(np.float64)
    if convolution.name != "DEPTHWISE_CONV_2D":
        folded = np.moveaxis(folded, 3, 0)
    assert tensor.quantization is not None
    channel = np.unravel_index(position, tensor.shape)[tensor.quantization.axis]
    exact = folded.ravel()[position] / tensor.quantization.scales[channel]
    halfway = (before + int(levels[position])) / 2
    assert abs(exact - halfway) <= abs(exact) * (FACTOR_ULPS + 4) * 2.0**-23


@settings(max_examples=4)
@given(data=st.data())
def test_one_weight_with_the_other_sign_is_refuted_by_prove(
    data: st.DataObject, target: bytes, checkpoint: Checkpoint
) -> None:
    """One byte of the file changes; the verdict is SAME_GRAPH, and the refutation names the tensor."""
    view = read_model(target)
    tensor = view.tensors[convolutions(view)[data.draw(st.integers(0, len(LAYERS) - 1), "convolution")].inputs[1]]
    levels = np.frombuffer(tensor.data, np.int8).copy()
    position = data.draw(st.sampled_from(np.flatnonzero(np.abs(levels) > 1).tolist()), "weight")
    levels[position] *= -1
    found = refuted(in_place(target, tensor.data, levels.tobytes()), checkpoint)
    assert found.verdict is Verdict.SAME_GRAPH
    assert found.refutations[0].tensor == tensor.name
    assert found.refutations[0].found == str(levels[position])


Change = Callable[[Any], None]


def tampered(model: bytes, change: Change) -> bytes:
    """Returns the model after `change` has edited its object tree; scales and zero points are writable."""

    def thaw_and_change(tree: Any) -> None:
        for tensor in tree.subgraphs[0].tensors:
            quantization = tensor.quantization
            if quantization is not None and quantization.scale is not None:
                quantization.scale, quantization.zeroPoint = quantization.scale.copy(), quantization.zeroPoint.copy()
        change(tree)

    return edited(model, thaw_and_change)


def _array(tree: Any, tensor: Any, dtype: str) -> Array:
    """Returns the numbers of a constant, writable in place."""
    buffer = tree.buffers[tensor.buffer]
    buffer.data = buffer.data.copy()
    return np.asarray(buffer.data).view(dtype)


def _operands(tree: Any) -> list[Any]:
    """Returns input, weights and bias of the first convolution."""
    return [tree.subgraphs[0].tensors[index] for index in operator(tree, "CONV_2D").inputs]


def _swapped_channels(tree: Any) -> None:
    _, weights, bias = _operands(tree)
    for values in (_array(tree, weights, "int8").reshape(16, -1), _array(tree, bias, "int32")):
        values[[3, 5]] = values[[5, 3]]
    for tensor in (weights, bias):
        tensor.quantization.scale[[3, 5]] = tensor.quantization.scale[[5, 3]]


def _bias(tree: Any) -> None:
    _, _, bias = _operands(tree)
    _array(tree, bias, "int32")[7] += 3


def _weight_scale(tree: Any) -> None:
    _, weights, bias = _operands(tree)
    for tensor in (weights, bias):
        tensor.quantization.scale[2] *= np.float32(1.0001)


def _bias_scale(tree: Any) -> None:
    _operands(tree)[2].quantization.scale[2] *= np.float32(1.0001)


def _zero_scale(tree: Any) -> None:
    for tensor in _operands(tree)[1:]:
        tensor.quantization.scale[2] = 0


def _negative_scale(tree: Any) -> None:
    for tensor in _operands(tree)[1:]:
        tensor.quantization.scale[2] *= -1


def _weight_zero_point(tree: Any) -> None:
    _operands(tree)[1].quantization.zeroPoint[2] = 1


def _bias_zero_point(tree: Any) -> None:
    _operands(tree)[2].quantization.zeroPoint[2] = 1


def _per_tensor(tree: Any) -> None:
    for tensor in _operands(tree)[1:]:
        tensor.quantization.scale = tensor.quantization.scale[:1]
        tensor.quantization.zeroPoint = tensor.quantization.zeroPoint[:1]


def _least_weight(tree: Any) -> None:
    _, weights, _ = _operands(tree)
    values = _array(tree, weights, "int8")
    values[values == -127] = -128


def _relu6_zero_point(tree: Any) -> None:
    result(tree, "CONV_2D").quantization.zeroPoint[0] = -127


def _relu6_scale(tree: Any) -> None:
    graph = tree.subgraphs[0]
    first = operator(tree, "CONV_2D")
    graph.tensors[first.outputs[0]].quantization.scale *= np.float32(2)
    following = next(one for one in graph.operators if one.inputs[0] == first.outputs[0])
    graph.tensors[following.inputs[2]].quantization.scale *= np.float32(2)
    bias = _array(tree, graph.tensors[following.inputs[2]], "int32")
    bias[:] = np.rint(bias / 2)


def _pool_scale(tree: Any) -> None:
    result(tree, "AVERAGE_POOL_2D").quantization.scale *= np.float32(1.5)


def _softmax_zero_point(tree: Any) -> None:
    result(tree, "SOFTMAX").quantization.zeroPoint[0] = -127


def _stride(tree: Any) -> None:
    operator(tree, "CONV_2D").builtinOptions.strideW = 1


def _padding(tree: Any) -> None:
    operator(tree, "DEPTHWISE_CONV_2D").builtinOptions.padding = 1


def _activation(tree: Any) -> None:
    operator(tree, "CONV_2D").builtinOptions.fusedActivationFunction = 0


def _wiring(tree: Any) -> None:
    # Adds one operand to itself: the same shape, another tensor.
    one = operator(tree, "ADD")
    one.inputs = [one.inputs[0], one.inputs[0]]


def _beta(tree: Any) -> None:
    operator(tree, "SOFTMAX").builtinOptions.beta = 2.0


def _dead_bias(tree: Any) -> None:
    _, _, bias = _operands(tree)
    _array(tree, bias, "int32")[:] = 0


@pytest.mark.parametrize(
    ("change", "tensor", "what"),
    [
        (_swapped_channels, "weights", "of channel 3"),
        (_bias, "bias", "bias of channel 7"),
        (_dead_bias, "bias", "bias of channel 0"),
        (_weight_scale, "weights", "of channel 2"),
        (_bias_scale, "bias", "scale of channel 2"),
        (_zero_scale, "weights", "of channel 2"),
        (_negative_scale, "weights", "of channel 2"),
        (_weight_zero_point, "weights", "zero point"),
        (_bias_zero_point, "bias", "zero point"),
        (_per_tensor, "weights", "weights"),
        (_least_weight, "weights", "weight"),
        (_relu6_zero_point, "output", "range"),
        (_relu6_scale, "output", "range"),
        (_pool_scale, "AvgPool", "AVERAGE_POOL_2D"),
        (_softmax_zero_point, "", "SOFTMAX"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_changed_number_is_refuted_by_name(
    change: Change, tensor: str, what: str, target: bytes, checkpoint: Checkpoint
) -> None:
    """Channels, biases, scales or zero points change; the first refutation names the change."""
    found = refuted(tampered(target, change), checkpoint)
    # A scale that the operator fixes, or copies from its input, is part of the graph.
    inherited = change in (_pool_scale, _softmax_zero_point)
    assert found.verdict is (Verdict.DIFFERENT if inherited else Verdict.SAME_GRAPH)
    view = read_model(target)
    first = convolutions(view)[0]
    places = {"weights": first.inputs[1], "bias": first.inputs[2], "output": first.outputs[0]}
    name = view.tensors[places[tensor]].name if tensor in places else tensor
    assert name in found.refutations[0].tensor
    assert what in found.refutations[0].what


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_stride, "stride_w"),
        (_padding, "padding"),
        (_activation, "fused_activation_function"),
        (_wiring, "tensor"),
        (_beta, "beta"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_another_computation_is_refuted_before_any_number(
    change: Change, words: str, target: bytes, checkpoint: Checkpoint
) -> None:
    """An option or an input of an operator changes; the first refutation names the operator."""
    found = refuted(tampered(target, change), checkpoint)
    assert found.verdict is Verdict.DIFFERENT
    assert found.refutations[0].expected == "another graph"
    assert words in found.refutations[0].found
    assert " of operator " in found.refutations[0].what


def _no_buffers(tree: Any) -> None:
    for tensor in tree.subgraphs[0].tensors:
        tensor.buffer = 0


def _shared_buffer(tree: Any) -> None:
    # Two biases of sixteen channels; the second convolution has as many as the first.
    graph = tree.subgraphs[0]
    one, two = (operator(tree, name).inputs[2] for name in ("CONV_2D", "DEPTHWISE_CONV_2D"))
    graph.tensors[two].buffer = graph.tensors[one].buffer


def _float_weights(tree: Any) -> None:
    _, weights, _ = _operands(tree)
    weights.type = schema.TensorType.FLOAT32
    tree.buffers[weights.buffer].data = np.zeros(4 * len(tree.buffers[weights.buffer].data), np.uint8)


def _wide_bias(tree: Any) -> None:
    _, _, bias = _operands(tree)
    bias.type = schema.TensorType.INT64
    tree.buffers[bias.buffer].data = np.zeros(2 * len(tree.buffers[bias.buffer].data), np.uint8)


def _sparse(operand: int) -> Change:
    def change(tree: Any) -> None:
        tensor = _operands(tree)[operand]
        tensor.sparsity = schema.SparsityParametersT()
        tree.buffers[tensor.buffer].data = tree.buffers[tensor.buffer].data[:10]

    return change


def _unscaled_weights(tree: Any) -> None:
    _operands(tree)[1].quantization = None


def _unscaled_bias(tree: Any) -> None:
    _operands(tree)[2].quantization = None


def _every_scale(size: float) -> Change:
    def change(tree: Any) -> None:
        for tensor in _operands(tree)[1:]:
            tensor.quantization.scale[:] = size

    return change


def _sum_scale(size: float) -> Change:
    def change(tree: Any) -> None:
        result(tree, "ADD").quantization.scale[0] = size

    return change


def _input_without_scale(tree: Any) -> None:
    _operands(tree)[0].quantization.scale[0] = 0


def _zero_point_beyond_int8(tree: Any) -> None:
    result(tree, "ADD").quantization.zeroPoint[0] = 2**40


def _recorded(low: float, high: float) -> Change:
    def change(tree: Any) -> None:
        quantization = result(tree, "ADD").quantization
        quantization.min, quantization.max = np.array([low], np.float32), np.array([high], np.float32)

    return change


def _one_operand_more(tree: Any) -> None:
    one = operator(tree, "ADD")
    one.inputs = [*one.inputs, one.inputs[1]]


def _one_operand_less(tree: Any) -> None:
    one = operator(tree, "ADD")
    one.inputs = one.inputs[:1]


def _no_shape_to_reshape_to(tree: Any) -> None:
    one = operator(tree, "RESHAPE")
    one.inputs = one.inputs[:1]


def _weights_as_output(tree: Any) -> None:
    tree.subgraphs[0].outputs = [operator(tree, "CONV_2D").inputs[1]]


@pytest.mark.parametrize(
    "change",
    [
        _no_buffers,
        _shared_buffer,
        _float_weights,
        _wide_bias,
        _sparse(1),
        _sparse(2),
        _unscaled_weights,
        _unscaled_bias,
        _every_scale(1e-45),
        _every_scale(3e38),
        _sum_scale(3e38),
        _sum_scale(0.0),
        _sum_scale(1e-45),
        _input_without_scale,
        _zero_point_beyond_int8,
        _recorded(np.nan, np.nan),
        _recorded(-np.inf, np.inf),
        _recorded(2.0, -2.0),
        _one_operand_more,
        _one_operand_less,
        _no_shape_to_reshape_to,
        _weights_as_output,
    ],
)
@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_an_inconsistent_file_is_refused_or_refuted_without_a_warning(
    change: Change, target: bytes, checkpoint: Checkpoint
) -> None:
    """Constants are missing, shared or of the wrong type, or scales and ranges are invalid."""
    model = tampered(target, change)
    try:
        recover(read_model(model), "the model")
    except InputError:
        with pytest.raises(InputError):
            proved(model, checkpoint)
        return
    refuted(model, checkpoint)


def test_a_renamed_tensor_is_consistent_and_not_identical(target: bytes, checkpoint: Checkpoint) -> None:
    """Every number comes from the checkpoint, but no toolchain gives the name: not refuted, and not proved."""
    name = read_model(target).output.name.encode()
    found = proved(in_place(target, name + b"\0", name[:-1] + b"x\0"), checkpoint)
    assert found.verdict is Verdict.CONSISTENT
    assert found.refutations == ()
    last = found.attempts[-1]
    assert (last.toolchain, last.corrections) == (TODAY.name, None)
    assert last.comparison is not None
    assert last.comparison.verdict is Verdict.SAME_CONTENT


@pytest.mark.parametrize("count", [12, pytest.param(150, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_refused_refuted_or_outside_of_the_weights(
    count: int, target: bytes, checkpoint: Checkpoint
) -> None:
    """For bits anywhere in the file: a file that is still consistent has unchanged weights."""

    def weights(model: bytes) -> list[bytes]:
        view = read_model(model)
        return [view.tensors[convolution.inputs[1]].data for convolution in convolutions(view)]

    generator = np.random.default_rng(3)
    refutations = 0
    for position in generator.integers(0, len(target), count):
        changed = bytearray(target)
        changed[position] ^= 1 << int(generator.integers(8))
        try:
            found = prove(bytes(changed), "the model", checkpoint, (), lambda chain: Path(sys.executable))
        except InputError:
            continue
        refutations += bool(found.refutations)
        assert found.refutations or weights(bytes(changed)) == weights(target)
        assert not found.verdict.reaches(Verdict.IDENTICAL)
    assert refutations > count / 3  # most of the file is weights


NEARLY_DEAD = (1e-3, 1e-6, 1e-9, 1e-20, 0.0, -1e-6, -1.0)


@pytest.fixture(scope="module")
def nearly_dead(small_weights: Values) -> Checkpoint:
    """A checkpoint with channels that training switched off: factors and weights are zero or nearly zero."""
    values = {name: value.copy() for name, value in small_weights.items()}
    for layer in LAYERS[1:-1:4]:
        for channel, size in enumerate(NEARLY_DEAD):
            values[f"{layer.name}/BatchNorm/gamma"][channel] *= np.float32(size)
    for layer in LAYERS[2:-1:4]:
        weights = values[layer.weights_name]
        # In depthwise layers an output channel; in other layers an input channel.
        weights[..., 0, :] *= 0
        weights[..., 1, :] *= np.float32(1e-8)
        values[f"{layer.name}/BatchNorm/beta"][2] = 0
    return Checkpoint(SMALL, values, official_layout.unfolded_graph(SMALL, values))


@pytest.mark.parametrize("quantizer", ["new", pytest.param("old", marks=pytest.mark.slow)])
def test_nearly_dead_channels_are_explained(quantizer: str, nearly_dead: Checkpoint, tmp_path: Path) -> None:
    """Widened scales and channels of zeros are not refuted, and the checkpoint gives the bytes."""
    assert nearly_dead.frozen_graph is not None
    order = Order("blocks", "int8", quantizer)
    model = publish(nearly_dead.frozen_graph, SMALL, [order], tmp_path)[order]
    found = proved(model, nearly_dead)
    assert found.refutations == ()
    assert found.verdict is Verdict.IDENTICAL


def flags(path: Path, archive: Path, *more: object) -> list[object]:
    """Returns the command line that compares a file with an archive."""
    return ["prove", path, "--model", "0.35_96", "--checkpoint", archive, *more]


def json_result(*arguments: object, **environment: str) -> Any:
    """Returns the output of `--json`, with the error line of standard error (empty for status 0) as `error`."""
    result = run(*arguments, "--json", **environment)
    found = json.loads(result.stdout)
    assert found["status"] == result.returncode
    lines = [line for line in result.stderr.splitlines() if line.startswith('{"error": ')]
    assert len(lines) == (result.returncode != 0)
    return {**found, "error": lines[0] if lines else ""}


def test_json_has_the_whole_proof(target: bytes, small_archive: Path, tmp_path: Path) -> None:
    """Verdict, numbers, ranges, attempts and digests, for a file of current TensorFlow."""
    path = tmp_path / "published.tflite"
    path.write_bytes(target)
    found = json_result(*flags(path, small_archive, "--accept", "identical"))
    assert (found["status"], found["verdict"], found["asked"], found["error"]) == (0, "IDENTICAL", "IDENTICAL", "")
    assert found["published"]["bytes"] == len(target)
    assert found["published"]["sha1"] == hashlib.sha1(target).hexdigest()
    assert found["checkpoint"]["sha256"] == digest_file(small_archive)
    assert [attempt["with"] for attempt in found["rebuilt"]] == [OURS, TODAY.name]
    assert [attempt["verdict"] for attempt in found["rebuilt"]][-1] == "IDENTICAL"
    assert found["numbers"]["biases"] == sum(layer.outputs for layer in LAYERS)
    assert found["numbers"]["weights"] == sum(int(np.prod(layer.weights_shape)) for layer in LAYERS)
    assert len(found["ranges"]["left_out"]) == 3
    assert found["refutations"] == []
    assert found["has_frozen_graph"]


@pytest.mark.parametrize(
    ("accept", "status"), [pytest.param("consistent", 0, marks=pytest.mark.slow), ("identical", 1)]
)
def test_without_a_toolchain_only_the_numbers_are_claimed(
    accept: str, status: int, target: bytes, small_archive: Path, tmp_path: Path
) -> None:
    """`--toolchain none` gives CONSISTENT; `--accept` decides whether that is enough."""
    path = tmp_path / "published.tflite"
    path.write_bytes(target)
    found = json_result(*flags(path, small_archive, "--toolchain", "none", "--accept", accept))
    assert (found["status"], found["verdict"]) == (status, "CONSISTENT")
    assert [attempt["with"] for attempt in found["rebuilt"]] == [OURS]
    assert ("--accept CONSISTENT" in found["error"]) is (status != 0)


def test_an_unavailable_toolchain_is_reported(target: bytes, small_archive: Path, tmp_path: Path) -> None:
    """The Python 3.8 in the environment does not exist. The verdict is CONSISTENT; `--accept identical` is an error."""
    path = tmp_path / "published.tflite"
    path.write_bytes(target)
    environment = {"RECREATE_MODEL_PYTHON38": "/nonexistent/python", "RECREATE_MODEL_CACHE": str(tmp_path / "cache")}
    found = json_result(*flags(path, small_archive, "--toolchain", "2.5.0", "--accept", "identical"), **environment)
    assert (found["status"], found["verdict"]) == (4, "CONSISTENT")
    last = found["rebuilt"][-1]
    assert (last["with"], last["verdict"]) == ("TensorFlow 2.5.0", None)
    assert "RECREATE_MODEL_PYTHON38=/nonexistent/python, which is not one" in last["failure"]
    assert "uv python install 3.8" in last["failure"]
    assert "uv python install 3.8" in found["error"]
    assert not list((tmp_path / "cache").rglob("*.complete"))


def test_a_refuted_file_gives_status_1_with_its_first_refutation(
    target: bytes, small_archive: Path, tmp_path: Path
) -> None:
    """The refutation is on standard error, in --json and in the printed table."""
    path = tmp_path / "published.tflite"
    path.write_bytes(tampered(target, _bias))
    found = json_result(*flags(path, small_archive))
    assert (found["status"], found["verdict"]) == (1, "SAME_GRAPH")
    assert len(found["refutations"]) == 1
    assert "bias of channel 7" in found["refutations"][0]["what"]
    assert "bias of channel 7" in found["error"]
    said = str(prove_view.blocks(found))
    assert "refuted by 1 number" in said
    assert "the checkpoint does not give this file" in said


@pytest.mark.parametrize("name", ["2.5.1", "", "none,2.5.0", "new"])
def test_an_unknown_toolchain_is_invalid_usage(name: str, small_archive: Path, tmp_path: Path) -> None:
    """The error lists the known ones; the file is not read."""
    arguments = flags(tmp_path / "nothing", small_archive, "--toolchain", name)
    assert_one_error(run(*arguments), 2, "--toolchain to be none, or one or more of 2.5.0", "2.4.4-old", "today")

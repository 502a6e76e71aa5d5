"""Conversion with given ranges: TensorFlow gives the same bytes, and ranges that do not fit are refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from calibration.pictures import procedural
from calibration.pictures.preprocess import normalize
from calibration.ranges.range_table import merge
from recreate_model.network import architecture
from recreate_model.network.spec import MOBILENET_V2
from recreate_model.quantize import convert
from recreate_model.recipe import Preprocess
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import InputError, ToolError
from recreate_model.tflite.interpret import Runner
from recreate_model.tflite.model_view import read_model
from tests.conftest import SMALL

Spans = dict[str, tuple[float, float]]
# Largest allowed relative difference between the ranges of two correct kernels. 1e-5 was seen, and 9e-5 after softmax,
# which makes relative differences of absolute ones. Leaving out one picture of twelve changes ranges by 0.02 and more.
SAME = 1e-3


@pytest.fixture(scope="module")
def values() -> list[Array]:
    """Three inputs for the smallest network."""
    return [normalize(procedural.picture(5, index), Preprocess(), SMALL.resolution) for index in range(3)]


@pytest.fixture(scope="module")
def spans(small_float: bytes, values: list[Array]) -> Spans:
    """The ranges of the smallest network on those inputs, as the pipeline measures them."""
    runner = Runner(convert.with_ranges_as_outputs(small_float), "xnnpack")
    measured = merge([runner.run_min_max(value) for value in values])
    return {name: (float(a), float(b)) for name, (a, b) in zip(convert.activations(small_float), measured, strict=True)}


@pytest.fixture(scope="module")
def through_the_public_interface(
    tmp_path_factory: pytest.TempPathFactory,
    small_weights: dict[str, Array],
    values: list[Array],
) -> tuple[bytes, Spans]:
    """What `TFLiteConverter.convert()` returns for those inputs, and the ranges that its calibrator measured."""
    import tensorflow as tf
    from ai_edge_litert import schema_py_generated as schema
    from tensorflow.lite.python.optimize import calibrator

    graph = tmp_path_factory.mktemp("graph") / "graph.pb"
    graph.write_bytes(architecture.frozen_graph(SMALL, small_weights))
    seen: list[bytes] = []
    original = calibrator.Calibrator.calibrate

    def listening(self: object, dataset: object) -> bytes:
        seen.append(original(self, dataset))
        return seen[-1]

    def dataset() -> Iterator[list[Array]]:
        for value in values:
            yield [value]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrator.Calibrator, "calibrate", listening)
        converter = tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(
            str(graph), [MOBILENET_V2.input_name], [MOBILENET_V2.output_name]
        )
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = dataset
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        model = converter.convert()
    tensors = schema.ModelT.InitFromPackedBuf(seen[0], 0).subgraphs[0].tensors
    measured = {
        convert.activation_name(tensor.name.decode()): (
            float(tensor.quantization.min[0]),
            float(tensor.quantization.max[0]),
        )
        for tensor in tensors
        if tensor.quantization is not None and tensor.quantization.min is not None
    }
    return model, measured


def test_the_bytes_equal_those_of_the_public_converter(
    through_the_public_interface: tuple[bytes, Spans], small_float: bytes
) -> None:
    """With the calibrator's ranges, all bytes equal those of `convert()`, except for the tensor names we restore."""
    expected, measured = through_the_public_interface
    model = convert.parse(expected)
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].name = MOBILENET_V2.int8_input_name
    graph.tensors[graph.outputs[0]].name = MOBILENET_V2.int8_output_name
    assert digest_bytes(convert.quantize(small_float, measured)) == digest_bytes(convert.pack(model))


def test_ranges_equal_the_calibrators_except_for_residual_inputs(
    through_the_public_interface: tuple[bytes, Spans], small_float: bytes, spans: Spans
) -> None:
    """A residual addition overwrites its input. There the calibrator's range contains ours."""
    _, theirs = through_the_public_interface
    view = read_model(small_float)
    overwritten = {
        convert.activation_name(view.tensors[op.inputs[0]].name) for op in view.operators if op.name == "ADD"
    }
    assert theirs.keys() == spans.keys()
    for name, (low, high) in spans.items():
        if name in overwritten:
            assert theirs[name][0] <= low + abs(low) * SAME
            assert theirs[name][1] >= high - abs(high) * SAME
        else:
            assert theirs[name] == pytest.approx((low, high), rel=SAME)


def test_the_model_agrees_with_the_published_card(small_float: bytes, spans: Spans) -> None:
    """Names, shapes and types are the published ones, and there is no float tensor."""
    view = read_model(convert.quantize(small_float, spans))
    assert (view.input.name, view.input.shape, view.input.dtype) == ("tfl.quantize", (1, 96, 96, 3), "int8")
    assert (view.output.name, view.output.shape) == ("MobilenetV2/Predictions/Reshape_11", (1, 1001))
    assert view.output.quantization is not None
    assert (view.output.quantization.scales, view.output.quantization.zero_points) == ((1 / 256,), (-128,))
    assert not [tensor.name for tensor in view.tensors if tensor.dtype == "float32"]


def test_every_convolution_is_quantized_per_channel(small_float: bytes, spans: Spans) -> None:
    """Each weight tensor has one scale per output channel, and its zero points are 0."""
    view = read_model(convert.quantize(small_float, spans))
    weights = [view.tensors[op.inputs[1]] for op in view.operators if op.name.endswith("CONV_2D")]
    assert len(weights) == 53
    for tensor in weights:
        assert tensor.quantization is not None
        assert len(tensor.quantization.scales) == tensor.shape[tensor.quantization.axis]
        assert set(tensor.quantization.zero_points) == {0}


def test_one_changed_range_changes_the_model(small_float: bytes, spans: Spans) -> None:
    """One range is made wider."""
    name = "MobilenetV2/expanded_conv_2/add"
    low, high = spans[name]
    wider = convert.quantize(small_float, {**spans, name: (low, high * 1.1)})
    assert digest_bytes(wider) != digest_bytes(convert.quantize(small_float, spans))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MobilenetV2/Conv/Relu6": None}, "none for MobilenetV2/Conv/Relu6"),
        ({"MobilenetV2/Conv/Relu7": (0.0, 1.0)}, "one for MobilenetV2/Conv/Relu7, which the network does not have"),
        ({"MobilenetV2/Conv/Relu6": (6.0, 0.0)}, r"\[6.0, 0.0\] for MobilenetV2/Conv/Relu6"),
        ({"MobilenetV2/Conv/Relu6": (0.0, float("inf"))}, r"\[0.0, inf\] for MobilenetV2/Conv/Relu6"),
        ({"input": (float("nan"), 1.0)}, r"\[nan, 1.0\] for input"),
    ],
)
def test_ranges_that_do_not_fit_are_refused_by_name(
    change: dict[str, tuple[float, float] | None], message: str, small_float: bytes, spans: Spans
) -> None:
    """The error names the activation whose range is missing, additional, inverted or infinite."""
    changed = {name: span for name, span in {**spans, **change}.items() if span is not None}
    with pytest.raises(InputError, match=message):
        convert.quantize(small_float, changed)


def test_a_graph_that_tensorflow_cannot_read_is_a_one_line_error() -> None:
    """The error contains the converter's message."""
    with pytest.raises(ToolError, match="expected the TensorFlow converter to succeed; found ") as caught:
        convert.convert_float(b"not a graph")
    assert "\n" not in str(caught.value)


def test_the_converter_prints_nothing(small_weights: dict[str, Array], capfd: pytest.CaptureFixture[str]) -> None:
    """TensorFlow writes to the file descriptors, and none of that reaches the user."""
    convert.convert_float(architecture.frozen_graph(SMALL, small_weights))
    assert capfd.readouterr() == ("", "")


def test_damaged_models_are_refused(small_float: bytes, spans: Spans) -> None:
    """A truncated model, or a Git LFS pointer in its place, is a clear error."""
    model = convert.quantize(small_float, spans)
    for data in (
        b"",
        b"version https://git-lfs.github.com/spec/v1\n",
        model[:7],
        model[:100],
        model[: len(model) // 2],
    ):
        with pytest.raises(InputError, match="TensorFlow Lite"):
            read_model(data)

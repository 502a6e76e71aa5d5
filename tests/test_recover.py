"""Ranges recovered from models: from those of a publisher's converter, and from those of our own build."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.ranges import range_table as range_tables
from pipeline.interface.views import recover as recover_view
from pipeline.request.request import Request
from recreate_model.network import architecture
from recreate_model.network.spec import MOBILENET_V2
from recreate_model.prove.recover import network_operators, recover
from recreate_model.quantize import convert
from recreate_model.quantize.quantizer import Generation
from recreate_model.recipe import Calibration, Checkpoint, Evaluation, Preprocess, Recipe
from recreate_model.support.arrays import Array
from recreate_model.support.errors import InputError
from recreate_model.tflite.model_view import read_model
from tests.conftest import SMALL
from tests.edited_models import edited, operator, result
from tests.published_models import Order, publish
from tests.test_bad_input import assert_one_error, run
from tests.tiny_models import tiny_model

Spans = dict[str, tuple[float, float]]

RECIPE = Recipe(SMALL, Checkpoint("seeded", seed=1), Calibration("ranges"), Evaluation("folder"), Preprocess(), ())
ORDERS = [Order("blocks", ends, quantizer) for ends in ("int8", "uint8", "float32") for quantizer in ("new", "old")]
# No byte of a model depends on the range of these activations.
LEFT_OUT = {
    "MobilenetV2/Logits/AvgPool": "AVERAGE_POOL_2D",
    "MobilenetV2/Predictions/Reshape": "RESHAPE",
    "MobilenetV2/Predictions/Reshape_1": "SOFTMAX",
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, small_weights: dict[str, Array]) -> dict[Order, bytes]:
    """The smallest network quantized by today's TensorFlow, with every type of input and both quantizers."""
    graph = architecture.frozen_graph(SMALL, small_weights)
    return publish(graph, SMALL, ORDERS, tmp_path_factory.mktemp("published"))


def random_spans(float_model: bytes, seed: int) -> Spans:
    """A range for each activation: across zero, from zero as after ReLU6, on one side of it, narrow or empty."""
    generator = np.random.default_rng(seed)
    spans = {}
    for name in convert.activations_with_a_range(float_model):
        size = 10 ** generator.uniform(-1, 1.5)
        share = generator.uniform()
        low, high = [(-size * share, size), (0.0, size), (size * share, size), (-size, -size * share), (-size, size)][
            generator.integers(5)
        ]
        spans[name] = (float(np.float32(low)), float(np.float32(high)))
    return spans


def table_of(published: bytes, float_model: bytes) -> range_tables.Ranges:
    """The range table that `recover` writes for a model."""
    recovered = recover_view.ranges_of(published, "the model", SMALL)
    return recover_view.as_table(recovered, published, RECIPE, float_model, "0" * 64)


def scales(model: bytes) -> list[object]:
    """Scale and zero point of the input and of each operator's output, without conversions of input and output."""
    view = read_model(model)
    operators = network_operators(view)
    return [view.tensors[index].quantization for index in (operators[0].inputs[0], *(o.outputs[0] for o in operators))]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_our_build_with_a_recovered_table_has_the_published_scales(
    order: Order, published: dict[Order, bytes], small_float: bytes
) -> None:
    """Every scale and zero point is equal to the last bit, for both quantizers and every type of input."""
    table = table_of(published[order], small_float)
    assert scales(convert.quantize(small_float, table.spans)) == scales(published[order])
    generation = recover(read_model(published[order]), "the model").generation
    assert generation is (Generation.TODAY if order.quantizer == "new" else Generation.STORED)


def test_ranges_that_no_byte_depends_on_are_left_out_with_the_reason(
    published: dict[Order, bytes], small_float: bytes
) -> None:
    """The pool, the reshape and the softmax have no range in the table; all other activations have one."""
    table = table_of(published[ORDERS[0]], small_float)
    assert tuple(table.spans) == convert.activations_with_a_range(small_float)
    assert table.left_out == {
        name: f"no byte of the file depends on the range of its {kind}" for name, kind in LEFT_OUT.items()
    }


def test_every_range_that_the_old_quantizer_stored_is_recovered(
    published: dict[Order, bytes], small_float: bytes
) -> None:
    """It also stored the range of the pool. The others are left out because no byte depends on them."""
    table = table_of(published[ORDERS[1]], small_float)
    assert "MobilenetV2/Logits/AvgPool" in table.spans
    assert table.spans.keys() | table.left_out.keys() == convert.activations(small_float).keys()
    assert all(why.startswith("no byte of the file depends on") for why in table.left_out.values())


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32 - 1))
def test_our_own_model_is_reproduced_from_its_recovered_ranges(seed: int, small_float: bytes) -> None:
    """Whatever the ranges were, those recovered from the model give the same bytes."""
    model = convert.quantize(small_float, random_spans(small_float, seed))
    assert convert.quantize(small_float, table_of(model, small_float).spans) == model


@pytest.mark.parametrize("spans", [(0.0, 0.0), (-1e-9, 1e-9), (0.0, 1e-6), (2.0, 2.0), (-1e4, 1e4)])
def test_degenerate_ranges_are_recovered(spans: tuple[float, float], small_float: bytes) -> None:
    """The model is reproduced if every range is empty, tiny, away from zero or huge."""
    model = convert.quantize(small_float, dict.fromkeys(convert.activations_with_a_range(small_float), spans))
    assert convert.quantize(small_float, table_of(model, small_float).spans) == model


def test_a_scale_that_no_range_gives_is_left_out_with_the_reason(small_float: bytes) -> None:
    """A build with this table is refused, and the error names the activation."""
    model = convert.quantize(small_float, random_spans(small_float, 1))

    def change(tree: Any) -> None:
        result(tree, "ADD").quantization.scale = np.array([1e-9], np.float32)

    table = table_of(edited(model, change), small_float)
    (name,) = table.left_out.keys() - LEFT_OUT.keys()
    assert name.endswith("/add")
    assert table.left_out[name].startswith("no range gives scale 9.9999997171806")
    with pytest.raises(InputError, match=f"none for {name}"):
        convert.quantize(small_float, table.spans)


def _per_channel(tree: Any) -> None:
    quantization = result(tree, "CONV_2D").quantization
    count = result(tree, "CONV_2D").shape[3]
    quantization.scale = np.full(count, 0.1, np.float32)
    quantization.zeroPoint, quantization.quantizedDimension = np.zeros(count, np.int64), 3


def _no_scale(tree: Any) -> None:
    result(tree, "ADD").quantization = None


def _negative(tree: Any) -> None:
    result(tree, "ADD").quantization.scale = np.array([-0.1], np.float32)


def _nan(tree: Any) -> None:
    result(tree, "ADD").quantization.scale = np.array([np.nan], np.float32)


def _no_operators(tree: Any) -> None:
    tree.subgraphs[0].operators = []


def _no_inputs(tree: Any) -> None:
    operator(tree, "CONV_2D").inputs = []


def _two_outputs(tree: Any) -> None:
    one = operator(tree, "ADD")
    one.outputs = [*one.outputs, *one.outputs]


def _no_outputs(tree: Any) -> None:
    tree.subgraphs[0].outputs = []


def _two_subgraphs(tree: Any) -> None:
    tree.subgraphs.append(tree.subgraphs[0])


def _no_subgraphs(tree: Any) -> None:
    tree.subgraphs = []


def _no_bias(tree: Any) -> None:
    one = operator(tree, "CONV_2D")
    one.inputs = one.inputs[:2]


def _bias_left_out(tree: Any) -> None:
    one = operator(tree, "CONV_2D")
    one.inputs = [*one.inputs[:2], -1]


def _weights_left_out(tree: Any) -> None:
    one = operator(tree, "CONV_2D")
    one.inputs = [one.inputs[0], -1, one.inputs[2]]


@pytest.mark.parametrize("command", ["recover", "prove"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_per_channel, "scales for "),
        (_no_scale, "every activation int8 with one scale"),
        (_negative, "the first -0.1"),
        (_nan, "a scale that is not finite"),
        (_no_operators, "0 operators instead of"),
        (_no_inputs, "a CONV_2D with inputs ()"),
        (_two_outputs, "a ADD with inputs"),
        (_no_outputs, "1 inputs and 0 outputs"),
        (_two_subgraphs, "2 subgraphs instead of one"),
        (_no_subgraphs, "0 subgraphs instead of one"),
        (_no_bias, "weights of shape () instead of"),
        (_bias_left_out, "a CONV_2D with inputs"),
        (_weights_left_out, "a CONV_2D with inputs"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_model_that_is_not_full_integer_is_bad_input(
    command: str, change: Callable[[Any], None], words: str, own: bytes, tmp_path: Path
) -> None:
    """Per-channel, missing or invalid scales; missing operators, operands, inputs or outputs: status 3, one line."""
    path = tmp_path / "published.tflite"
    path.write_bytes(edited(own, change))
    assert_one_error(run(command, *small_flags(command, path, tmp_path)), 3, "published.tflite", words)
    assert not list(tmp_path.rglob("*.json"))


@pytest.fixture(scope="module")
def own(small_float: bytes) -> bytes:
    """A model of our own build, of the seeded small network."""
    return convert.quantize(small_float, random_spans(small_float, 7))


def small_flags(command: str, path: Path, folder: Path) -> list[object]:
    """Arguments after the command, for the seeded small network; all output goes below the folder."""
    flags: list[object] = [path, "--model", "0.35_96", "--checkpoint", "seeded"]
    return [*flags, "--out", folder / "out", "--output", folder / "table.json"] if command == "recover" else flags


def _with_float_activations(small_weights: dict[str, Array], kind: str) -> bytes:
    """The small network with weights of 16 or 8 bits and float activations, by TensorFlow's own converter."""
    import tempfile

    import tensorflow as tf

    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch) / "graph.pb"
        graph.write_bytes(architecture.frozen_graph(SMALL, small_weights))
        converter = tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(
            str(graph), [MOBILENET_V2.input_name], [MOBILENET_V2.output_name]
        )
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == "float16":
            converter.target_spec.supported_types = [tf.float16]
        model: bytes = converter.convert()
    return model


@pytest.fixture(scope="module")
def other_files(
    tmp_path_factory: pytest.TempPathFactory,
    small_weights: dict[str, Array],
    small_float: bytes,
    own: bytes,
) -> Path:
    """A folder of files that are not full-integer models of the small network."""
    folder = tmp_path_factory.mktemp("other_files")
    contents = {
        "cut": own[: len(own) // 2],
        "empty": b"",
        "random": np.random.default_rng(0).bytes(5000),
        "random with identifier": b"\x1c\0\0\0TFL3" + np.random.default_rng(0).bytes(5000),
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4020936\n",
        "page": b"<!DOCTYPE html><html></html>",
        "float": small_float,
        "float16": _with_float_activations(small_weights, "float16"),
        "dynamic range": _with_float_activations(small_weights, "dynamic range"),
        "tiny": tiny_model("int8"),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    return folder


@pytest.mark.parametrize("command", ["recover", "prove"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cut", "a damaged or truncated TensorFlow Lite file"),
        ("empty", "an empty file"),
        ("random", "5000 bytes without the TFL3 file identifier"),
        ("random with identifier", "a damaged or truncated TensorFlow Lite file"),
        ("pointer", "a Git LFS pointer"),
        ("page", "an HTML page"),
        ("float", "of type float32, as in dynamic-range and float16 models"),
        ("float16", "of type float32, as in dynamic-range and float16 models"),
        ("dynamic range", "of type float32, as in dynamic-range and float16 models"),
        ("tiny", "RESHAPE instead of DEPTHWISE_CONV_2D as operator 1"),
        ("nothing", "No such file"),
        ("folder", "a folder"),
    ],
)
def test_a_file_that_is_no_full_integer_model_is_bad_input(
    command: str, name: str, words: str, other_files: Path, tmp_path: Path
) -> None:
    """Truncated, empty, not a model, float, of another network, or missing: status 3, one line, nothing written."""
    result = run(command, *small_flags(command, other_files / name, tmp_path))
    assert_one_error(result, 3, str(other_files / name), words)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("command", ["recover", "prove"])
def test_another_member_of_the_family_is_named(command: str, own: bytes, tmp_path: Path) -> None:
    """For a model of another width or resolution, the error names its --model."""
    path = tmp_path / "published.tflite"
    path.write_bytes(own)
    flags = small_flags(command, path, tmp_path)
    for asked in ("1.0_224", "0.35_128"):
        flags[flags.index("--model") + 1] = asked
        words = (f"a quantized mobilenet_v2_{asked}", "a mobilenet_v2_0.35_96", "give --model 0.35_96")
        assert_one_error(run(command, *flags), 3, *words)


def test_a_published_model_is_reproduced_on_the_command_line(small_build: Request, tmp_path: Path) -> None:
    """`recover`, then `quantize --ranges` with its table, gives the bytes of the published model."""
    published = tmp_path / "published.tflite"
    next(small_build.out.rglob("*_INT8.tflite")).replace(published)
    flags = small_flags("recover", published, tmp_path)
    result = run("recover", *flags, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["left_out"].keys() == LEFT_OUT.keys()
    assert found["not_todays"] == []
    table = range_tables.from_json((tmp_path / "table.json").read_text(), "the table")
    assert found["recovered"] == len(table.spans)
    assert (table.recovered_from, dict(table.left_out)) == (found["recovered_from"], found["left_out"])

    flags = ["--model", "0.35_96", "--checkpoint", "seeded", "--images", "procedural", "--out", tmp_path / "out"]
    result = run("quantize", *flags, "--ranges", tmp_path / "table.json", "--quiet")
    assert result.returncode == 0, result.stderr
    (model,) = (tmp_path / "out").rglob("*_INT8.tflite")
    assert model.read_bytes() == published.read_bytes()


def test_recover_never_replaces_a_file_of_the_user(small_build: Request, tmp_path: Path) -> None:
    """Other content at --output is kept and reported; the same table is not an error."""
    (published,) = small_build.out.rglob("*_INT8.tflite")
    flags = small_flags("recover", published, tmp_path)
    (tmp_path / "table.json").write_text("mine")
    assert_one_error(run("recover", *flags), 3, "table.json", "other content", "--output")
    assert (tmp_path / "table.json").read_text() == "mine"
    (tmp_path / "table.json").unlink()
    for _ in range(2):
        assert run("recover", *flags, "--quiet").returncode == 0
    (tmp_path / "folder").mkdir()
    flags[flags.index("--output") + 1] = tmp_path / "folder"
    assert_one_error(run("recover", *flags), 3, "a folder")
    flags[flags.index("--output") + 1] = tmp_path / "table.json" / "table.json"
    assert_one_error(run("recover", *flags), 3, "expected a folder at", "table.json")
    flags[flags.index("--output") + 1] = tmp_path / "new folder" / "table.json"
    assert run("recover", *flags, "--quiet").returncode == 0
    assert (tmp_path / "new folder" / "table.json").read_bytes() == (tmp_path / "table.json").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

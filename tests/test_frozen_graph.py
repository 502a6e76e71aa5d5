"""Reading a frozen graph by its structure, in both layouts, and comparing it with the averages in its archive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recreate_model.floats.checkpoint import read_archive
from recreate_model.floats.frozen_graph import (
    FOLDING_ULPS,
    GraphComparison,
    as_values,
    compare,
    read_layers,
)
from recreate_model.floats.graph_nodes import OtherLayoutError
from recreate_model.network import architecture
from recreate_model.network.layer import Folded, Layer
from recreate_model.network.spec import Model
from recreate_model.support.arrays import Array
from recreate_model.support.errors import InputError
from tests.conftest import SMALL
from tests.official_layout import RAW_OFF_BY, official_form_graph, run_graph, unfolded_graph, write_archive

Weights = dict[str, Array]
FIRST_DEPTHWISE = "MobilenetV2/expanded_conv/depthwise"
FORMS = {"unfolded": unfolded_graph, "official": official_form_graph}


@pytest.fixture(scope="module")
def weights(small_weights: Weights) -> Weights:
    """Seeded weights with a negative gamma in the first depthwise layer, as the official checkpoint has one."""
    gamma = small_weights[f"{FIRST_DEPTHWISE}/BatchNorm/gamma"].copy()
    gamma[2] *= -1
    return {**small_weights, f"{FIRST_DEPTHWISE}/BatchNorm/gamma": gamma}


@pytest.fixture(scope="module", params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def graph(form: str, weights: Weights) -> bytes:
    return FORMS[form](SMALL, weights)


def edited(graph: bytes, change: Callable[[Any], None]) -> bytes:
    """Returns the serialized graph after `change` has edited its GraphDef."""
    from tensorflow.core.framework import graph_pb2

    definition = graph_pb2.GraphDef()
    definition.ParseFromString(graph)
    change(definition)
    data: bytes = definition.SerializeToString(deterministic=True)
    return data


def named(definition: Any, part: str, op: str) -> Any:
    """Returns the first node of operator `op` whose name contains `part`."""
    return next(node for node in definition.node if part in node.name and node.op == op)


def constant(node: Any, values: Array) -> None:
    from tensorflow.python.framework import tensor_util

    node.attr["value"].tensor.CopyFrom(tensor_util.make_tensor_proto(values))


# Reading


def test_every_constant_is_found(form: str, graph: bytes, weights: Weights) -> None:
    """In the official form, 87 constants are variables and 70 have BatchNorm folded into them."""
    found = compare(graph, SMALL, weights, "the graph")
    exact, folded = {"unfolded": (262, 0), "official": (87, 70)}[form]
    assert found == GraphComparison(exact=exact, folded=folded)


def test_the_constants_compute_what_the_graph_computes(form: str, graph: bytes) -> None:
    """A network built from the constants, with the remaining BatchNorm folded, has the outputs of the graph."""
    values = as_values(read_layers(graph, SMALL, "the graph"))
    value = np.random.default_rng(2).uniform(-1, 1, (1, 96, 96, 3)).astype(np.float32)
    ours = run_graph(architecture.frozen_graph(SMALL, values), value)
    # TensorFlow runs both. The largest difference seen is 9e-6 (oneDNN off, SSE4.1, AVX2 and AVX-512). An error of 1 %
    # in the folded bias of one layer gives at least 0.01, in the weights of one layer 0.045; raw variables give 0.3.
    assert np.abs(ours - run_graph(graph, value)).max() < 3e-4


def test_an_archive_of_either_form_is_compared_with_its_averages(
    form: str, graph: bytes, weights: Weights, tmp_path: Path
) -> None:
    """Reading the archive includes the comparison; an archive without a graph has none."""
    archive = write_archive(tmp_path / "a.tgz", SMALL, weights, graph=graph)
    read = read_archive(archive, SMALL)
    assert read.comparison is not None
    assert (read.comparison.first_other, read.comparison.not_checked) == ("", "")
    assert read.frozen_graph == graph
    bare = read_archive(write_archive(tmp_path / "b.tgz", SMALL, weights, drop=("_frozen.pb",)), SMALL)
    assert (bare.frozen_graph, bare.comparison) == (None, None)


def test_node_names_do_not_matter(graph: bytes, weights: Weights) -> None:
    """With every node renamed and the structure unchanged, the comparison gives the same result."""

    def rename(definition: Any) -> None:
        names = {node.name: f"n{number}" for number, node in enumerate(definition.node)}
        for node in definition.node:
            node.name = names[node.name]
            for place, text in enumerate(node.input):
                node.input[place] = names[text.split(":")[0]]

    assert compare(edited(graph, rename), SMALL, weights, "the graph") == compare(graph, SMALL, weights, "the graph")


def test_folding_in_float32_is_within_the_tolerance(weights: Weights) -> None:
    """A graph folded with every step rounded to float32 matches, at half the tolerance or less."""

    def fold(layer: Layer, values: Weights) -> Folded:
        if not layer.batch_norm:
            return exact(layer, values)
        gamma, beta, mean, variance = (
            values[f"{layer.name}/BatchNorm/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        factor = np.float32(1) / np.sqrt(variance + np.float32(0.001)) * gamma
        return Folded(values[layer.weights_name] * factor, beta - mean * factor)

    exact = fold
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.official_layout.fold", fold)
        graph = official_form_graph(SMALL, weights)
    found = compare(graph, SMALL, weights, "the graph")
    assert (found.first_other, found.folded) == ("", 70)
    assert 0 < found.largest_ulps <= FOLDING_ULPS / 2


# Differences that are detected


def test_raw_variables_are_detected_in_the_first_tensor(graph: bytes, weights: Weights) -> None:
    """Raw variables differ from their averages by 2 %; in both forms the weights of the first layer are reported."""
    raw = {name: value if "moving_" in name else value * RAW_OFF_BY for name, value in weights.items()}
    assert compare(graph, SMALL, raw, "the graph").first_other.startswith("MobilenetV2/Conv/weights")


@pytest.mark.parametrize("layer", ["expanded_conv_3/expand", "expanded_conv_3/depthwise", "Logits/Conv2d_1c_1x1"])
def test_one_changed_weight_is_detected(layer: str, graph: bytes, weights: Weights) -> None:
    """One weight of one layer changes by a thousandth of its value, and the comparison names the tensor."""
    name = next(name for name in weights if name.startswith(f"MobilenetV2/{layer}/") and "weights" in name)
    changed = weights[name].copy()
    changed.flat[changed.size // 2] *= np.float32(1.001)
    assert compare(graph, SMALL, {**weights, name: changed}, "the graph").first_other.startswith(name)


def test_the_wrong_sign_of_a_gamma_is_detected(graph: bytes, weights: Weights) -> None:
    """The gamma is in the first depthwise layer, where the official checkpoint has a negative one."""
    name = f"{FIRST_DEPTHWISE}/BatchNorm/gamma"
    found = compare(graph, SMALL, {**weights, name: np.abs(weights[name])}, "the graph")
    assert found.first_other.startswith(name)


# Invalid graphs


def doubled(definition: Any) -> None:
    definition.node.add().CopyFrom(named(definition, "", "Relu6"))


def missing(definition: Any) -> None:
    definition.node.remove(named(definition, "expanded_conv_5/", "Relu6"))


def strided(definition: Any) -> None:
    named(definition, "expanded_conv_2/", "DepthwiseConv2dNative").attr["strides"].list.i[1:3] = [2, 2]


def unfrozen(definition: Any) -> None:
    named(definition, "", "Const").op = "VariableV2"


def not_finite(definition: Any) -> None:
    shape = (1, 1, 1280, 1001)
    node = next(
        node
        for node in definition.node
        if node.op == "Const" and [side.size for side in node.attr["value"].tensor.tensor_shape.dim] == list(shape)
    )
    constant(node, np.full(shape, np.nan, np.float32))


def circular(definition: Any) -> None:
    relu = named(definition, "expanded_conv_5/", "Relu6")
    relu.op, relu.input[0] = "Identity", relu.name


def other_epsilon(definition: Any) -> None:
    named(definition, "expanded_conv_4/depthwise", "FusedBatchNorm").attr["epsilon"].f = 0.01


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (doubled, "unique node names"),
        (missing, "no such node"),
        (strided, "strides \\[1, 1, 1, 1\\] and padding SAME in MobilenetV2/expanded_conv_2/depthwise"),
        (unfrozen, "it is not frozen"),
        (not_finite, "NaN or infinite values"),
        (circular, "an acyclic graph"),
        (other_epsilon, "epsilon 0.001"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_damaged_graph_is_refused_in_one_line(
    change: Callable[[Any], None], words: str, weights: Weights, tmp_path: Path
) -> None:
    """The error says what is wrong and where; an archive with such a graph is refused too."""
    graph = edited(official_form_graph(SMALL, weights), change)
    with pytest.raises(InputError, match=words):
        compare(graph, SMALL, weights, "the graph")
    with pytest.raises(InputError, match=r"mobilenet_v2_0\.35_96_frozen\.pb of"):
        read_archive(write_archive(tmp_path / "a.tgz", SMALL, weights, graph=graph), SMALL)


def test_bytes_that_are_not_a_graph_are_refused(weights: Weights) -> None:
    """Bytes that protobuf cannot decode are an error, and do not count as an empty graph."""
    with pytest.raises(InputError, match="data that is not a GraphDef"):
        compare(b"\x0a\xff\xff", SMALL, weights, "the graph")


def test_another_member_of_the_family_is_refused_by_its_shapes(graph: bytes, weights: Weights) -> None:
    """A graph of another width has other shapes; the error names the first one."""
    with pytest.raises(InputError, match=r"float32 \(1, 1, 1280, 1001\)|float32 \(1, 1, \d+, \d+\)"):
        read_layers(graph, Model("0.5", 96), "the graph")


@pytest.mark.parametrize("kind", ["empty", "no softmax", "another operator"])
def test_a_graph_with_an_unknown_layout_is_not_checked(kind: str, weights: Weights, graph: bytes) -> None:
    """The comparison reports that nothing was checked, and reading weights from the graph is an error."""

    def other(definition: Any) -> None:
        named(definition, "", "Relu6").op = "Elu"

    def without(definition: Any) -> None:
        named(definition, "", "Softmax").op = "Sigmoid"

    data = {"empty": b"", "no softmax": edited(graph, without), "another operator": edited(graph, other)}[kind]
    found = compare(data, SMALL, weights, "the graph")
    assert (found.exact, found.folded, bool(found.not_checked)) == (0, 0, True)
    with pytest.raises(OtherLayoutError):
        read_layers(data, SMALL, "the graph")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("archive", "counts"), [("official_form/", (87, 70)), ("", (262, 0))], ids=["official", "slim"]
)
def test_the_shared_archives_agree_with_their_graphs(archive: str, counts: tuple[int, int], shared: Path) -> None:
    """Both layouts at full size: every constant is found, and the folded ones are within 1 ulp."""
    read = read_archive(shared / f"checkpoint/{archive}mobilenet_v2_1.0_224.tgz", Model())
    assert read.comparison is not None
    assert (read.comparison.exact, read.comparison.folded) == counts
    assert (read.comparison.first_other, read.comparison.not_checked) == ("", "")
    assert read.comparison.largest_ulps <= 1

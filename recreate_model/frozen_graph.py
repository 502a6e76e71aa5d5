"""A frozen graph of a MobileNetV2, read by its structure: the constants of each layer, whatever they are called.

Two layouts are known. As `freeze_graph` leaves it, every convolution is followed by its BatchNorm in four constants.
The official archive's graph went through TensorFlow's inference transforms, too: the BatchNorm of each Conv2D is folded
into its weights and a bias, depthwise convolutions keep theirs, and no constant has a variable's name.

For: reading the constants, and comparing them with a checkpoint's variables. Not for: converting the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recreate_model import network
from recreate_model.capture import captured
from recreate_model.errors import InputError
from recreate_model.network import Array, Layer
from recreate_model.recipe import Model

# Most units in the last place between a constant folded before freezing and the one folded here in float64; of a bias,
# which is a difference, they are units of its terms. Measured on 53 layers: 1 where the graph was folded in float64 as
# TensorFlow's inference transforms do, 3 (weights) and 2 (biases) where every step of it was rounded to float32. Raw
# variables in the place of averages are off by 2 % of a weight, which is some 200,000 units.
FOLDING_ULPS = 8

_VARIABLES = {"Variable", "VariableV2", "AutoReloadVariable", "VarHandleOp", "ReadVariableOp"}
_BATCH_NORM = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
_ADDITIONS = ("Add", "AddV2", "BiasAdd")
_PASSED = ("Identity", "Reshape", "Squeeze", "StopGradient", "CheckNumerics")
_PARTS = ("gamma", "beta", "moving_mean", "moving_variance")  # as a FusedBatchNorm takes them


class OtherLayoutError(InputError):
    """A sound graph that is not laid out as a MobileNetV2, so that nothing in it can be found."""


@dataclass(frozen=True, eq=False)
class GraphLayer:
    """The constants of one layer.

    Attributes:
        weights: float32, in the shape of `Layer.weights_shape`.
        bias: float32 (outputs,), with BatchNorm folded; None where the graph has BatchNorm.
        batch_norm: gamma, beta, moving mean and variance by their variables' names; empty where it is folded.
    """

    layer: Layer
    weights: Array
    bias: Array | None
    batch_norm: Mapping[str, Array]

    @property
    def values(self) -> dict[str, Array]:
        """As variables, for `network.fold`; a folded layer has `biases` and no BatchNorm."""
        folded = {} if self.bias is None else {f"{self.layer.name}/biases": self.bias}
        return {self.layer.weights_name: self.weights, **folded, **self.batch_norm}


@dataclass(frozen=True)
class GraphComparison:
    """A frozen graph's constants beside a checkpoint's variables.

    Attributes:
        exact: constants that are variables, and were compared bit for bit.
        folded: constants with BatchNorm folded, compared within FOLDING_ULPS.
        largest_ulps: between a folded constant that agrees and the variables folded here.
        first_other: the first constant that differs, with the variables it belongs to; empty where none does.
        not_checked: why nothing could be compared; empty where something was.
    """

    exact: int = 0
    folded: int = 0
    largest_ulps: float = 0.0
    first_other: str = ""
    not_checked: str = ""


def compare(data: bytes, model: Model, values: Mapping[str, Array], source: str) -> GraphComparison:
    """Compares the constants of a frozen graph with variables.

    Args:
        data: a serialised GraphDef.
        source: what to call it in an error.

    Raises:
        InputError: a damaged or unfrozen graph, or one of another network of this layout.
    """
    try:
        found = read_layers(data, model, source)
    except OtherLayoutError as error:
        return GraphComparison(not_checked=error.found)
    exact, folded, largest, others = 0, 0, 0.0, []
    for each in found:
        for name, constant in each.values.items():
            if each.bias is None or (name in values and not each.layer.batch_norm):
                exact += 1
                if not np.array_equal(constant, values[name]):
                    off = float(np.abs(constant - values[name]).max())
                    others.append(f"{name}, by up to {off:.3g}")
                continue
            folded += 1
            ulps = _ulps(each.layer, constant, name == each.layer.weights_name, values)
            if ulps > FOLDING_ULPS:
                others.append(f"{name} with BatchNorm folded, by up to {ulps:.3g} units in the last place")
            else:
                largest = max(largest, ulps)
    return GraphComparison(exact, folded, largest, others[0] if others else "")


def _ulps(layer: Layer, constant: Array, weights: bool, values: Mapping[str, Array]) -> float:
    """Most units in the last place between a folded constant and the variables folded here."""
    wanted = network.fold(layer, values)
    if weights:
        expected = size = wanted.weights
    else:
        beta, mean = (np.asarray(values[f"{layer.name}/BatchNorm/{part}"]) for part in ("beta", "moving_mean"))
        expected = wanted.bias
        size = (np.abs(beta) + np.abs(mean * network.folding_factor(layer, values))).astype(np.float32)
    difference = np.abs(constant.astype(np.float64) - expected.astype(np.float64))
    return float((difference / np.spacing(np.abs(size))).max(initial=0))


def read_layers(data: bytes, model: Model, source: str) -> tuple[GraphLayer, ...]:
    """The constants of every layer, in the order of `network.layers`.

    Args:
        data: a serialised GraphDef.
        source: what to call it in an error.

    Raises:
        InputError: not a GraphDef, a node that is missing or stands twice, variables that were not frozen, another
            stride or shape, or a constant that is not finite float32.
        OtherLayoutError: a graph that is not laid out as this network.
    """
    return tuple(_Graph(data, source).layers(model))


class _Graph:
    """The nodes of a graph by their names."""

    def __init__(self, data: bytes, source: str) -> None:
        with captured():
            from google.protobuf.message import DecodeError
            from tensorflow.core.framework import graph_pb2

        self._source = source
        graph = graph_pb2.GraphDef()
        try:
            graph.ParseFromString(data)
        except DecodeError as error:
            raise self._refused("a readable frozen graph (GraphDef)", "bytes that are none") from error
        self._nodes: dict[str, Any] = {}
        for node in graph.node:
            if node.name in self._nodes:
                raise self._refused("every node once", f"two nodes {node.name!r}")
            if node.op in _VARIABLES:
                raise self._refused("constants in the place of variables", f"{node.op} {node.name!r}: it is not frozen")
            self._nodes[node.name] = node
        self._depths: dict[str, int] = {}

    def layers(self, model: Model) -> Iterator[GraphLayer]:
        """From the input to the classifier; raises as `read_layers`."""
        softmaxes = [node for node in self._nodes.values() if node.op == "Softmax"]
        if len(softmaxes) != 1:
            raise self._other(f"{len(softmaxes)} Softmax nodes among {len(self._nodes)}")
        found = []
        *body, classifier = network.layers(model)
        layer, node = self._layer(classifier, self._passed(softmaxes[0]))
        found.append(layer)
        pool = self._passed(node)
        if pool.op not in ("AvgPool", "Mean"):
            raise self._other(f"{pool.op} {pool.name!r} in the place of the average pool")
        node = pool
        for expected in reversed(body):
            node = self._passed(node)
            if expected.residual:
                node = self._branch(node)
            layer, node = self._layer(expected, node)
            found.append(layer)
        end = self._passed(node)
        if end.op != "Placeholder":
            raise self._other(f"{end.op} {end.name!r} in the place of the input")
        return reversed(found)

    def _layer(self, layer: Layer, node: Any) -> tuple[GraphLayer, Any]:
        """The layer that ends in a node, and the convolution, whose first input the layer before gives."""
        if layer.relu6:
            if node.op != "Relu6":
                raise self._other(f"{node.op} {node.name!r} in the place of the Relu6 of {layer.name}")
            node = self._passed(node)
        bias, batch_norm = None, {}
        if node.op in _BATCH_NORM:
            self._check_batch_norm(node, layer)
            vectors = [self._constant(node, place, (layer.outputs,)) for place in range(1, 5)]
            batch_norm = {f"{layer.name}/BatchNorm/{part}": value for part, value in zip(_PARTS, vectors, strict=True)}
        elif node.op in _ADDITIONS:
            bias = self._constant(node, 1, (layer.outputs,))
        else:
            raise self._other(f"{node.op} {node.name!r} in the place of the bias or BatchNorm of {layer.name}")
        convolution = self._passed(node)
        kind = "DepthwiseConv2dNative" if layer.depthwise else "Conv2D"
        if convolution.op != kind:
            raise self._other(f"{convolution.op} {convolution.name!r} in the place of the {kind} of {layer.name}")
        self._check_convolution(convolution, layer)
        weights = self._constant(convolution, 1, layer.weights_shape)
        return GraphLayer(layer, weights, bias, batch_norm), convolution

    def _check_batch_norm(self, node: Any, layer: Layer) -> None:
        epsilon = np.float32(node.attr["epsilon"].f)
        if node.attr["is_training"].b or epsilon != np.float32(network.EPSILON):
            found = f"{epsilon:g}, training {node.attr['is_training'].b}, in {node.name!r}"
            raise self._refused(f"BatchNorm of {layer.name} for inference, epsilon {network.EPSILON:g}", found)

    def _check_convolution(self, node: Any, layer: Layer) -> None:
        strides, dilations = (list(node.attr[name].list.i) for name in ("strides", "dilations"))
        padding, layout = node.attr["padding"].s, node.attr["data_format"].s
        wanted = [1, layer.stride, layer.stride, 1]
        if strides != wanted or padding != b"SAME" or set(dilations) - {1} or layout not in (b"NHWC", b""):
            found = f"strides {strides}, padding {padding.decode('ascii', 'replace')} in {node.name!r}"
            raise self._refused(f"strides {wanted} and padding SAME in {layer.name}", found)

    def _branch(self, node: Any) -> Any:
        """The side of a residual addition that its block computes: the longer way from the input."""
        if node.op not in ("Add", "AddV2"):
            raise self._other(f"{node.op} {node.name!r} in the place of a residual addition")
        return max((self._passed(node, place) for place in (0, 1)), key=lambda side: self._depth(side.name))

    def _depth(self, name: str) -> int:
        """How many nodes there are on the longest way to a node."""
        order = [name]
        while order:
            current = order[-1]
            inputs = [self._named(text, current).name for text in self._nodes[current].input]
            left = [each for each in inputs if each not in self._depths]
            if len(order) > len(self._nodes):
                raise self._refused("a graph without a circle", f"one through {current!r}")
            if left and current not in self._depths:
                order.extend(left)
                continue
            self._depths[current] = 1 + max((self._depths[each] for each in inputs), default=0)
            order.pop()
        return self._depths[name]

    def _passed(self, node: Any, place: int = 0) -> Any:
        """The node behind an input, with those that change no number left out."""
        for _ in range(len(self._nodes) + 1):
            if len(node.input) <= place:
                raise self._other(f"{node.op} {node.name!r} without an input where one must be")
            node, place = self._named(node.input[place], node.name), 0
            if node.op not in _PASSED:
                return node
        raise self._refused("a graph without a circle", f"one through {node.name!r}")

    def _named(self, text: str, user: str) -> Any:
        name = text.removeprefix("^").split(":")[0]
        if name not in self._nodes:
            raise self._refused(f"the node {name!r}, an input of {user!r}", "no such node")
        return self._nodes[name]

    def _constant(self, node: Any, place: int, shape: tuple[int, ...]) -> Array:
        """A constant among the inputs of a node."""
        from tensorflow.python.framework import tensor_util

        found = self._passed(node, place)
        if found.op != "Const":
            raise self._other(f"{found.op} {found.name!r} in the place of a constant of {node.name!r}")
        try:
            value = np.asarray(tensor_util.MakeNdarray(found.attr["value"].tensor))
        except (TypeError, ValueError) as error:
            raise self._refused(f"a readable constant {found.name!r}", str(error).splitlines()[0]) from error
        if value.dtype != np.float32 or value.shape != shape:
            expected = f"float32 {shape} in the constant {found.name!r} of {node.name!r}"
            raise self._refused(expected, f"{value.dtype} {value.shape}")
        if not np.isfinite(value).all():
            raise self._refused(f"finite numbers in the constant {found.name!r}", "some that are not")
        return value

    def _refused(self, expected: str, found: str) -> InputError:
        return InputError(
            expected=f"{self._source} to have {expected}",
            found=found,
            next_step="fetch it again, or give another --checkpoint",
        )

    def _other(self, found: str) -> OtherLayoutError:
        return OtherLayoutError(
            expected=f"{self._source} to be laid out as the network of TF-Slim's mobilenet_v2.py",
            found=found,
            next_step="give a graph of this network, with --model its name",
        )


def as_values(layers: Sequence[GraphLayer]) -> dict[str, Array]:
    """The constants as variables, for `network.fold`."""
    return {name: value for each in layers for name, value in each.values.items()}

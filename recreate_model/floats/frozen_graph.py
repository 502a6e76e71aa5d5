"""A frozen graph of a MobileNetV2, read by its structure: the constants of each layer, whatever they are called.

Three layouts are known. As `freeze_graph` leaves it, every convolution is followed by its BatchNorm in four constants.
The official archive's graph went through TensorFlow's inference transforms, too: the BatchNorm of each Conv2D is folded
into its weights and a bias, depthwise convolutions keep theirs, and no constant has a variable's name. Keras pads
before a stride of 2, writes BatchNorm as the arithmetic it is, and its classifier is a matrix multiplication.

For: reading the constants, and comparing them with a checkpoint's variables. Not for: converting the graph.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recreate_model.floats.graph_nodes import Nodes, OtherLayoutError
from recreate_model.network import architecture
from recreate_model.network.layer import EPSILON, Layer, fold, folding_factor
from recreate_model.network.spec import MOBILENET_V2, Model
from recreate_model.support.arrays import Array
from recreate_model.support.capture import captured

# Most units in the last place between a constant folded before freezing and the one folded here in float64; of a bias,
# which is a difference, they are units of its terms. Measured on 53 layers: 1 where the graph was folded in float64 as
# TensorFlow's inference transforms do, 3 (weights) and 2 (biases) where every step of it was rounded to float32. Raw
# variables in the place of averages are off by 2 % of a weight, which is some 200,000 units.
FOLDING_ULPS = 8

_BATCH_NORM = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
_ADDITIONS = ("Add", "AddV2", "BiasAdd")
_KERAS_PADDING = [[0, 0], [0, 1], [0, 1], [0, 0]]  # that of SAME at a stride of 2 where the size is even, as it is here
_PADS = ("Pad", "PadV2")
_PARTS = ("gamma", "beta", "moving_mean", "moving_variance")  # as a FusedBatchNorm takes them


@dataclass(frozen=True, eq=False)
class GraphLayer:
    """The constants of one layer.

    Attributes:
        weights: float32, in the shape of `Layer.weights_shape`; a classifier without the background has 1000 outputs.
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
    wanted = fold(layer, values)
    if weights:
        expected = size = wanted.weights
    else:
        beta, mean = (np.asarray(values[f"{layer.name}/BatchNorm/{part}"]) for part in ("beta", "moving_mean"))
        expected = wanted.bias
        size = (np.abs(beta) + np.abs(mean * folding_factor(layer, values))).astype(np.float32)
    difference = np.abs(constant.astype(np.float64) - expected.astype(np.float64))
    return float((difference / np.spacing(np.abs(size))).max(initial=0))


def read_layers(
    data: bytes, model: Model, source: str, classes: Collection[int] = (MOBILENET_V2.classes,)
) -> tuple[GraphLayer, ...]:
    """The constants of every layer, in the order of `network.layers`.

    Args:
        data: a serialised GraphDef.
        source: what to call it in an error.
        classes: how many the classifier may have.

    Raises:
        InputError: not a GraphDef, a node that is missing or stands twice, variables that were not frozen, another
            stride or shape, or a constant that is not finite float32.
        OtherLayoutError: a graph that is not laid out as this network.
    """
    return tuple(_Graph(data, source).layers(model, classes))


def names(data: bytes) -> frozenset[str]:
    """The names of the nodes of a serialised GraphDef that can be read."""
    with captured():
        from tensorflow.core.framework import graph_pb2

    return frozenset(node.name for node in graph_pb2.GraphDef.FromString(data).node)


class _Graph(Nodes):
    """A MobileNetV2, from its softmax to its input."""

    def layers(self, model: Model, classes: Collection[int]) -> Iterator[GraphLayer]:
        """From the input to the classifier; raises as `read_layers`."""
        softmaxes = [node for node in self.nodes.values() if node.op == "Softmax"]
        if len(softmaxes) != 1:
            raise self.other(f"{len(softmaxes)} Softmax nodes among {len(self.nodes)}")
        found = []
        *body, classifier = architecture.layers(model)
        layer, node = self._classifier(classifier, self.passed(softmaxes[0]), classes)
        found.append(layer)
        pool = self.passed(node)
        if pool.op not in ("AvgPool", "Mean"):
            raise self.other(f"{pool.op} {pool.name!r} in the place of the average pool")
        node = pool
        for expected in reversed(body):
            node = self._before(node)
            if expected.residual:
                node = self._branch(node)
            layer, node = self._layer(expected, node)
            found.append(layer)
        end = self._before(node)
        if end.op != "Placeholder":
            raise self.other(f"{end.op} {end.name!r} in the place of the input")
        sizes = [side.size for side in end.attr["shape"].shape.dim][1:3]
        if any(size not in (-1, model.resolution) for size in sizes):
            found_size = " x ".join(map(str, sizes))
            raise self.refused(f"an input of {model.resolution} x {model.resolution} pixels", found_size)
        return reversed(found)

    def _classifier(self, layer: Layer, node: Any, classes: Collection[int]) -> tuple[GraphLayer, Any]:
        """As `_layer`, of the classifier, which may be a matrix multiplication."""
        if node.op not in _ADDITIONS:
            raise self.other(f"{node.op} {node.name!r} in the place of the bias of {layer.name}")
        bias = self.vector(node, 1)
        if len(bias) not in classes:
            expected = f"{' or '.join(map(str, sorted(classes)))} classes"
            raise self.refused(expected, f"{len(bias)} in {node.name!r}")
        layer = replace(layer, outputs=len(bias))
        product = self.passed(node)
        if product.op != "MatMul":
            return self._layer(layer, node)
        turned = bool(product.attr["transpose_b"].b)
        shape = (layer.inputs, layer.outputs)
        weights = self.constant(product, 1, shape[::-1] if turned else shape)
        return GraphLayer(layer, (weights.T if turned else weights).reshape(layer.weights_shape), bias, {}), product

    def _before(self, node: Any) -> Any:
        """The node in front of a convolution and of the padding that it may have, which `_layer` has looked at."""
        before = self.passed(node)
        return self.passed(before) if before.op in _PADS else before

    def _layer(self, layer: Layer, node: Any) -> tuple[GraphLayer, Any]:
        """The layer that ends in a node, and the convolution, whose first input the layer before gives."""
        if layer.relu6:
            if node.op != "Relu6":
                raise self.other(f"{node.op} {node.name!r} in the place of the Relu6 of {layer.name}")
            node = self.passed(node)
        bias, batch_norm = None, {}
        if node.op in _BATCH_NORM:
            self._check_batch_norm(node, layer)
            vectors = [self.constant(node, place, (layer.outputs,)) for place in range(1, 5)]
            batch_norm = {f"{layer.name}/BatchNorm/{part}": value for part, value in zip(_PARTS, vectors, strict=True)}
        elif node.op in _ADDITIONS and self.passed(node, 1).op == "Sub":
            vectors = self._batch_norm_as_arithmetic(node, layer)
            batch_norm = {f"{layer.name}/BatchNorm/{part}": value for part, value in zip(_PARTS, vectors, strict=True)}
            node = self.passed(node)
        elif node.op in _ADDITIONS:
            bias = self.constant(node, 1, (layer.outputs,))
        else:
            raise self.other(f"{node.op} {node.name!r} in the place of the bias or BatchNorm of {layer.name}")
        convolution = self.passed(node)
        kind = "DepthwiseConv2dNative" if layer.depthwise else "Conv2D"
        if convolution.op != kind:
            raise self.other(f"{convolution.op} {convolution.name!r} in the place of the {kind} of {layer.name}")
        self._check_convolution(convolution, layer)
        weights = self.constant(convolution, 1, layer.weights_shape)
        return GraphLayer(layer, weights, bias, batch_norm), convolution

    def _batch_norm_as_arithmetic(self, node: Any, layer: Layer) -> list[Array]:
        """Gamma, beta, mean and variance of x * factor + (beta - mean * factor), factor = rsqrt(variance + e) * gamma.

        That is how `tf.nn.batch_normalization` writes it, from which Keras 3 exports its networks.
        """
        product, difference = self.passed(node), self.passed(node, 1)
        shift, factor = self.passed(difference, 1), self.passed(product, 1)
        root = self.passed(factor)
        total = self.passed(root)
        for part, op in ((product, "Mul"), (shift, "Mul"), (factor, "Mul"), (root, "Rsqrt"), (total, "AddV2")):
            if part.op != op:
                raise self.other(f"{part.op} {part.name!r} in the place of the {op} of the BatchNorm of {layer.name}")
        if self.passed(shift, 1) is not factor:
            raise self.other(f"two factors in the BatchNorm of {layer.name}")
        epsilon = self.constant(total, 1, ())
        if epsilon != np.float32(EPSILON):
            found = f"{epsilon:g} in {total.name!r}"
            raise self.refused(f"BatchNorm of {layer.name} with epsilon {EPSILON:g}", found)
        places = ((factor, 1), (difference, 0), (shift, 0), (total, 0))
        return [self.constant(part, place, (layer.outputs,)) for part, place in places]

    def _check_batch_norm(self, node: Any, layer: Layer) -> None:
        epsilon = np.float32(node.attr["epsilon"].f)
        if node.attr["is_training"].b or epsilon != np.float32(EPSILON):
            found = f"{epsilon:g}, training {node.attr['is_training'].b}, in {node.name!r}"
            raise self.refused(f"BatchNorm of {layer.name} for inference, epsilon {EPSILON:g}", found)

    def _check_convolution(self, node: Any, layer: Layer) -> None:
        strides, dilations = (list(node.attr[name].list.i) for name in ("strides", "dilations"))
        padding, layout = node.attr["padding"].s, node.attr["data_format"].s
        wanted = [1, layer.stride, layer.stride, 1]
        # One pixel at a time needs no padding, and Keras pads by itself.
        same = padding == b"SAME" or (padding == b"VALID" and (layer.kernel == 1 or self._padded(node, layer)))
        if strides != wanted or not same or set(dilations) - {1} or layout not in (b"NHWC", b""):
            found = f"strides {strides}, padding {padding.decode('ascii', 'replace')} in {node.name!r}"
            raise self.refused(f"strides {wanted} and padding SAME in {layer.name}", found)

    def _padded(self, node: Any, layer: Layer) -> bool:
        """Whether a convolution has in front of it the padding that SAME would give it."""
        from tensorflow.python.framework import tensor_util

        before = self.passed(node)
        if layer.stride != 2 or before.op not in _PADS:
            return False
        sides = self.passed(before, 1)
        if sides.op != "Const":
            return False
        filled = before.op == "PadV2" and float(self.constant(before, 2, ())) != 0
        return not filled and tensor_util.MakeNdarray(sides.attr["value"].tensor).tolist() == _KERAS_PADDING

    def _branch(self, node: Any) -> Any:
        """The side of a residual addition that its block computes: the longer way from the input."""
        if node.op not in ("Add", "AddV2"):
            raise self.other(f"{node.op} {node.name!r} in the place of a residual addition")
        return max((self.passed(node, place) for place in (0, 1)), key=lambda side: self.depth(side.name))


def as_values(layers: Sequence[GraphLayer]) -> dict[str, Array]:
    """The constants as variables, for `network.fold`."""
    return {name: value for each in layers for name, value in each.values.items()}

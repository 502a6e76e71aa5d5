"""The constants of each layer in a frozen graph of a MobileNetV2, found by the structure of the graph, not by name.

Three layouts are supported:

- As `freeze_graph` writes it: every convolution is followed by a BatchNorm node with four constants.
- The official archive's graph, which also went through TensorFlow's inference transforms: the BatchNorm of each Conv2D
  is folded into its weights and a bias, depthwise convolutions keep theirs, and no constant has a variable's name.
- Keras: a Pad node precedes each stride of 2, BatchNorm consists of arithmetic nodes, and the classifier is a MatMul.

The module also compares the constants with a checkpoint's variables.
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

# Tolerance, in units in the last place (ULP), between a constant folded before freezing and the same one folded here in
# float64. A bias is a difference, so its ULP is that of the larger terms. Measured on 53 layers: 1 if the graph was
# folded in float64, as TensorFlow's inference transforms do; 3 (weights) and 2 (biases) if every step was rounded to
# float32. Raw variables instead of averages are off by 2 % of a weight, about 200,000 ULP.
FOLDING_ULPS = 8

_BATCH_NORM = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
_ADDITIONS = ("Add", "AddV2", "BiasAdd")
_KERAS_PADDING = [[0, 0], [0, 1], [0, 1], [0, 0]]  # equals SAME for stride 2 and an even size, as all sizes here are
_PADS = ("Pad", "PadV2")
_PARTS = ("gamma", "beta", "moving_mean", "moving_variance")  # in the order of FusedBatchNorm's inputs


@dataclass(frozen=True, eq=False)
class GraphLayer:
    """The constants of one layer.

    Attributes:
        layer: the layer; a classifier without the background has 1000 outputs.
        weights: float32, shape `Layer.weights_shape`.
        bias: float32, shape (outputs,), with BatchNorm folded; None if the graph has BatchNorm.
        batch_norm: gamma, beta, moving mean and moving variance by variable name; empty if BatchNorm is folded.
    """

    layer: Layer
    weights: Array
    bias: Array | None
    batch_norm: Mapping[str, Array]

    @property
    def values(self) -> dict[str, Array]:
        """The constants by variable name, as `fold` takes them; a folded layer has `biases`."""
        folded = {} if self.bias is None else {f"{self.layer.name}/biases": self.bias}
        return {self.layer.weights_name: self.weights, **folded, **self.batch_norm}


@dataclass(frozen=True)
class GraphComparison:
    """The result of comparing a frozen graph's constants with a checkpoint's variables.

    Attributes:
        exact: number of constants compared bit for bit, because they are variables.
        folded: number of constants compared within FOLDING_ULPS, because BatchNorm is folded into them.
        largest_ulps: largest difference of a folded constant that agrees, in ULP.
        first_other: name of the first constant that differs, and by how much; empty if all agree.
        not_checked: why nothing was compared; empty if constants were compared.
    """

    exact: int = 0
    folded: int = 0
    largest_ulps: float = 0.0
    first_other: str = ""
    not_checked: str = ""


def compare(data: bytes, model: Model, values: Mapping[str, Array], source: str) -> GraphComparison:
    """Compare the constants of a frozen graph with a checkpoint's variables.

    Args:
        data: a serialized GraphDef.
        model: the expected member of the family.
        values: every variable of `architecture.variables(model)`.
        source: name of the graph in error messages.

    Returns:
        The comparison; a graph with another layout is reported in its `not_checked`.

    Raises:
        InputError: the graph is damaged, not frozen, or of another network with this layout.
    """
    try:
        found = read_layers(data, model, source)
    except OtherLayoutError as error:
        return GraphComparison(not_checked=error.found)
    exact, folded, largest, differing = 0, 0, 0.0, []
    for graph_layer in found:
        layer = graph_layer.layer
        for name, constant in graph_layer.values.items():
            if graph_layer.bias is None or (name in values and not layer.batch_norm):
                exact += 1
                if not np.array_equal(constant, values[name]):
                    difference = float(np.abs(constant - values[name]).max())
                    differing.append(f"{name}, by up to {difference:.3g}")
                continue
            folded += 1
            ulps = _ulps(layer, constant, name == layer.weights_name, values)
            if ulps > FOLDING_ULPS:
                differing.append(f"{name} with BatchNorm folded, by up to {ulps:.3g} units in the last place")
            else:
                largest = max(largest, ulps)
    return GraphComparison(exact, folded, largest, differing[0] if differing else "")


def _ulps(layer: Layer, constant: Array, weights: bool, values: Mapping[str, Array]) -> float:
    """Return the largest difference in ULP between folded weights or a folded bias, and the variables folded here."""
    folded = fold(layer, values)
    if weights:
        expected = magnitude = folded.weights
    else:
        beta, mean = (np.asarray(values[f"{layer.name}/BatchNorm/{part}"]) for part in ("beta", "moving_mean"))
        expected = folded.bias
        magnitude = (np.abs(beta) + np.abs(mean * folding_factor(layer, values))).astype(np.float32)
    difference = np.abs(constant.astype(np.float64) - expected.astype(np.float64))
    return float((difference / np.spacing(np.abs(magnitude))).max(initial=0))


def read_layers(
    data: bytes, model: Model, source: str, classes: Collection[int] = (MOBILENET_V2.classes,)
) -> tuple[GraphLayer, ...]:
    """Return the constants of every layer, in the order of `architecture.layers`.

    Args:
        data: a serialized GraphDef.
        model: the expected member of the family.
        source: name of the graph in error messages.
        classes: supported numbers of classes.

    Raises:
        InputError: the data is no GraphDef, a node is missing or duplicated, a variable is not frozen, a stride or
            shape is wrong, or a constant is not finite float32.
        OtherLayoutError: the graph has another layout.
    """
    return tuple(_Graph(data, source).layers(model, classes))


def names(data: bytes) -> frozenset[str]:
    """Return the node names of a valid serialized GraphDef."""
    with captured():
        from tensorflow.core.framework import graph_pb2

    return frozenset(node.name for node in graph_pb2.GraphDef.FromString(data).node)


class _Graph(Nodes):
    """Reads the layers of a MobileNetV2 backwards, from the softmax to the input."""

    def layers(self, model: Model, classes: Collection[int]) -> Iterator[GraphLayer]:
        """Return the layers from the input to the classifier. Raises as `read_layers`."""
        softmaxes = [node for node in self.nodes.values() if node.op == "Softmax"]
        if len(softmaxes) != 1:
            raise self.other_layout(f"{len(softmaxes)} Softmax nodes among {len(self.nodes)}")
        found = []
        *body, classifier = architecture.layers(model)
        layer, node = self._classifier(classifier, self.producer(softmaxes[0]), classes)
        found.append(layer)
        pool = self.producer(node)
        if pool.op not in ("AvgPool", "Mean"):
            raise self.other_layout(f"{pool.op} {pool.name!r} instead of the average pool")
        node = pool
        for expected in reversed(body):
            node = self._producer_before_padding(node)
            if expected.residual:
                node = self._branch(node)
            layer, node = self._layer(expected, node)
            found.append(layer)
        placeholder = self._producer_before_padding(node)
        if placeholder.op != "Placeholder":
            raise self.other_layout(f"{placeholder.op} {placeholder.name!r} instead of the input")
        sizes = [dimension.size for dimension in placeholder.attr["shape"].shape.dim][1:3]
        if any(size not in (-1, model.resolution) for size in sizes):
            found_size = " x ".join(map(str, sizes))
            raise self.invalid(f"an input of {model.resolution} x {model.resolution} pixels", found_size)
        return reversed(found)

    def _classifier(self, layer: Layer, node: Any, classes: Collection[int]) -> tuple[GraphLayer, Any]:
        """Read the classifier as `_layer` does; it may also be a matrix multiplication."""
        if node.op not in _ADDITIONS:
            raise self.other_layout(f"{node.op} {node.name!r} instead of the bias of {layer.name}")
        bias = self.vector(node, 1)
        if len(bias) not in classes:
            expected = f"{' or '.join(map(str, sorted(classes)))} classes"
            raise self.invalid(expected, f"{len(bias)} in {node.name!r}")
        layer = replace(layer, outputs=len(bias))
        product = self.producer(node)
        if product.op != "MatMul":
            return self._layer(layer, node)
        transposed = bool(product.attr["transpose_b"].b)
        shape = (layer.inputs, layer.outputs)
        weights = self.constant(product, 1, shape[::-1] if transposed else shape)
        return GraphLayer(layer, (weights.T if transposed else weights).reshape(layer.weights_shape), bias, {}), product

    def _producer_before_padding(self, node: Any) -> Any:
        """Return the node that feeds a convolution, or the Pad in front of it, which `_layer` has checked."""
        source = self.producer(node)
        return self.producer(source) if source.op in _PADS else source

    def _layer(self, layer: Layer, node: Any) -> tuple[GraphLayer, Any]:
        """Return the layer whose last node is `node`, and the layer's convolution node."""
        if layer.relu6:
            if node.op != "Relu6":
                raise self.other_layout(f"{node.op} {node.name!r} instead of the Relu6 of {layer.name}")
            node = self.producer(node)
        bias, batch_norm = None, {}
        if node.op in _BATCH_NORM:
            self._check_batch_norm(node, layer)
            vectors = [self.constant(node, index, (layer.outputs,)) for index in range(1, 5)]
            batch_norm = {f"{layer.name}/BatchNorm/{part}": value for part, value in zip(_PARTS, vectors, strict=True)}
        elif node.op in _ADDITIONS and self.producer(node, 1).op == "Sub":
            vectors = self._batch_norm_as_arithmetic(node, layer)
            batch_norm = {f"{layer.name}/BatchNorm/{part}": value for part, value in zip(_PARTS, vectors, strict=True)}
            node = self.producer(node)
        elif node.op in _ADDITIONS:
            bias = self.constant(node, 1, (layer.outputs,))
        else:
            raise self.other_layout(f"{node.op} {node.name!r} instead of the bias or BatchNorm of {layer.name}")
        convolution = self.producer(node)
        kind = "DepthwiseConv2dNative" if layer.depthwise else "Conv2D"
        if convolution.op != kind:
            raise self.other_layout(f"{convolution.op} {convolution.name!r} instead of the {kind} of {layer.name}")
        self._check_convolution(convolution, layer)
        weights = self.constant(convolution, 1, layer.weights_shape)
        return GraphLayer(layer, weights, bias, batch_norm), convolution

    def _batch_norm_as_arithmetic(self, node: Any, layer: Layer) -> list[Array]:
        """Return gamma, beta, mean and variance of BatchNorm as `tf.nn.batch_normalization` writes it.

        The graph is x * factor + (beta - mean * factor) with factor = rsqrt(variance + epsilon) * gamma. Keras 3
        exports its networks in this form.
        """
        product, difference = self.producer(node), self.producer(node, 1)
        shift, factor = self.producer(difference, 1), self.producer(product, 1)
        root = self.producer(factor)
        total = self.producer(root)
        for part, op in ((product, "Mul"), (shift, "Mul"), (factor, "Mul"), (root, "Rsqrt"), (total, "AddV2")):
            if part.op != op:
                raise self.other_layout(f"{part.op} {part.name!r} instead of the {op} of the BatchNorm of {layer.name}")
        if self.producer(shift, 1) is not factor:
            raise self.other_layout(f"two factors in the BatchNorm of {layer.name}")
        epsilon = self.constant(total, 1, ())
        if epsilon != np.float32(EPSILON):
            found = f"{epsilon:g} in {total.name!r}"
            raise self.invalid(f"BatchNorm of {layer.name} with epsilon {EPSILON:g}", found)
        inputs = ((factor, 1), (difference, 0), (shift, 0), (total, 0))
        return [self.constant(part, index, (layer.outputs,)) for part, index in inputs]

    def _check_batch_norm(self, node: Any, layer: Layer) -> None:
        epsilon = np.float32(node.attr["epsilon"].f)
        if node.attr["is_training"].b or epsilon != np.float32(EPSILON):
            found = f"epsilon {epsilon:g}, is_training {node.attr['is_training'].b} in {node.name!r}"
            expected = f"epsilon {EPSILON:g}, is_training False in the BatchNorm of {layer.name}"
            raise self.invalid(expected, found)

    def _check_convolution(self, node: Any, layer: Layer) -> None:
        strides, dilations = (list(node.attr[name].list.i) for name in ("strides", "dilations"))
        padding, layout = (node.attr[name].s.decode("ascii", "replace") for name in ("padding", "data_format"))
        wanted = [1, layer.stride, layer.stride, 1]
        # A 1x1 filter needs no padding, and Keras pads with a node of its own.
        same = padding == "SAME" or (padding == "VALID" and (layer.kernel == 1 or self._is_padded(node, layer)))
        if strides != wanted or not same or set(dilations) - {1} or layout not in ("NHWC", ""):
            found = f"strides {strides}, dilations {dilations}, padding {padding} and data format {layout or 'NHWC'}"
            raise self.invalid(f"strides {wanted} and padding SAME in {layer.name}", f"{found} in {node.name!r}")

    def _is_padded(self, node: Any, layer: Layer) -> bool:
        """Return whether a Pad node before a convolution adds the zeros that SAME padding would add."""
        from tensorflow.python.framework import tensor_util

        pad = self.producer(node)
        if layer.stride != 2 or pad.op not in _PADS:
            return False
        paddings = self.producer(pad, 1)
        if paddings.op != "Const":
            return False
        nonzero = pad.op == "PadV2" and float(self.constant(pad, 2, ())) != 0
        return not nonzero and tensor_util.MakeNdarray(paddings.attr["value"].tensor).tolist() == _KERAS_PADDING

    def _branch(self, node: Any) -> Any:
        """Return the input of a residual addition that the block computes: the one on the longer path."""
        if node.op not in ("Add", "AddV2"):
            raise self.other_layout(f"{node.op} {node.name!r} instead of a residual addition")
        return max((self.producer(node, index) for index in (0, 1)), key=lambda source: self.depth(source.name))


def as_values(layers: Sequence[GraphLayer]) -> dict[str, Array]:
    """Return the constants of all layers by variable name, as `fold` takes them."""
    return {name: value for layer in layers for name, value in layer.values.items()}

"""MobileNetV2 in any width and resolution of the family: its layers, BatchNorm folding, and the float graph.

The architecture is table 2 of arXiv:1801.04381. The names, the channel rounding and the BatchNorm epsilon are those of
TF-Slim's `mobilenet_v2.py`, which produced the published checkpoints.

BatchNorm is folded here in float64, not by the converter. The converter computes 1/sqrt(variance) with an instruction
whose last bits depend on the CPU, so the last bits of its weights do too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recreate_model.recipe import Model
from recreate_model.support.arrays import Array
from recreate_model.support.capture import captured

if TYPE_CHECKING:
    from collections.abc import Sequence

CLASSES = 1001  # the 1000 classes of ImageNet, and the background as class 0
INPUT_NAME = "input"
OUTPUT_NAME = "MobilenetV2/Predictions/Reshape_1"

_ROOT = "MobilenetV2"
EPSILON = float(np.float32(0.001))  # of BatchNorm, rounded to float32 as in the graph
# Expansion factor, output channels, repeats, stride of the first repeat: table 2 of the paper.
_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_LAST_CHANNELS = 1280
_STEM_CHANNELS = 32


@dataclass(frozen=True)
class Layer:
    """A convolution and the operations between it and the next convolution.

    Attributes:
        name: scope of its variables, such as `MobilenetV2/expanded_conv_1/expand`.
        depthwise: a depthwise convolution, with one filter per channel.
        kernel: height and width of the filter.
        stride: stride in both directions; padding is always SAME.
        inputs, outputs: numbers of channels.
        batch_norm: BatchNorm follows; otherwise, a bias is added.
        relu6: ReLU6 follows.
        residual: name of the residual addition that follows, or empty. It adds the input of this layer's block.
        block_start: this is the first layer of its block; a later `residual` of the block adds this layer's input.
    """

    name: str
    depthwise: bool
    kernel: int
    stride: int
    inputs: int
    outputs: int
    batch_norm: bool = True
    relu6: bool = True
    residual: str = ""
    block_start: bool = False

    @property
    def weights_name(self) -> str:
        """Name of the weights variable in the checkpoint."""
        return f"{self.name}/{'depthwise_weights' if self.depthwise else 'weights'}"

    @property
    def weights_shape(self) -> tuple[int, int, int, int]:
        """(height, width, input channels, output channels); a depthwise layer ends in its channel multiplier, 1."""
        return (self.kernel, self.kernel, self.inputs, 1 if self.depthwise else self.outputs)

    @property
    def variables(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of this layer's variables, named as in the checkpoint."""
        vectors = (
            [f"{self.name}/BatchNorm/{part}" for part in ("gamma", "beta", "moving_mean", "moving_variance")]
            if self.batch_norm
            else [f"{self.name}/biases"]
        )
        return {self.weights_name: self.weights_shape, **dict.fromkeys(vectors, (self.outputs,))}


@dataclass(frozen=True, eq=False)
class Folded:
    """Weights and bias of a layer after BatchNorm folding, float32.

    Attributes:
        weights: shape `Layer.weights_shape`.
        bias: shape (outputs,).
    """

    weights: Array
    bias: Array


def channels(base: int, width: str) -> int:
    """Return `base` channels times the width multiplier, as TF-Slim's `_make_divisible` rounds it.

    The result is the nearest multiple of 8, at least 8, or the next larger one if rounding down lost more than 10 %.
    """
    exact = base * float(width)
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def layers(model: Model) -> tuple[Layer, ...]:
    """Return all convolutions of the network in order; the last is the classifier, after the average pool."""
    return tuple(_layers(model))


def _layers(model: Model) -> Iterator[Layer]:
    current = channels(_STEM_CHANNELS, model.width)
    yield Layer(f"{_ROOT}/Conv", False, 3, 2, 3, current)
    index = 0
    for expansion, base, repeats, first_stride in _BLOCKS:
        for repeat in range(repeats):
            scope = f"{_ROOT}/expanded_conv_{index}" if index else f"{_ROOT}/expanded_conv"
            stride = first_stride if repeat == 0 else 1
            wide, narrow = current * expansion, channels(base, model.width)
            if expansion > 1:
                yield Layer(f"{scope}/expand", False, 1, 1, current, wide, block_start=True)
            yield Layer(f"{scope}/depthwise", True, 3, stride, wide, wide, block_start=expansion == 1)
            residual = f"{scope}/add" if stride == 1 and current == narrow else ""
            yield Layer(f"{scope}/project", False, 1, 1, wide, narrow, relu6=False, residual=residual)
            current = narrow
            index += 1
    # As in the paper, a width multiplier below 1 does not apply to the last convolution.
    last = channels(_LAST_CHANNELS, model.width) if float(model.width) > 1 else _LAST_CHANNELS
    yield Layer(f"{_ROOT}/Conv_1", False, 1, 1, current, last)
    yield Layer(f"{_ROOT}/Logits/Conv2d_1c_1x1", False, 1, 1, last, CLASSES, batch_norm=False, relu6=False)


def variables(model: Model) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every variable that inference needs, in the order of the layers."""
    return {name: shape for layer in layers(model) for name, shape in layer.variables.items()}


def is_folded(layer: Layer, values: Mapping[str, Array]) -> bool:
    """Return whether a layer has a bias instead of BatchNorm: the classifier, or a layer folded in the source."""
    return not layer.batch_norm or f"{layer.name}/biases" in values


def folding_factor(layer: Layer, values: Mapping[str, Array]) -> Array:
    """Return gamma / sqrt(variance + epsilon) of a layer with BatchNorm: float64, shape (outputs,).

    IEEE 754 addition, division and square root are correctly rounded, so the result is the same on every CPU.
    """
    gamma, variance = (
        np.asarray(values[f"{layer.name}/BatchNorm/{part}"], np.float64) for part in ("gamma", "moving_variance")
    )
    factor: Array = gamma / np.sqrt(variance + EPSILON)
    return factor


def fold(layer: Layer, values: Mapping[str, Array]) -> Folded:
    """Fold BatchNorm into weights and bias. Computes in float64, and rounds to float32 once, at the end.

    Args:
        layer: the layer to fold.
        values: the layer's variables, or its weights and `biases` if it is folded already.
    """
    weights = np.asarray(values[layer.weights_name], np.float64)
    if is_folded(layer, values):
        return Folded(weights.astype(np.float32), np.asarray(values[f"{layer.name}/biases"], np.float32))
    beta, mean = (np.asarray(values[f"{layer.name}/BatchNorm/{part}"], np.float64) for part in ("beta", "moving_mean"))
    factor = folding_factor(layer, values)
    channel_axis = (1, 1, -1, 1) if layer.depthwise else (1, 1, 1, -1)
    return Folded(
        (weights * factor.reshape(channel_axis)).astype(np.float32), (beta - mean * factor).astype(np.float32)
    )


def frozen_graph(model: Model, values: Mapping[str, Array]) -> bytes:
    """Return the network as a serialized GraphDef.

    Its input is float32 (1, resolution, resolution, 3), its output the softmax, float32 (1, 1001). BatchNorm is folded
    as `fold` does. Serialization is deterministic; protobuf's default order of map entries varies from run to run.

    Args:
        model: the member of the family.
        values: every one of `variables(model)`; a folded layer has `biases` instead of its BatchNorm variables.
    """
    graph = _GraphWriter()
    tensor = graph.placeholder(INPUT_NAME, (1, model.resolution, model.resolution, 3))
    block_input = tensor
    *body, classifier = layers(model)
    for layer in body:
        if layer.block_start:
            block_input = tensor
        tensor = graph.convolution(layer, fold(layer, values), tensor)
        if layer.residual:
            tensor = graph.node("AddV2", layer.residual, [tensor, block_input], T=np.float32)
    pool = [1, final_size(model), final_size(model), 1]
    tensor = graph.node(
        "AvgPool", f"{_ROOT}/Logits/AvgPool", [tensor], ksize=pool, strides=[1, 1, 1, 1], padding=b"VALID", T=np.float32
    )
    tensor = graph.convolution(classifier, fold(classifier, values), tensor)
    shape = graph.constant(f"{_ROOT}/Predictions/Reshape/shape", np.array([1, CLASSES], np.int32))
    tensor = graph.node("Reshape", f"{_ROOT}/Predictions/Reshape", [tensor, shape], T=np.float32, Tshape=np.int32)
    graph.node("Softmax", OUTPUT_NAME, [tensor], T=np.float32)
    return graph.serialize()


def final_size(model: Model) -> int:
    """Return the height and width of the last feature map; the network halves its input five times."""
    return model.resolution // 32


class _GraphWriter:
    """Builds a GraphDef node by node. The caller names every node; each method returns its node's name."""

    def __init__(self) -> None:
        with captured():
            from tensorflow.core.framework import graph_pb2

        self._graph = graph_pb2.GraphDef()
        # Version of the GraphDef semantics. TensorFlow rejects a graph with a version newer than its own.
        self._graph.versions.producer = 27

    def placeholder(self, name: str, shape: Sequence[int]) -> str:
        node = self._graph.node.add(op="Placeholder", name=name)
        _set(node.attr["dtype"], np.float32)
        for size in shape:
            node.attr["shape"].shape.dim.add(size=size)
        return name

    def constant(self, name: str, value: Array) -> str:
        node = self._graph.node.add(op="Const", name=name)
        _set(node.attr["dtype"], value.dtype.type)
        tensor = node.attr["value"].tensor
        tensor.dtype = node.attr["dtype"].type
        for size in value.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_content = value.astype(value.dtype.newbyteorder("<")).tobytes()
        return name

    def node(self, op: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        node = self._graph.node.add(op=op, name=name, input=inputs)
        for key, value in attributes.items():
            _set(node.attr[key], value)
        return name

    def convolution(self, layer: Layer, folded: Folded, tensor: str) -> str:
        """Add the convolution, its bias and its ReLU6; return the name of the last node."""
        op, leaf = ("DepthwiseConv2dNative", "depthwise") if layer.depthwise else ("Conv2D", "Conv2D")
        weights = self.constant(layer.weights_name, folded.weights)
        tensor = self.node(
            op,
            f"{layer.name}/{leaf}",
            [tensor, weights],
            strides=[1, layer.stride, layer.stride, 1],
            padding=b"SAME",
            T=np.float32,
        )
        bias = self.constant(f"{layer.name}/biases", folded.bias)
        tensor = self.node("BiasAdd", f"{layer.name}/BiasAdd", [tensor, bias], T=np.float32)
        return self.node("Relu6", f"{layer.name}/Relu6", [tensor], T=np.float32) if layer.relu6 else tensor

    def serialize(self) -> bytes:
        data: bytes = self._graph.SerializeToString(deterministic=True)
        return data


def _set(attribute: Any, value: Any) -> None:
    """Set an AttrValue to a string, a list of integers, or a type."""
    if isinstance(value, bytes):
        attribute.s = value
    elif isinstance(value, list):
        attribute.list.i.extend(value)
    else:
        from tensorflow.core.framework import types_pb2

        attribute.type = {np.float32: types_pb2.DT_FLOAT, np.int32: types_pb2.DT_INT32}[value]

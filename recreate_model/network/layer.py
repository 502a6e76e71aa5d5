"""A layer of a network of convolutions, and the folding of its BatchNorm in float64.

BatchNorm is folded here, not by the converter. The converter computes 1/sqrt(variance) with an instruction whose last
bits depend on the CPU, so the last bits of its weights do too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recreate_model.support.arrays import Array

EPSILON = float(np.float32(0.001))  # of BatchNorm in TF-Slim's networks, rounded to float32 as in the graph


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

"""The weights and biases of a convolution, by output channel, from an INT8 model and from a checkpoint.

Variables have the shape (height, width, in, out), or (height, width, channels, 1) if depthwise. TensorFlow Lite uses
(out, height, width, in) and (1, height, width, channels). Here weights are (output channels, weights per channel).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recreate_model.network.layer import Layer, folding_factor, is_folded
from recreate_model.prove.recover import CONVOLUTIONS, network_operators
from recreate_model.quantize.quantizer import scales_of
from recreate_model.support.arrays import Array
from recreate_model.tflite.model_view import ModelView, Operator, Tensor

# Tolerance of a folding factor in float32 ulps. CPUs approximate 1/sqrt with one Newton step: errors of 2 ulps were
# measured, and the 12 bits of `rsqrtps` allow at most 4.
FACTOR_ULPS = 6

# Tolerance of a bias that another program folded, in levels. Such a bias is beta - mean * factor, of which only the
# result is known. In a channel whose weights are almost zero, the scale is so small that the bias has 2^20 levels or
# more (usually about 1e9); there the tolerance is relative. Two checkpoints have 14 and 12 such channels out of 17,056.
# TensorFlow's converter had errors of at most 5e-6 (relative) there and 0.06 levels in other channels. Factors wrong by
# FACTOR_ULPS would give 3.8e-5 and 0.6 levels. Raw variables instead of moving averages give 2e-2.
BIAS_LEVELS = 1
BIAS_PART = 2.0**-14
_MANY_LEVELS = 2**20


@dataclass(frozen=True, eq=False)
class Channels:
    """The quantized values of a convolution in an INT8 model.

    Attributes:
        weights: int8 (channels, weights per channel).
        scales: weight scales, float32 (channels,).
        bias: int32 (channels,).
        bias_scales: float32 (channels,).
        recorded: smallest and largest weight of each channel before quantization, float32 (channels, 2), if the old
            quantizer recorded them; else zeros.
    """

    weights: Array
    scales: Array
    bias: Array
    bias_scales: Array
    recorded: Array


@dataclass(frozen=True, eq=False)
class Factors:
    """The float values of a convolution in a checkpoint, before BatchNorm is folded.

    Attributes:
        weights: float32 (channels, weights per channel).
        beta: float32 (channels,); the bias in a layer without BatchNorm.
        mean: float32 (channels,); zeros in a layer without BatchNorm.
        exact: the folding factors gamma / sqrt(variance + epsilon), float64 (channels,); ones in a layer without
            BatchNorm.
        ulps: tolerance of a folding factor, in float32 ulps.
        bias_levels: tolerance of a bias that another program folded, in levels; 0 where the bias is exact.
    """

    weights: Array
    beta: Array
    mean: Array
    exact: Array
    ulps: int
    bias_levels: int = 0

    def bias_tolerance(self, scales: Array) -> Array:
        """The tolerance of each bias in levels of its scale, float64 (channels,)."""
        if not self.bias_levels:
            return np.zeros(len(self.beta))
        levels = np.abs(self.beta) / scales
        return np.where(levels > _MANY_LEVELS, levels * BIAS_PART, self.bias_levels)

    def fold(self, shift: Array) -> tuple[Array, Array]:
        """Folds BatchNorm in float32 with corrected factors: weights (channels, weights per channel), bias (channels,).

        Args:
            shift: the correction of each factor in float32 ulps, int (channels,).
        """
        factor = add_ulps(self.exact.astype(np.float32), shift)
        return self.weights * factor[:, None], self.beta - self.mean * factor


def add_ulps(values: Array, ulps: Array) -> Array:
    """float32 values with their magnitude increased by a number of ulps; zeros stay zero."""
    return np.where(values == 0, values, (values.view(np.int32) + ulps.astype(np.int32)).view(np.float32))


def convolutions(view: ModelView) -> tuple[Operator, ...]:
    """The convolutions in the order of the graph, which is that of `architecture.layers`."""
    return tuple(operator for operator in network_operators(view) if operator.name in CONVOLUTIONS)


def channels(view: ModelView, operator: Operator) -> Channels | None:
    """The quantized values of a convolution; None unless it has int8 weights and an int32 bias."""
    if len(operator.inputs) != 3 or min(operator.inputs) < 0:
        return None
    weights, bias = (view.tensors[index] for index in operator.inputs[1:])
    if (weights.dtype, bias.dtype) != ("int8", "int32") or not (weights.data and bias.data):
        return None
    if any(tensor.rest.get("sparsity") is not None for tensor in (weights, bias)):
        return None  # the data of a sparse tensor is not a plain array
    values = by_channel(values_of(weights), operator)
    scales, bias_scales = scales_of(weights), scales_of(bias)
    biases = np.frombuffer(bias.data, np.int32)
    if not len(values) == len(scales) == len(bias_scales) == len(biases):
        return None
    recorded = np.zeros((len(scales), 2), np.float32)
    if len(weights.minimum) == len(weights.maximum) == len(scales):
        recorded = np.array([weights.minimum, weights.maximum], np.float32).T
    return Channels(values, scales, biases, bias_scales, recorded)


def factors(layer: Layer, values: Mapping[str, Array]) -> Factors:
    """The checkpoint's values of a convolution; `values` as in `checkpoint.FloatWeights`."""
    weights = values[layer.weights_name]
    first = weights[..., 0] if layer.depthwise else weights
    flat = np.ascontiguousarray(np.moveaxis(first, -1, 0).reshape(layer.outputs, -1))
    if is_folded(layer, values):
        bias, ones = values[f"{layer.name}/biases"], np.ones(layer.outputs)
        # If another program folded BatchNorm, it rounded every value, and beta and mean are not known.
        ulps, levels = (FACTOR_ULPS, BIAS_LEVELS) if layer.batch_norm else (0, 0)
        return Factors(flat, bias, np.zeros(layer.outputs, np.float32), ones, ulps, levels)
    beta, mean = (values[f"{layer.name}/BatchNorm/{part}"] for part in ("beta", "moving_mean"))
    return Factors(flat, beta, mean, folding_factor(layer, values), FACTOR_ULPS)


def values_of(tensor: Tensor) -> Array:
    """The elements of a constant in its shape. The tensor's type must be the name of a numpy type."""
    return np.frombuffer(tensor.data, np.dtype(tensor.dtype)).reshape(tensor.shape)


def channel_axis(operator: Operator) -> int:
    """The axis of a convolution's weights that counts the output channels."""
    return 3 if operator.name == "DEPTHWISE_CONV_2D" else 0


def by_channel(values: Array, operator: Operator) -> Array:
    """A weight tensor as (channels, weights per channel)."""
    axis = channel_axis(operator)
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def from_channels(values: Array, shape: tuple[int, ...], operator: Operator) -> Array:
    """The inverse of `by_channel`: the flat array of a weight tensor of the given shape."""
    flat = values.T if operator.name == "DEPTHWISE_CONV_2D" else values
    return np.ascontiguousarray(flat).reshape(shape).ravel()

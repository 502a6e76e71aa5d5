"""The numbers of a convolution in one layout, as an INT8 model holds them and as a checkpoint gives them.

Variables are (height, width, in, out), or (height, width, channels, 1) where depthwise; TensorFlow Lite has (out,
height, width, in) and (1, height, width, channels). Here all are (output channels, everything else).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recreate_model.network.layer import Layer, folding_factor, is_folded
from recreate_model.prove.recover import CONVOLUTIONS, network_operators
from recreate_model.quantize.quantiser import scales_of
from recreate_model.support.arrays import Array
from recreate_model.tflite.model_view import ModelView, Operator, Tensor

# Most units in the last place (float32) that a factor may be off: approximations with one Newton step, as CPUs have
# them, were measured at 2; the worst that the 12 bits of `rsqrtps` allow is 4.
FACTOR_ULPS = 6

# Most levels that a bias may be off one folded elsewhere: it is a difference, of which only the result is known. A
# channel whose weights are next to nothing has a scale that makes the bias 2^20 levels and more, 1e9 mostly; there it
# may be off by a part of itself. Of the 17,056 channels of two checkpoints 14 and 12 are such. TensorFlow's converter
# was off by at most 5e-6 there and 0.06 levels elsewhere, and factors off by FACTOR_ULPS would give 3.8e-5 and 0.6
# levels; raw variables in the place of averages are off by 2e-2.
BIAS_LEVELS = 1
BIAS_PART = 2.0**-14
_MANY_LEVELS = 2**20


@dataclass(frozen=True, eq=False)
class Channels:
    """A convolution's numbers in one layout: weights (channels, everything else), the rest (channels,).

    Attributes:
        recorded: smallest and largest weight before quantisation, (channels, 2), where the old quantizer wrote them
            down; else zeros.
    """

    weights: Array
    scales: Array
    bias: Array
    bias_scales: Array
    recorded: Array


@dataclass(frozen=True, eq=False)
class Factors:
    """What the checkpoint gives for a convolution, float32 and in the layout of `Channels`.

    Attributes:
        weights, beta, mean: before folding; a layer without BatchNorm has its bias as beta.
        exact: gamma / sqrt(variance + epsilon) in float64; ones for a layer without BatchNorm.
        ulps: how far off a factor may be.
        bias_levels: how far off the bias may be, in levels of the INT8 model, as it was folded elsewhere.
    """

    weights: Array
    beta: Array
    mean: Array
    exact: Array
    ulps: int
    bias_levels: int = 0

    def bias_tolerance(self, scales: Array) -> Array:
        """How many levels of these scales the biases may be off, as they were folded elsewhere."""
        if not self.bias_levels:
            return np.zeros(len(self.beta))
        levels = np.abs(self.beta) / scales
        return np.where(levels > _MANY_LEVELS, levels * BIAS_PART, self.bias_levels)

    def fold(self, shift: Array) -> tuple[Array, Array]:
        """Weights and bias as float32 arithmetic folds them with factors `shift` units in the last place off."""
        factor = moved(self.exact.astype(np.float32), shift)
        return self.weights * factor[:, None], self.beta - self.mean * factor


def moved(values: Array, ulps: Array) -> Array:
    """float32 values moved away from zero by whole units in the last place; a zero stays one."""
    return np.where(values == 0, values, (values.view(np.int32) + ulps.astype(np.int32)).view(np.float32))


def convolutions(view: ModelView) -> tuple[Operator, ...]:
    """The convolutions in the order of the graph, which is that of `network.layers`."""
    return tuple(operator for operator in network_operators(view) if operator.name in CONVOLUTIONS)


def channels(view: ModelView, operator: Operator) -> Channels | None:
    """The numbers of a quantised convolution, or None where it is not one with int8 weights and an int32 bias."""
    if len(operator.inputs) != 3 or min(operator.inputs) < 0:
        return None
    weights, bias = (view.tensors[index] for index in operator.inputs[1:])
    if (weights.dtype, bias.dtype) != ("int8", "int32") or not (weights.data and bias.data):
        return None
    if any(tensor.rest.get("sparsity") is not None for tensor in (weights, bias)):
        return None  # its data is not one number after the other
    values = by_channel(values_of(weights), operator)
    scales, bias_scales = scales_of(weights), scales_of(bias)
    numbers = np.frombuffer(bias.data, np.int32)
    if not len(values) == len(scales) == len(bias_scales) == len(numbers):
        return None
    recorded = np.zeros((len(scales), 2), np.float32)
    if len(weights.minimum) == len(weights.maximum) == len(scales):
        recorded = np.array([weights.minimum, weights.maximum], np.float32).T
    return Channels(values, scales, numbers, bias_scales, recorded)


def factors(layer: Layer, values: Mapping[str, Array]) -> Factors:
    """The checkpoint's part of a convolution; `values` as in `checkpoint.FloatWeights`."""
    # Variables are (height, width, in, out); TensorFlow Lite has (out, height, width, in), and depthwise out last.
    weights = values[layer.weights_name]
    first = weights[..., 0] if layer.depthwise else weights
    flat = np.ascontiguousarray(np.moveaxis(first, -1, 0).reshape(layer.outputs, -1))
    if is_folded(layer, values):
        bias, ones = values[f"{layer.name}/biases"], np.ones(layer.outputs)
        # Folded by another program, each number was rounded by itself; what a bias was made of is not known.
        elsewhere = layer.batch_norm
        ulps, levels = (FACTOR_ULPS, BIAS_LEVELS) if elsewhere else (0, 0)
        return Factors(flat, bias, np.zeros(layer.outputs, np.float32), ones, ulps, levels)
    beta, mean = (values[f"{layer.name}/BatchNorm/{part}"] for part in ("beta", "moving_mean"))
    return Factors(flat, beta, mean, folding_factor(layer, values), FACTOR_ULPS)


def values_of(tensor: Tensor) -> Array:
    """The numbers of a constant, in its shape; its type is one that numpy has by the same name."""
    return np.frombuffer(tensor.data, np.dtype(tensor.dtype)).reshape(tensor.shape)


def channel_axis(operator: Operator) -> int:
    """Which axis of a convolution's weights counts the output channels."""
    return 3 if operator.name == "DEPTHWISE_CONV_2D" else 0


def by_channel(values: Array, operator: Operator) -> Array:
    """A weight tensor as (channels, everything else)."""
    axis = channel_axis(operator)
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def from_channels(values: Array, shape: tuple[int, ...], operator: Operator) -> Array:
    """The flat array of a weight tensor of this shape, from its values by channel."""
    flat = values.T if operator.name == "DEPTHWISE_CONV_2D" else values
    return np.ascontiguousarray(flat).reshape(shape).ravel()

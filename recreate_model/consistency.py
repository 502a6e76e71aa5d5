"""Whether every number of an INT8 model is what a checkpoint rounds to, whatever CPU folded its BatchNorm.

TensorFlow's converter folds BatchNorm in float32 with an approximate 1/sqrt, whose last bits depend on the CPU: of each
channel only the folding factor gamma / sqrt(variance + epsilon) is uncertain, by a few units in its last place. All
weights of a channel and its bias must be explained by one factor, so the one uncertainty cannot hide anything else.

Not for: which toolchain wrote the file (`prove`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recreate_model.model_view import ModelView, Operator, Tensor
from recreate_model.network import EPSILON, Array, Layer
from recreate_model.quantiser import LARGEST_WEIGHT, SMALLEST_HALF_RANGE, round_away
from recreate_model.recover import CONVOLUTIONS, network_operators

# Most units in the last place (float32) that a factor may be off: approximations with one Newton step, as CPUs have
# them, were measured at 2; the worst that the 12 bits of `rsqrtps` allow is 4.
FACTOR_ULPS = 6
# What rounding to float32 adds between factor and level, relative: weight, reciprocal of the scale, product.
_ROUNDING = 4 * 2.0**-24
_SCALE_FLOOR = 1e-6  # below it TensorFlow 2.5 and 2.6 do not go
_BIAS_LIMIT = 2.0**31 - 1  # the quantisers widen a scale until the bias needs half of it


@dataclass(frozen=True, eq=False)
class Channels:
    """A convolution's numbers in one layout: weights (channels, everything else), the rest (channels,)."""

    weights: Array
    scales: Array
    bias: Array
    bias_scales: Array


@dataclass(frozen=True, eq=False)
class Factors:
    """What the checkpoint gives for a convolution, float32 and in the layout of `Channels`.

    Attributes:
        weights, beta, mean: before folding; a layer without BatchNorm has its bias as beta.
        exact: gamma / sqrt(variance + epsilon) in float64; ones for a layer without BatchNorm.
        ulps: how far off a factor may be.
    """

    weights: Array
    beta: Array
    mean: Array
    exact: Array
    ulps: int

    def fold(self, shift: Array) -> tuple[Array, Array]:
        """Weights and bias as float32 arithmetic folds them with factors `shift` units in the last place off."""
        factor = moved(self.exact.astype(np.float32), shift)
        return self.weights * factor[:, None], self.beta - self.mean * factor


@dataclass(frozen=True)
class Refutation:
    """A number that the checkpoint does not give, whatever the CPU."""

    tensor: str
    what: str
    expected: str
    found: str


@dataclass(frozen=True, eq=False)
class Layerwise:
    """One convolution compared.

    Attributes:
        on_a_tie: weights that round to another level with the exact factor, and to this one within the tolerance.
        lowest, highest: bounds, in ulps from the exact one, on the factors that explain each channel.
    """

    weights: int
    biases: int
    on_a_tie: int
    biases_on_a_tie: int
    lowest: Array
    highest: Array
    refutations: tuple[Refutation, ...]


def moved(values: Array, ulps: Array) -> Array:
    """float32 values, none of them zero or huge, moved away from zero by whole units in the last place."""
    return (values.view(np.int32) + ulps.astype(np.int32)).view(np.float32)


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
    values = _by_channel(np.frombuffer(weights.data, np.int8).reshape(weights.shape), operator)
    scales, bias_scales = _scales(weights), _scales(bias)
    numbers = np.frombuffer(bias.data, np.int32)
    if not len(values) == len(scales) == len(bias_scales) == len(numbers):
        return None
    return Channels(values, scales, numbers, bias_scales)


def factors(layer: Layer, values: Mapping[str, Array]) -> Factors:
    """The checkpoint's part of a convolution; `values` as in `checkpoint.FloatWeights`."""
    # Variables are (height, width, in, out); TensorFlow Lite has (out, height, width, in), and depthwise out last.
    weights = values[layer.weights_name]
    first = weights[..., 0] if layer.depthwise else weights
    flat = np.ascontiguousarray(np.moveaxis(first, -1, 0).reshape(layer.outputs, -1))
    if not layer.batch_norm:
        ones = np.ones(layer.outputs)
        return Factors(flat, values[f"{layer.name}/biases"], np.zeros(layer.outputs, np.float32), ones, 0)
    gamma, beta, mean, variance = (
        values[f"{layer.name}/BatchNorm/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    exact = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + EPSILON)
    return Factors(flat, beta, mean, exact, FACTOR_ULPS)


def layout(operator: Operator, view: ModelView, by_channel: Array) -> Array:
    """Weights by channel as the flat array of the operator's tensor."""
    shape = view.tensors[operator.inputs[1]].shape
    if operator.name == "DEPTHWISE_CONV_2D":
        return np.ascontiguousarray(by_channel.T).ravel()
    return np.ascontiguousarray(by_channel.reshape(shape)).ravel()


def compare(view: ModelView, layers: Sequence[Layer], values: Mapping[str, Array]) -> tuple[Layerwise, ...]:
    """Compares every convolution of an INT8 model with a checkpoint's variables, in order.

    The caller has seen to it that there are as many convolutions as layers, of the same shapes.
    """
    return tuple(
        _layer(view, operator, factors(layer, values))
        for operator, layer in zip(convolutions(view), layers, strict=True)
    )


def _layer(view: ModelView, operator: Operator, given: Factors) -> Layerwise:
    found = channels(view, operator)
    weights_name, bias_name = (view.tensors[index].name for index in operator.inputs[1:3])
    if found is None or found.weights.shape != given.weights.shape:
        refutation = Refutation(weights_name, "weights", f"int8 {given.weights.shape}", "other types or shapes")
        none = np.zeros(len(given.exact))
        return Layerwise(given.weights.size, len(given.exact), 0, 0, none, none, (refutation,))
    source = view.tensors[operator.inputs[0]].quantisation
    input_scale = source.scales[0] if source else 0.0
    low, high = _factor_bounds(found, given)
    exact_weights = np.clip(
        round_away(given.weights * given.exact[:, None] / found.scales[:, None].astype(np.float64)),
        -LARGEST_WEIGHT,
        LARGEST_WEIGHT,
    )
    bias_low, bias_high = _bias_bounds(found, given, low, high)
    exact_bias = round_away((given.beta - given.mean * given.exact) / found.bias_scales.astype(np.float64))
    refutations = (
        *_refuted_weights(weights_name, found, given, low > high),
        *_refuted_scales(weights_name, found, given, input_scale),
        *_refuted_biases(bias_name, found, input_scale, bias_low, bias_high),
    )
    unit = np.abs(np.spacing(given.exact.astype(np.float32))).astype(np.float64)
    offset = given.exact - given.exact.astype(np.float32)
    sign = np.where(given.exact < 0, -1, 1)
    lowest, highest = ((bound + offset * sign) / unit for bound in (low, high))
    return Layerwise(
        weights=found.weights.size,
        biases=len(found.bias),
        on_a_tie=int((exact_weights != found.weights).sum()),
        biases_on_a_tie=int((exact_bias != found.bias).sum()),
        lowest=lowest,
        highest=highest,
        refutations=refutations,
    )


def _factor_bounds(found: Channels, given: Factors) -> tuple[Array, Array]:
    """Bounds on |factor| - |exact|, in real units, that explain all weights of a channel; crossed where none does."""
    unit = np.abs(np.spacing(given.exact.astype(np.float32))).astype(np.float64)
    allowed = given.ulps * unit
    magnitude = np.abs(given.exact)[:, None]
    # weight * factor / scale must be within half a level of the level found.
    slope = given.weights * np.sign(given.exact)[:, None] / found.scales[:, None].astype(np.float64)
    exact = slope * magnitude
    with np.errstate(divide="ignore", invalid="ignore"):
        slack = (np.abs(exact) + 1) * _ROUNDING
        below = np.where(found.weights == -LARGEST_WEIGHT, -np.inf, found.weights - 0.5 - slack)
        above = np.where(found.weights == LARGEST_WEIGHT, np.inf, found.weights + 0.5 + slack)
        ends = np.stack([(below - exact) / slope, (above - exact) / slope])
    dead = slope == 0
    low = np.where(dead, np.where((below <= 0) & (above >= 0), -np.inf, np.inf), ends.min(axis=0)).max(axis=1)
    high = np.where(dead, np.inf, ends.max(axis=0)).min(axis=1)
    return np.maximum(low, -allowed), np.minimum(high, allowed)


def _bias_bounds(found: Channels, given: Factors, low: Array, high: Array) -> tuple[Array, Array]:
    """The lowest and highest int32 bias that the factors within the bounds give."""
    low, high = np.minimum(low, high), np.maximum(low, high)
    sign = np.where(given.exact < 0, -1, 1)
    ends = np.stack([given.beta - given.mean * (given.exact + sign * bound) for bound in (low, high)])
    scales = found.bias_scales.astype(np.float64)
    slack = (np.abs(given.beta) + np.abs(given.mean * given.exact)) * 3 * 2.0**-24 + np.abs(ends).max(
        axis=0
    ) * _ROUNDING
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        bottom = (ends.min(axis=0) - slack) / scales - 0.5
        top = (ends.max(axis=0) + slack) / scales + 0.5
    return np.clip(np.ceil(bottom), -(2.0**31), _BIAS_LIMIT), np.clip(np.floor(top), -(2.0**31), _BIAS_LIMIT)


def _refuted_weights(name: str, found: Channels, given: Factors, crossed: Array) -> Iterator[Refutation]:
    for channel in np.flatnonzero(crossed):
        levels = given.weights[channel] * given.exact[channel] / float(found.scales[channel])
        off = np.abs(found.weights[channel] - levels)
        worst = int(off.argmax())
        yield Refutation(
            name,
            f"weight {worst} of channel {channel}",
            f"{levels[worst]:.4f} before rounding",
            f"{found.weights[channel, worst]}",
        )


def _refuted_scales(name: str, found: Channels, given: Factors, input_scale: float) -> Iterator[Refutation]:
    """A scale is the largest weight's 127th, unless that is too small for the bias or for the quantiser."""
    tolerance = given.ulps * 2.0**-23 + _ROUNDING
    largest = np.abs(given.weights).max(axis=1) * np.abs(given.exact)
    natural = largest / LARGEST_WEIGHT
    bias = np.abs(given.beta - given.mean * given.exact)
    with np.errstate(divide="ignore"):
        limited = 2 * bias / _BIAS_LIMIT / input_scale if input_scale > 0 else np.zeros_like(bias)
    accepted = np.zeros(len(natural), bool)
    for value, holds in (
        (natural, np.ones(len(natural), bool)),
        (limited, limited > natural),
        (np.full_like(natural, SMALLEST_HALF_RANGE / LARGEST_WEIGHT), largest < SMALLEST_HALF_RANGE),
        (np.full_like(natural, _SCALE_FLOOR), natural < _SCALE_FLOOR),
    ):
        # The bias is a difference, so it is less certain than a product.
        accepted |= holds & (np.abs(found.scales - value) <= value * tolerance * (1 if value is not limited else 64))
    for channel in np.flatnonzero(~accepted):
        yield Refutation(
            name, f"scale of channel {channel}", f"{natural[channel]:.9g}", f"{float(found.scales[channel])!r}"
        )


def _refuted_biases(name: str, found: Channels, input_scale: float, low: Array, high: Array) -> Iterator[Refutation]:
    product = found.scales.astype(np.float64) * input_scale
    for channel in np.flatnonzero(np.abs(found.bias_scales - product) > product * _ROUNDING):
        yield Refutation(
            name,
            f"scale of channel {channel}",
            f"{product[channel]:.9g}, the product of the scales of input and weights",
            f"{float(found.bias_scales[channel])!r}",
        )
    for channel in np.flatnonzero((found.bias < low) | (found.bias > high)):
        yield Refutation(
            name, f"bias of channel {channel}", f"{low[channel]:.0f} to {high[channel]:.0f}", f"{found.bias[channel]}"
        )


def _by_channel(values: Array, operator: Operator) -> Array:
    axis = 3 if operator.name == "DEPTHWISE_CONV_2D" else 0
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def _scales(tensor: Tensor) -> Array:
    return np.array(tensor.quantisation.scales if tensor.quantisation else (), np.float32)

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

from recreate_model.compare.verdict import printable
from recreate_model.network.layer import Layer
from recreate_model.prove.channels import Channels, Factors, channel_axis, channels, convolutions, factors
from recreate_model.prove.recover import recorded_span
from recreate_model.quantize.quantiser import (
    LARGEST_WEIGHT,
    SMALLEST_HALF_RANGE,
    SMALLEST_SCALE,
    Generation,
    activation_parameters,
    parameters_of,
    round_away,
)
from recreate_model.support.arrays import Array
from recreate_model.tflite.model_view import ModelView, Operator

# What rounding to float32 adds between factor and level, relative: weight, reciprocal of the scale, product.
_ROUNDING = 4 * 2.0**-24
_BIAS_LIMIT = 2.0**31 - 1  # the quantisers widen a scale until the bias needs half of it


@dataclass(frozen=True)
class Refutation:
    """A number that the checkpoint does not give, whatever the CPU."""

    tensor: str
    what: str
    expected: str
    found: str

    @property
    def number(self) -> str:
        """Which number it is, and what the file has there; printable, whatever the file is."""
        return f"{printable(self.what)} of {printable(self.tensor.split(';')[0])} is {printable(self.found)}"


@dataclass(frozen=True, eq=False)
class Layerwise:
    """One convolution compared.

    Attributes:
        on_a_tie: weights that round to another level with the exact factor, and to this one within the tolerance.
        without_scale: biases whose scale is 0, as the old quantizer gives it to a channel of zeros: they mean nothing.
        lowest, highest: bounds, in ulps from the exact one, on the factors that explain each channel.
    """

    weights: int
    biases: int
    on_a_tie: int
    biases_on_a_tie: int
    without_scale: int
    lowest: Array
    highest: Array
    refutations: tuple[Refutation, ...]


def compare(
    view: ModelView, layers: Sequence[Layer], values: Mapping[str, Array], generation: Generation
) -> tuple[Layerwise, ...]:
    """Compares every convolution of an INT8 model with a checkpoint's variables, in order.

    The caller has seen to it that there are as many convolutions as layers, of the same shapes.

    Args:
        generation: by whose arithmetic the model was quantised.
    """
    # A channel without a scale gives infinities, which refute it or are within no bound.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return tuple(
            _layer(view, operator, factors(layer, values), generation)
            for operator, layer in zip(convolutions(view), layers, strict=True)
        )


def _layer(view: ModelView, operator: Operator, given: Factors, generation: Generation) -> Layerwise:
    found = channels(view, operator)
    weights_name, bias_name = (view.tensors[index].name for index in operator.inputs[1:3])
    if found is None or found.weights.shape != given.weights.shape:
        refutation = Refutation(weights_name, "weights", f"int8 {given.weights.shape}", "other types or shapes")
        none = np.zeros(len(given.exact))
        return Layerwise(given.weights.size, len(given.exact), 0, 0, 0, none, none, (refutation,))
    source = view.tensors[operator.inputs[0]]
    input_scale, _ = parameters_of(source) or (0.0, 0)
    # The old quantizer made room for the bias before a pooled activation took over the scale of what was pooled.
    own_span = recorded_span(source)
    own_scale = activation_parameters(*own_span, generation)[0] if own_span else 0.0
    natural, accepted = _scale_origins(found, given, generation, (input_scale, own_scale))
    low, high = _factor_bounds(found, given, natural)
    exact_weights = np.clip(
        round_away(given.weights * given.exact[:, None] / found.scales[:, None].astype(np.float64)),
        -LARGEST_WEIGHT,
        LARGEST_WEIGHT,
    )
    bias_low, bias_high = _bias_bounds(found, given, low, high)
    exact_bias = round_away((given.beta - given.mean * given.exact) / found.bias_scales.astype(np.float64))
    refutations = (
        *_refuted_quantisation(view, operator, len(found.scales)),
        *_refuted_scales(weights_name, found, given, accepted),
        *_refuted_recorded(weights_name, found, given),
        *_refuted_weights(weights_name, found, given, ~(low <= high)),  # so that no number refutes too
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
        biases_on_a_tie=int(((exact_bias != found.bias) & (found.bias_scales > 0)).sum()),
        without_scale=int((found.bias_scales == 0).sum()),
        lowest=lowest,
        highest=highest,
        refutations=refutations,
    )


def _scale_origins(
    found: Channels, given: Factors, generation: Generation, input_scales: Sequence[float]
) -> tuple[Array, Array]:
    """Of each channel: whether its scale is the largest weight's 127th, and whether it is any that a quantiser gives.

    A scale too small for the bias to fit 32 bits, or for the quantiser, is widened, by each generation in its own way.
    """
    tolerance = given.ulps * 2.0**-23 + _ROUNDING
    largest = np.abs(given.weights).max(axis=1) * np.abs(given.exact)
    exact = largest / LARGEST_WEIGHT
    natural = np.abs(found.scales - exact) <= exact * tolerance
    accepted = natural.copy()
    if generation in (Generation.TODAY, Generation.STORED):
        bias = np.abs(given.beta - given.mean * given.exact)
        for limited in (2 * bias / _BIAS_LIMIT / scale for scale in input_scales if scale > 0):
            # A bias is a difference, so it is less certain than a product.
            accepted |= (limited > exact) & (np.abs(found.scales - limited) <= limited * tolerance * 64)
    if generation in (Generation.TODAY, Generation.DOUBLE):
        smallest = SMALLEST_HALF_RANGE / LARGEST_WEIGHT
        accepted |= (largest < SMALLEST_HALF_RANGE) & (np.abs(found.scales - smallest) <= smallest * _ROUNDING)
    if generation is Generation.SCALE_FLOOR:
        at_floor = np.abs(found.scales - SMALLEST_SCALE) <= SMALLEST_SCALE * _ROUNDING
        accepted |= (exact < SMALLEST_SCALE) & at_floor
    return natural, accepted


def _factor_bounds(found: Channels, given: Factors, natural: Array) -> tuple[Array, Array]:
    """Bounds on |factor| - |exact| that explain scale and weights of a channel; crossed where no factor does.

    Args:
        natural: of each channel, whether its scale is to be the largest weight's 127th.
    """
    unit = np.abs(np.spacing(given.exact.astype(np.float32))).astype(np.float64)
    # Half a unit lies between the exact factor and the rounded one that units are counted from.
    allowed = (given.ulps + 0.5) * unit if given.ulps else np.zeros_like(unit)
    magnitude = np.abs(given.exact)[:, None]
    # weight * factor / scale must be within half a level of the level found.
    folded = given.weights * np.sign(given.exact)[:, None]
    slope = np.where(folded == 0, 0, folded / found.scales[:, None].astype(np.float64))
    exact = slope * magnitude
    slack = (np.abs(exact) + 1) * _ROUNDING
    below = np.where(found.weights == -LARGEST_WEIGHT, -np.inf, found.weights - 0.5 - slack)
    above = np.where(found.weights == LARGEST_WEIGHT, np.inf, found.weights + 0.5 + slack)
    ends = np.stack([(below - exact) / slope, (above - exact) / slope])
    dead = slope == 0
    low = np.where(dead, np.where((below <= 0) & (above >= 0), -np.inf, np.inf), ends.min(axis=0)).max(axis=1)
    high = np.where(dead, np.inf, ends.max(axis=0)).min(axis=1)
    largest = np.abs(given.weights).max(axis=1)
    scaled = found.scales.astype(np.float64) * LARGEST_WEIGHT
    bounds = [scaled * (1 + side * _ROUNDING) / largest - magnitude[:, 0] for side in (-1, 1)]
    bounded = natural & (largest > 0)
    low = np.maximum(low, np.where(bounded, bounds[0], -np.inf))
    high = np.minimum(high, np.where(bounded, bounds[1], np.inf))
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
    elsewhere = given.bias_tolerance(scales)
    bottom = (ends.min(axis=0) - slack) / scales - 0.5 - elsewhere
    top = (ends.max(axis=0) + slack) / scales + 0.5 + elsewhere
    # A bias that does not fit ends at one of two lowest numbers, depending on the quantiser.
    return np.clip(np.ceil(bottom), -(2.0**31), _BIAS_LIMIT), np.clip(np.floor(top), -_BIAS_LIMIT, _BIAS_LIMIT)


def _refuted_quantisation(view: ModelView, operator: Operator, count: int) -> Iterator[Refutation]:
    """Weights and biases are symmetric, so their zero is 0, and have a scale for each output channel."""
    for index, wanted in zip(operator.inputs[1:], (channel_axis(operator), 0), strict=True):
        tensor = view.tensors[index]
        quantisation = tensor.quantisation
        for channel, zero_point in enumerate(quantisation.zero_points if quantisation else ()):
            if zero_point:
                yield Refutation(tensor.name, f"zero point of channel {channel}", "0", f"{zero_point}")
        if quantisation and count > 1 and quantisation.axis != wanted:
            yield Refutation(tensor.name, "axis of the scales", f"{wanted}", f"{quantisation.axis}")


def _refuted_recorded(name: str, found: Channels, given: Factors) -> Iterator[Refutation]:
    """The extremes of each channel that the old quantizer writes down: of the weights, or of the scale it widened."""
    if not found.recorded.any():
        return
    folded = given.weights * given.exact[:, None]
    ends = np.stack([folded.min(axis=1), folded.max(axis=1)], axis=1)
    widened = found.scales.astype(np.float64)[:, None] * LARGEST_WEIGHT * np.array([-1, 1])
    tolerance = given.ulps * 2.0**-23 + _ROUNDING
    fits = np.zeros(len(folded), bool)
    for expected in (ends, widened):
        fits |= (np.abs(found.recorded - expected) <= np.abs(expected) * tolerance).all(axis=1)
    for channel in np.flatnonzero(~fits):
        low, high = ends[channel]
        recorded = ", ".join(f"{value:.9g}" for value in found.recorded[channel])
        yield Refutation(name, f"recorded range of channel {channel}", f"{low:.9g}, {high:.9g}", recorded)


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


def _refuted_scales(name: str, found: Channels, given: Factors, accepted: Array) -> Iterator[Refutation]:
    natural = np.abs(given.weights).max(axis=1) * np.abs(given.exact) / LARGEST_WEIGHT
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
    # The old quantizer gives a channel of zeros the scale 0, and then a bias means nothing.
    for channel in np.flatnonzero(~((low <= found.bias) & (found.bias <= high)) & (found.bias_scales > 0)):
        yield Refutation(
            name, f"bias of channel {channel}", f"{low[channel]:.0f} to {high[channel]:.0f}", f"{found.bias[channel]}"
        )

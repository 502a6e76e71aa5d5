"""Checks that every weight, bias and scale of an INT8 model is a rounding of a checkpoint's value, on any CPU.

TensorFlow's converter folds BatchNorm in float32 with an approximate 1/sqrt, whose last bits depend on the CPU. So the
folding factor gamma / sqrt(variance + epsilon) of each channel is known only to within a few ulps. One factor must
explain all weights and the bias of a channel, so this tolerance cannot hide any other change.

Not for: finding the toolchain that wrote the file (`prove`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recreate_model.compare.verdict import printable
from recreate_model.network.layer import Layer
from recreate_model.prove.channels import Channels, Factors, channel_axis, channels, convolutions, factors
from recreate_model.prove.recover import recorded_span
from recreate_model.quantize.quantizer import (
    LARGEST_WEIGHT,
    SMALLEST_HALF_RANGE,
    SMALLEST_SCALE,
    Generation,
    activation_parameters,
    parameters_of,
    round_away,
)
from recreate_model.support.arrays import Array
from recreate_model.tflite.model_view import ModelView, Operator, Tensor

# Relative float32 rounding error from factor to level: of the weight, the reciprocal of the scale, and the product.
_ROUNDING = 4 * 2.0**-24
_BIAS_LIMIT = 2.0**31 - 1  # the quantizers raise a scale until the bias is at most half of this


@dataclass(frozen=True)
class Refutation:
    """A value in the published file that the checkpoint cannot give on any CPU.

    Attributes:
        tensor: name of the tensor in the file.
        what: which value, such as `weight 5 of channel 18`.
        expected: what the checkpoint gives.
        found: what the file has.
    """

    tensor: str
    what: str
    expected: str
    found: str

    @property
    def number(self) -> str:
        """Which value it is, and what the file has there, with control characters escaped."""
        tensor = f" of tensor {self.tensor.split(';')[0]}" if self.tensor else ""
        return printable(f"{self.what}{tensor}: {self.found}")


@dataclass(frozen=True, eq=False)
class LayerComparison:
    """The comparison of one convolution with the checkpoint.

    Attributes:
        weights, biases: number of values compared.
        on_a_tie: number of weights that agree within the tolerance of the folding factor, but that the exact factor
            would round to another level.
        biases_on_a_tie: the same for biases.
        without_scale: number of biases whose scale is 0. The old quantizer writes this scale for channels whose weights
            are all zero, and such a bias has no effect.
        lowest, highest: bounds on the folding factors that explain each channel, in ulps from the rounded exact factor,
            float64 (channels,); `lowest` exceeds `highest` where no factor does.
        refutations: values that the checkpoint cannot give.
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
) -> tuple[LayerComparison, ...]:
    """Compares every convolution of an INT8 model with a checkpoint's variables, in the order of the graph.

    Args:
        view: an INT8 model with the convolutions of `layers`, checked by `membership.check_member`.
        values: the checkpoint's variables, as in `checkpoint.FloatWeights`.
        generation: the arithmetic the model was quantized with.
    """
    # A scale of 0 gives infinities and NaN, which no bound includes.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return tuple(
            _layer(view, operator, factors(layer, values), generation)
            for operator, layer in zip(convolutions(view), layers, strict=True)
        )


def _layer(view: ModelView, operator: Operator, given: Factors, generation: Generation) -> LayerComparison:
    found = channels(view, operator)
    weights_name, bias_name = (view.tensors[index].name for index in operator.inputs[1:3])
    if found is None or found.weights.shape != given.weights.shape:
        weights, bias = (view.tensors[index] for index in operator.inputs[1:3])
        count, per_channel = given.weights.shape
        refutation = Refutation(
            weights_name,
            "type and shape of weights, bias and scales",
            f"int8 weights and an int32 bias with a scale for each of {count} channels of {per_channel} weights",
            f"{weights.dtype} weights {weights.shape} with {_count_scales(weights)} scales, {bias.dtype} bias "
            f"{bias.shape} with {_count_scales(bias)}",
        )
        none = np.zeros(len(given.exact))
        return LayerComparison(given.weights.size, len(given.exact), 0, 0, 0, none, none, (refutation,))
    source = view.tensors[operator.inputs[0]]
    input_scale, _ = parameters_of(source) or (0.0, 0)
    # The old quantizer raises weight scales to fit the bias before a pooled activation gets the scale of its input. So
    # the range recorded for the activation itself counts too.
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
        *_refuted_quantization(view, operator, len(found.scales)),
        *_refuted_scales(weights_name, found, given, accepted),
        *_refuted_recorded(weights_name, found, given),
        *_refuted_weights(weights_name, found, given, ~(low <= high)),  # a NaN bound refutes too
        *_refuted_biases(bias_name, found, input_scale, bias_low, bias_high),
    )
    ulp = np.abs(np.spacing(given.exact.astype(np.float32))).astype(np.float64)
    offset = given.exact - given.exact.astype(np.float32)
    sign = np.where(given.exact < 0, -1, 1)
    lowest, highest = ((limit + offset * sign) / ulp for limit in (low, high))
    return LayerComparison(
        weights=found.weights.size,
        biases=len(found.bias),
        on_a_tie=int((exact_weights != found.weights).sum()),
        biases_on_a_tie=int(((exact_bias != found.bias) & (found.bias_scales > 0)).sum()),
        without_scale=int((found.bias_scales == 0).sum()),
        lowest=lowest,
        highest=highest,
        refutations=refutations,
    )


def _count_scales(tensor: Tensor) -> int:
    return len(tensor.quantization.scales) if tensor.quantization else 0


def _scale_origins(
    found: Channels, given: Factors, generation: Generation, input_scales: Sequence[float]
) -> tuple[Array, Array]:
    """Two masks, bool (channels,): scales that are largest weight / 127, and scales that the quantizer can give.

    The quantizer raises a scale that is too small for the bias to fit 32 bits, or below its own minimum. Each
    generation does this differently.
    """
    tolerance = given.ulps * 2.0**-23 + _ROUNDING
    largest = np.abs(given.weights).max(axis=1) * np.abs(given.exact)
    exact = largest / LARGEST_WEIGHT
    natural = np.abs(found.scales - exact) <= exact * tolerance
    accepted = natural.copy()
    if generation in (Generation.TODAY, Generation.STORED):
        bias = np.abs(given.beta - given.mean * given.exact)
        for limited in (2 * bias / _BIAS_LIMIT / scale for scale in input_scales if scale > 0):
            # A bias is a difference of two values, so its relative error is larger than a product's.
            accepted |= (limited > exact) & (np.abs(found.scales - limited) <= limited * tolerance * 64)
    if generation in (Generation.TODAY, Generation.DOUBLE):
        smallest = SMALLEST_HALF_RANGE / LARGEST_WEIGHT
        accepted |= (largest < SMALLEST_HALF_RANGE) & (np.abs(found.scales - smallest) <= smallest * _ROUNDING)
    if generation is Generation.SCALE_FLOOR:
        at_floor = np.abs(found.scales - SMALLEST_SCALE) <= SMALLEST_SCALE * _ROUNDING
        accepted |= (exact < SMALLEST_SCALE) & at_floor
    return natural, accepted


def _factor_bounds(found: Channels, given: Factors, natural: Array) -> tuple[Array, Array]:
    """Bounds on |factor| - |exact factor| that explain the scale and weights of each channel, float64 (channels,).

    The lower bound exceeds the upper one where no factor explains the channel.

    Args:
        natural: mask of the channels whose scale is largest weight / 127.
    """
    ulp = np.abs(np.spacing(given.exact.astype(np.float32))).astype(np.float64)
    # Ulps are counted from the rounded factor, which is up to half an ulp from the exact one.
    allowed = (given.ulps + 0.5) * ulp if given.ulps else np.zeros_like(ulp)
    magnitude = np.abs(given.exact)[:, None]
    # weight * factor / scale must be within half a level of the published weight.
    folded = given.weights * np.sign(given.exact)[:, None]
    slope = np.where(folded == 0, 0, folded / found.scales[:, None].astype(np.float64))
    exact = slope * magnitude
    slack = (np.abs(exact) + 1) * _ROUNDING
    below = np.where(found.weights == -LARGEST_WEIGHT, -np.inf, found.weights - 0.5 - slack)
    above = np.where(found.weights == LARGEST_WEIGHT, np.inf, found.weights + 0.5 + slack)
    limits = np.stack([(below - exact) / slope, (above - exact) / slope])
    zero = slope == 0
    low = np.where(zero, np.where((below <= 0) & (above >= 0), -np.inf, np.inf), limits.min(axis=0)).max(axis=1)
    high = np.where(zero, np.inf, limits.max(axis=0)).min(axis=1)
    largest = np.abs(given.weights).max(axis=1)
    scaled = found.scales.astype(np.float64) * LARGEST_WEIGHT
    from_scale = [scaled * (1 + side * _ROUNDING) / largest - magnitude[:, 0] for side in (-1, 1)]
    has_limit = natural & (largest > 0)
    low = np.maximum(low, np.where(has_limit, from_scale[0], -np.inf))
    high = np.minimum(high, np.where(has_limit, from_scale[1], np.inf))
    return np.maximum(low, -allowed), np.minimum(high, allowed)


def _bias_bounds(found: Channels, given: Factors, low: Array, high: Array) -> tuple[Array, Array]:
    """The lowest and highest int32 bias of each channel that factors within the bounds give, float64 (channels,)."""
    low, high = np.minimum(low, high), np.maximum(low, high)
    sign = np.where(given.exact < 0, -1, 1)
    limits = np.stack([given.beta - given.mean * (given.exact + sign * offset) for offset in (low, high)])
    scales = found.bias_scales.astype(np.float64)
    slack = (np.abs(given.beta) + np.abs(given.mean * given.exact)) * 3 * 2.0**-24
    slack += np.abs(limits).max(axis=0) * _ROUNDING
    tolerance = given.bias_tolerance(scales)
    bottom = (limits.min(axis=0) - slack) / scales - 0.5 - tolerance
    top = (limits.max(axis=0) + slack) / scales + 0.5 + tolerance
    # Quantizers clip a bias that does not fit at either -2**31 or -(2**31 - 1).
    return np.clip(np.ceil(bottom), -(2.0**31), _BIAS_LIMIT), np.clip(np.floor(top), -_BIAS_LIMIT, _BIAS_LIMIT)


def _refuted_quantization(view: ModelView, operator: Operator, count: int) -> Iterator[Refutation]:
    """Weights and biases are quantized symmetrically, so their zero point is 0, with a scale for each channel."""
    for index, axis in zip(operator.inputs[1:], (channel_axis(operator), 0), strict=True):
        tensor = view.tensors[index]
        quantization = tensor.quantization
        for channel, zero_point in enumerate(quantization.zero_points if quantization else ()):
            if zero_point:
                yield Refutation(tensor.name, f"zero point of channel {channel}", "0", f"{zero_point}")
        if quantization and count > 1 and quantization.axis != axis:
            yield Refutation(tensor.name, "axis of the scales", f"{axis}", f"{quantization.axis}")


def _refuted_recorded(name: str, found: Channels, given: Factors) -> Iterator[Refutation]:
    """The range that the old quantizer records for each channel: of its weights, or of the scale it raised."""
    if not found.recorded.any():
        return
    folded = given.weights * given.exact[:, None]
    of_weights = np.stack([folded.min(axis=1), folded.max(axis=1)], axis=1)
    of_scale = found.scales.astype(np.float64)[:, None] * LARGEST_WEIGHT * np.array([-1, 1])
    tolerance = given.ulps * 2.0**-23 + _ROUNDING
    fits = np.zeros(len(folded), bool)
    for expected in (of_weights, of_scale):
        fits |= (np.abs(found.recorded - expected) <= np.abs(expected) * tolerance).all(axis=1)
    for channel in np.flatnonzero(~fits):
        low, high = of_weights[channel]
        recorded = " to ".join(f"{value:.9g}" for value in found.recorded[channel])
        yield Refutation(name, f"recorded range of channel {channel}", f"{low:.9g} to {high:.9g}", recorded)


def _refuted_weights(name: str, found: Channels, given: Factors, refuted: Array) -> Iterator[Refutation]:
    """For each channel that no factor explains, the weight that is farthest from the checkpoint's."""
    for channel in np.flatnonzero(refuted):
        levels = given.weights[channel] * given.exact[channel] / float(found.scales[channel])
        errors = np.abs(found.weights[channel] - levels)
        worst = int(errors.argmax())
        yield Refutation(
            name,
            f"weight {worst} of channel {channel}",
            f"{levels[worst]:.4f} before rounding, a difference of {errors[worst]:.4f} levels",
            f"{found.weights[channel, worst]}",
        )


def _refuted_scales(name: str, found: Channels, given: Factors, accepted: Array) -> Iterator[Refutation]:
    natural = np.abs(given.weights).max(axis=1) * np.abs(given.exact) / LARGEST_WEIGHT
    for channel in np.flatnonzero(~accepted):
        yield Refutation(
            name,
            f"scale of channel {channel}",
            f"{natural[channel]:.9g}, its largest weight / {LARGEST_WEIGHT}",
            f"{float(found.scales[channel])!r}",
        )


def _refuted_biases(name: str, found: Channels, input_scale: float, low: Array, high: Array) -> Iterator[Refutation]:
    product = found.scales.astype(np.float64) * input_scale
    for channel in np.flatnonzero(np.abs(found.bias_scales - product) > product * _ROUNDING):
        yield Refutation(
            name,
            f"scale of channel {channel}",
            f"{product[channel]:.9g}, the input scale times the weight scale",
            f"{float(found.bias_scales[channel])!r}",
        )
    # The old quantizer gives a channel of zero weights the scale 0. Its bias has no effect.
    for channel in np.flatnonzero(~((low <= found.bias) & (found.bias <= high)) & (found.bias_scales > 0)):
        lowest, highest, bias = (f"{value[channel]:.0f}" for value in (low, high, found.bias))
        yield Refutation(
            name,
            f"bias of channel {channel}",
            lowest if lowest == highest else f"{lowest} to {highest}",
            bias,
        )

"""Recovers the activation ranges of a published INT8 model from the file.

Calibration affects a model only through the scale and zero point of each activation. Many ranges give the same scale
and zero point, and every one of them gives the same model, so any one of them can replace the original range.

Not for: ranges that no byte of the file depends on. They are listed as left out, never invented.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recreate_model.quantize.quantizer import (
    LARGEST_WEIGHT,
    LEVELS,
    SMALLEST_HALF_RANGE,
    SMALLEST_SCALE,
    WITHOUT_RANGE,
    Generation,
    activation_parameters,
    parameters_of,
    scales_of,
)
from recreate_model.support.arrays import Array
from recreate_model.support.errors import InputError
from recreate_model.tflite.model_view import ModelView, Operator, Tensor

Span = tuple[float, float]
Width = tuple[float, float]

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")  # a converter adds these where the input or output type is not int8
# Offsets of zero to try, in levels. The bounds of a range that crosses a power of two lie on a finer float32 grid, so a
# range with an offset may fit where the one without does not.
_OFFSETS = (0.0, 0.24, -0.24, 0.48, -0.48)
_SEARCH_ULPS = 2048  # how far to each side one bound of a range is searched
_ANY_WIDTH: Width = (-1.0, float("inf"))


@dataclass(frozen=True)
class Activation:
    """The recovered range of one activation.

    Attributes:
        tensor: its name in the file.
        span: minimum and maximum, in real units, that give the activation's scale and zero point with the arithmetic
            the file was quantized with; None where there is no such range.
        today: whether the range gives the same scale and zero point in today's converter too.
        without_range: whether no byte of the file depends on a range of this activation.
        why: why there is no span, or why it does not fit today's converter; else empty.
    """

    tensor: str
    span: Span | None
    today: bool = True
    without_range: bool = False
    why: str = ""


@dataclass(frozen=True)
class Recovered:
    """The recovered ranges of a file.

    Attributes:
        generation: the arithmetic the file was quantized with.
        activations: the input, then the output of each operator, in the order of the graph.
    """

    generation: Generation
    activations: tuple[Activation, ...]


def network_operators(view: ModelView) -> tuple[Operator, ...]:
    """The operators except those that convert the type of an input or output."""
    return tuple(operator for operator in view.operators if operator.name not in _CONVERSIONS)


def recover(view: ModelView, source: str) -> Recovered:
    """Finds a range for every activation of an INT8 model.

    Args:
        view: every operator has at least one input and exactly one output.
        source: name of the file for error messages.

    Raises:
        InputError: an activation is not int8 with one scale, as in dynamic-range or float16 models.
    """
    operators = network_operators(view)
    if not operators:
        raise _not_int8(source, "no operator")
    indices = [operators[0].inputs[0], *(operator.outputs[0] for operator in operators)]
    tensors = [view.tensors[index] for index in indices]
    for tensor in tensors:
        _check_int8(tensor, source)
    generation = generation_of(view)
    widths = _widths(view, operators) if generation is Generation.DOUBLE else {}
    without = {operator.outputs[0]: operator.name for operator in operators if operator.name in WITHOUT_RANGE}
    return Recovered(
        generation,
        tuple(
            Activation(
                tensor.name,
                None,
                without_range=True,
                why=f"no byte of the file depends on the range of its {without[index]}",
            )
            if index in without and not tensor.minimum  # the old quantizer records some of these ranges
            else _activation(tensor, generation, widths.get(index, _ANY_WIDTH), index in without)
            for index, tensor in zip(indices, tensors, strict=True)
        ),
    )


def by_todays_converter(view: ModelView) -> bool:
    """Whether the file has metadata that the converters of 2021 do not write. This holds for either quantizer."""
    return any(name == "CONVERSION_METADATA" for name, _ in view.metadata)


def generation_of(view: ModelView) -> Generation:
    """The arithmetic the file was quantized with, inferred from properties that only one of them produces."""
    operators = network_operators(view)
    if any(view.tensors[index].minimum for operator in operators for index in operator.outputs):
        return Generation.STORED
    if by_todays_converter(view):
        return Generation.TODAY
    scales = [
        min(tensor.quantization.scales) for tensor in view.tensors if tensor.dtype == "int8" and tensor.quantization
    ]
    if scales and min(scales) < np.float32(SMALLEST_SCALE):
        return Generation.DOUBLE  # of the two without metadata, only this one allows smaller scales
    unequal = total = 0
    for _, weights, bias, scale in _scales(view, operators):
        # Channels with a scale at the floor are skipped: their bias scale is not the plain product.
        plain = (weights > np.float32(1.001 * SMALLEST_SCALE)) & (scale > np.float32(1.001 * SMALLEST_SCALE))
        unequal += int((bias != weights * scale)[plain].sum())
        total += int(plain.sum())
    # If scales are multiplied in float64, a third of the bias scales differ from the float32 product. The threshold
    # tolerates a few that were edited.
    return Generation.DOUBLE if unequal > total / 50 else Generation.SCALE_FLOOR


def span_for(scale: float, zero_point: int, generation: Generation, width: Width = _ANY_WIDTH) -> Span | None:
    """A range, as two float32 values in real units, that gives a scale and zero point; None if none is found.

    Args:
        generation: the arithmetic that turns the range into scale and zero point.
        width: exclusive bounds on maximum - minimum. At a bound, a bias scale may be rounded either way.
    """
    if LEVELS * scale > float(np.finfo(np.float32).max):
        return None
    for low, high in _candidates(scale, zero_point, generation, width):
        if activation_parameters(low, high, generation) == (scale, zero_point):
            return low, high
    return None


def recorded_span(tensor: Tensor) -> Span | None:
    """The range that the old quantizer stores with an activation; None where it is missing or not finite."""
    span = (*tensor.minimum[:1], *tensor.maximum[:1])
    return span if len(span) == 2 and np.isfinite(span).all() else None


def _activation(tensor: Tensor, generation: Generation, width: Width, without_range: bool) -> Activation:
    wanted = parameters_of(tensor)
    assert wanted is not None  # `_check_int8` has checked it
    if generation is Generation.STORED:
        span = recorded_span(tensor)
        # The stored range of a pooled activation or a softmax need not match its scale: the scale is the pooled
        # tensor's, or fixed.
        if span is None or not (without_range or activation_parameters(*span, generation) == wanted):
            why = "the range stored with the tensor is missing or gives a different scale or zero point"
            return Activation(tensor.name, None, without_range=without_range, why=why)
    else:
        span = span_for(*wanted, Generation.TODAY, width)
        # A range that fits both today's converter and the file's own is preferred.
        if span is None or activation_parameters(*span, generation) != wanted:
            # If no range meets the bounds, any range will do: the bias scales will then be refuted.
            span = span_for(*wanted, generation, width) or span_for(*wanted, generation)
    if span is None:
        return Activation(tensor.name, None, why=f"no range gives scale {wanted[0]!r} and zero point {wanted[1]}")
    today = without_range or activation_parameters(*span) == wanted
    why = "" if today else "no range gives this scale and zero point in today's converter"
    return Activation(tensor.name, span, today, without_range, why)


def _candidates(scale: float, zero_point: int, generation: Generation, width: Width) -> Iterator[Span]:
    """Ranges of float32 values near the range computed in float64, nearest first, whose width is within the bounds."""
    # Today's converter widens a narrow range by this much on each side. It does not change a wider one.
    margins = (1e-6, 0.0) if generation is Generation.TODAY and LEVELS * scale < 4e-6 else (0.0,)
    for margin in margins:
        wide = max(LEVELS * scale - 2 * margin, 0.0)
        for offset in _OFFSETS:
            low = min(max(margin + (offset - zero_point - 128) * scale, -wide), 0.0)
            yield from _around(low, low + wide, width)


def _around(low: float, high: float, width: Width) -> Iterator[Span]:
    """Ranges near (low, high), nearest first, whose width is within the bounds.

    The bound farther from zero moves by ulps. The other one, on a finer float32 grid, makes up the difference.
    """
    swapped = -low > high
    far = np.float32(max(-low, high))
    steps = np.concatenate([[0], np.repeat(np.arange(1, _SEARCH_ULPS + 1), 2) * np.tile([1, -1], _SEARCH_ULPS)])
    steps = steps[far.view(np.int32) + steps > 0] if far > 0 else steps[:1]
    far_bounds = (far.view(np.int32) + steps).astype(np.int32).view(np.float32)
    is_limited = width[1] < np.inf
    if min(-low, high) < np.spacing(far):
        # One bound is zero for most activations, as after ReLU6.
        for far_bound in far_bounds[:9].tolist():
            if width[0] < far_bound < width[1]:
                yield (-far_bound, 0.0) if swapped else (0.0, far_bound)
    # Start in the middle of the permitted widths: a width at a bound may be a rounding tie.
    for target in (np.mean(width), *width) if is_limited else (high - low,):
        # The near bound and its neighbors, as rounding may move the width to the wrong side.
        near_bounds = np.maximum(target - far_bounds.astype(np.float64), 0).astype(np.float32)
        for shift in (0, 1, -1, 2, -2):
            bits = near_bounds.view(np.int32) + np.where(near_bounds > 0, shift, 0).astype(np.int32)
            shifted = np.maximum(bits, 0).astype(np.int32).view(np.float32)
            total = shifted.astype(np.float64) + far_bounds
            for index in np.flatnonzero((total > width[0]) & (total < width[1]))[: 64 if is_limited else 8]:
                pair = float(shifted[index]), float(far_bounds[index])
                yield (-pair[1], pair[0]) if swapped else (-pair[0], pair[1])


def _widths(view: ModelView, operators: tuple[Operator, ...]) -> dict[int, Width]:
    """Bounds on maximum - minimum of the activations that convolutions read, by tensor index, from the bias scales.

    A bias scale is (width / 255) * (largest weight / 127), computed in float64 and rounded once. The largest weight is
    a float32, and only one or two values of it give the weight scale. Every channel tightens the bounds.
    """
    # A pooled activation has the scale of the tensor that was pooled, so the bounds apply to that tensor.
    origin: dict[int, int] = {}
    for operator in operators:
        if operator.name in WITHOUT_RANGE:
            origin[operator.outputs[0]] = origin.get(operator.inputs[0], operator.inputs[0])
    result: dict[int, Width] = {}
    for index, weights, bias, _ in _scales(view, operators):
        smallest, largest = _weight_steps(weights)
        with np.errstate(divide="ignore"):
            low = _halfway(bias, -1) / largest * LEVELS
            high = _halfway(bias, 1) / smallest * LEVELS
        index = origin.get(index, index)
        bounds = result.get(index, _ANY_WIDTH)
        result[index] = (max(bounds[0], float(low.max())), min(bounds[1], float(high.min())))
    return result


def _weight_steps(scales: Array) -> tuple[Array, Array]:
    """Lower and upper bounds, float64 (channels,), on the weight scales before they were rounded to float32."""
    middle = (scales.astype(np.float64) * LARGEST_WEIGHT).astype(np.float32).view(np.int32)
    shifts = np.arange(-2, 3, dtype=np.int32)[:, None]
    largest = np.maximum((middle + shifts).view(np.float32).astype(np.float64), SMALLEST_HALF_RANGE)
    exact = largest / LARGEST_WEIGHT
    fits = exact.astype(np.float32) == scales
    # Where no largest weight fits, only the rounding of the scale itself bounds it.
    unknown = ~fits.any(axis=0)
    low = np.where(fits, exact, np.inf).min(axis=0)
    high = np.where(fits, exact, -np.inf).max(axis=0)
    return np.where(unknown, _halfway(scales, -1), low), np.where(unknown, _halfway(scales, 1), high)


def _halfway(values: Array, direction: int) -> Array:
    """The midpoints, in float64, between float32 values and their next neighbors; `direction` is 1 (up) or -1."""
    neighbor = np.nextafter(values, np.float32(np.inf * direction))
    middle: Array = (values.astype(np.float64) + neighbor) / 2
    return middle


def _scales(view: ModelView, operators: tuple[Operator, ...]) -> Iterator[tuple[int, Array, Array, np.float32]]:
    """For each convolution: tensor index of its input, weight scales and bias scales (channels,), and input scale."""
    for operator in operators:
        if operator.name in CONVOLUTIONS and len(operator.inputs) == 3:
            source, weights, bias = (scales_of(view.tensors[index]) for index in operator.inputs)
            if weights.shape == bias.shape and len(source) == 1:
                yield operator.inputs[0], weights, bias, source[0]


def _check_int8(tensor: Tensor, source: str) -> None:
    quantization = tensor.quantization
    if tensor.dtype != "int8" or quantization is None:
        hint = ", as in dynamic-range and float16 models" if tensor.dtype.startswith("float") else ""
        raise _not_int8(source, f"tensor {tensor.name} of type {tensor.dtype}{hint}")
    scale = quantization.scales[0]
    if len(quantization.scales) != 1 or not (np.isfinite(scale) and scale > 0):
        raise _not_int8(source, f"{len(quantization.scales)} scales for {tensor.name}, the first {scale!r}")


def _not_int8(source: str, found: str) -> InputError:
    return InputError(
        expected=f"{source} to be a full-integer INT8 model, every activation int8 with one scale",
        found=found,
        next_step="give a full-integer INT8 .tflite file",
    )

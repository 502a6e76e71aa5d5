"""The activation ranges of a published INT8 model, found in the file itself.

Calibration pictures leave one trace: the scale and zero point of each activation. Many ranges give the same two
numbers, and each of them gives the same model, so any one of them stands for the lost ones.

Not for: ranges that no byte of the file depends on. They are named and left out, never invented.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recreate_model.quantize.quantiser import (
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
_ENDS = ("QUANTIZE", "DEQUANTIZE")  # what a converter adds around the network where a caller wants other types
# Parts of a level by which zero may be off: beyond a power of two the ends lie on a finer grid, which may be needed.
_OFFSETS = (0.0, 0.24, -0.24, 0.48, -0.48)
_STEPS = 2048  # ulps to both sides within which one end of a range is looked for
_ANY: Width = (-1.0, float("inf"))


@dataclass(frozen=True)
class Activation:
    """What the file says of one activation's range, in real units.

    Attributes:
        tensor: its name in the file.
        span: a range that gives its scale and zero point in the file's own generation; None where none can be found.
        today: whether that range gives the same two numbers in today's converter too.
        without_range: whether no byte of the file depends on a range of its own.
        why: why there is no span, or why it is not today's.
    """

    tensor: str
    span: Span | None
    today: bool = True
    without_range: bool = False
    why: str = ""


@dataclass(frozen=True)
class Recovered:
    """The input's range, then that of each operator's output, in the order of the graph."""

    generation: Generation
    activations: tuple[Activation, ...]


def network_operators(view: ModelView) -> tuple[Operator, ...]:
    """The operators without the conversions at the model's ends."""
    return tuple(operator for operator in view.operators if operator.name not in _ENDS)


def recover(view: ModelView, source: str) -> Recovered:
    """Finds a range for every activation of an INT8 model in which every operator has inputs and one output.

    Args:
        source: what to call the file in an error.

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
            if index in without and not tensor.minimum  # the old quantizer writes some of those down
            else _activation(tensor, generation, widths.get(index, _ANY), index in without)
            for index, tensor in zip(indices, tensors, strict=True)
        ),
    )


def by_todays_converter(view: ModelView) -> bool:
    """Whether the file has the metadata that no converter of 2021 writes, whichever quantizer it went through."""
    return any(name == "CONVERSION_METADATA" for name, _ in view.metadata)


def generation_of(view: ModelView) -> Generation:
    """By which arithmetic the file was quantised, from what only that one leaves behind."""
    operators = network_operators(view)
    if any(view.tensors[index].minimum for operator in operators for index in operator.outputs):
        return Generation.STORED
    if by_todays_converter(view):
        return Generation.TODAY
    scales = [
        min(tensor.quantisation.scales) for tensor in view.tensors if tensor.dtype == "int8" and tensor.quantisation
    ]
    if scales and min(scales) < np.float32(SMALLEST_SCALE):
        return Generation.DOUBLE  # the only other one without metadata, and it has no such floor
    unequal = total = 0
    for _, weights, bias, scale in _scales(view, operators):
        # Scales at the floor multiply otherwise.
        plain = (weights > np.float32(1.001 * SMALLEST_SCALE)) & (scale > np.float32(1.001 * SMALLEST_SCALE))
        unequal += int((bias != weights * scale)[plain].sum())
        total += int(plain.sum())
    # A third of the channels differ where scales are multiplied in float64; a few that were changed do not decide.
    return Generation.DOUBLE if unequal > total / 50 else Generation.SCALE_FLOOR


def span_for(scale: float, zero_point: int, generation: Generation, width: Width = _ANY) -> Span | None:
    """A range of float32 values that gives this scale and zero point, or None where none near the obvious one does.

    Args:
        width: bounds on maximum - minimum; at a bound a bias scale may be rounded to either side, so it is not met.
    """
    if LEVELS * scale > float(np.finfo(np.float32).max):
        return None
    for low, high in _candidates(scale, zero_point, generation, width):
        if activation_parameters(low, high, generation) == (scale, zero_point):
            return low, high
    return None


def recorded_span(tensor: Tensor) -> Span | None:
    """The range that the old quantizer stored beside an activation, or None where there is none, or no numbers."""
    span = (*tensor.minimum[:1], *tensor.maximum[:1])
    return span if len(span) == 2 and np.isfinite(span).all() else None


def _activation(tensor: Tensor, generation: Generation, width: Width, without_range: bool) -> Activation:
    wanted = parameters_of(tensor)
    assert wanted is not None  # checked before
    if generation is Generation.STORED:
        span = recorded_span(tensor)
        # A pooled activation keeps its own range beside the scale of what was pooled, a softmax beside its fixed one.
        if span is None or not (without_range or activation_parameters(*span, generation) == wanted):
            why = "the range stored beside it is missing or gives another scale"
            return Activation(tensor.name, None, without_range=without_range, why=why)
    else:
        span = span_for(*wanted, Generation.TODAY, width)
        # Where a range suits today's converter and the file's own, that is the one to give.
        if span is None or activation_parameters(*span, generation) != wanted:
            # Bounds that no range meets are no reason to have none: the bias scales will tell.
            span = span_for(*wanted, generation, width) or span_for(*wanted, generation)
    if span is None:
        return Activation(tensor.name, None, why=f"no range gives the scale {wanted[0]!r} and zero point {wanted[1]}")
    today = without_range or activation_parameters(*span) == wanted
    why = "" if today else "today's converter gives another scale or zero point for any range"
    return Activation(tensor.name, span, today, without_range, why)


def _candidates(scale: float, zero_point: int, generation: Generation, width: Width) -> Iterator[Span]:
    """Pairs of float32 values around the obvious range, nearest first, whose difference is within the width."""
    # Today's converter widens a narrow range at both ends by so much; what is wider it leaves alone.
    margins = (1e-6, 0.0) if generation is Generation.TODAY and LEVELS * scale < 4e-6 else (0.0,)
    for margin in margins:
        wide = max(LEVELS * scale - 2 * margin, 0.0)
        for offset in _OFFSETS:
            low = min(max(margin + (offset - zero_point - 128) * scale, -wide), 0.0)
            yield from _around(low, low + wide, width)


def _around(low: float, high: float, width: Width) -> Iterator[Span]:
    """The end that is farther from zero is walked by ulps; the nearer one, on a finer grid, makes up the difference."""
    swapped = -low > high
    far = np.float32(max(-low, high))
    steps = np.concatenate([[0], np.repeat(np.arange(1, _STEPS + 1), 2) * np.tile([1, -1], _STEPS)])
    steps = steps[far.view(np.int32) + steps > 0] if far > 0 else steps[:1]
    ends = (far.view(np.int32) + steps).astype(np.int32).view(np.float32)
    bounded = width[1] < np.inf
    if min(-low, high) < np.spacing(far):
        # Most activations begin at zero, as after ReLU6.
        for end in ends[:9].tolist():
            if width[0] < end < width[1]:
                yield (-end, 0.0) if swapped else (0.0, end)
    # What is well within comes first: a bound may be a rounding tie.
    for target in (np.mean(width), *width) if bounded else (high - low,):
        # What is left for the near end, and its neighbours, since rounding may take the sum to the wrong side.
        near = np.maximum(target - ends.astype(np.float64), 0).astype(np.float32)
        for shift in (0, 1, -1, 2, -2):
            bits = near.view(np.int32) + np.where(near > 0, shift, 0).astype(np.int32)
            shifted = np.maximum(bits, 0).astype(np.int32).view(np.float32)
            total = shifted.astype(np.float64) + ends
            for index in np.flatnonzero((total > width[0]) & (total < width[1]))[: 64 if bounded else 8]:
                pair = float(shifted[index]), float(ends[index])
                yield (-pair[1], pair[0]) if swapped else (-pair[0], pair[1])


def _widths(view: ModelView, operators: tuple[Operator, ...]) -> dict[int, Width]:
    """Bounds on maximum - minimum of activations that a convolution reads, by tensor index, from its bias scales.

    In float64 a bias scale is (width / 255) * (largest weight / 127), rounded once; the largest weight is a float32,
    and the weight scale leaves one or two of them. Every channel narrows the width a little more.
    """
    # A pooled activation has the scale of what was pooled, so it bounds that.
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
        before = result.get(index, _ANY)
        result[index] = (max(before[0], float(low.max())), min(before[1], float(high.min())))
    return result


def _weight_steps(scales: Array) -> tuple[Array, Array]:
    """Bounds, as float64, on the weight scales before they were rounded to float32."""
    middle = (scales.astype(np.float64) * LARGEST_WEIGHT).astype(np.float32).view(np.int32)
    shifts = np.arange(-2, 3, dtype=np.int32)[:, None]
    largest = np.maximum((middle + shifts).view(np.float32).astype(np.float64), SMALLEST_HALF_RANGE)
    exact = largest / LARGEST_WEIGHT
    fits = exact.astype(np.float32) == scales
    # Where none fits, the rounding of the scale itself is all that is known.
    lost = ~fits.any(axis=0)
    low = np.where(fits, exact, np.inf).min(axis=0)
    high = np.where(fits, exact, -np.inf).max(axis=0)
    return np.where(lost, _halfway(scales, -1), low), np.where(lost, _halfway(scales, 1), high)


def _halfway(values: Array, direction: int) -> Array:
    """The float64 halfway from float32 values to their next neighbour."""
    neighbour = np.nextafter(values, np.float32(np.inf * direction))
    middle: Array = (values.astype(np.float64) + neighbour) / 2
    return middle


def _scales(view: ModelView, operators: tuple[Operator, ...]) -> Iterator[tuple[int, Array, Array, np.float32]]:
    """Of each convolution: index of its input, scales of weights and of bias by channel, and the input's scale."""
    for operator in operators:
        if operator.name in CONVOLUTIONS and len(operator.inputs) == 3:
            source, weights, bias = (scales_of(view.tensors[index]) for index in operator.inputs)
            if weights.shape == bias.shape and len(source) == 1:
                yield operator.inputs[0], weights, bias, source[0]


def _check_int8(tensor: Tensor, source: str) -> None:
    quantisation = tensor.quantisation
    if tensor.dtype != "int8" or quantisation is None:
        of_floats = ", as dynamic-range and float16 models have it" if tensor.dtype.startswith("float") else ""
        raise _not_int8(source, f"{tensor.dtype} in {tensor.name}{of_floats}")
    scale = quantisation.scales[0]
    if len(quantisation.scales) != 1 or not (np.isfinite(scale) and scale > 0):
        raise _not_int8(source, f"{len(quantisation.scales)} scales for {tensor.name}, the first {scale!r}")


def _not_int8(source: str, found: str) -> InputError:
    return InputError(
        expected=f"{source} to be a full-integer model: every activation int8 with one scale",
        found=found,
        next_step="give a full-integer INT8 .tflite file",
    )

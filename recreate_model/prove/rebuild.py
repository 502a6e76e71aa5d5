"""Rebuilds a published file with a toolchain's own `convert()`, from the checkpoint's frozen graph and the ranges.

CPUs fold BatchNorm to different last bits. Where channels differ from the published file, their folding factors are
corrected by the few ulps that the tolerance allows, and the toolchain converts each candidate to find the one that
gives the published channel. Every constant comes from the checkpoint, none from the published file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recreate_model.compare.diff import Comparison, Kind, compare
from recreate_model.network.layer import Layer
from recreate_model.prove.channels import (
    Channels,
    Factors,
    add_ulps,
    by_channel,
    channels,
    convolutions,
    factors,
    from_channels,
)
from recreate_model.prove.consistency import LayerComparison
from recreate_model.prove.conversion import Constants, Conversion
from recreate_model.prove.toolchain import Converted
from recreate_model.quantize.quantizer import LARGEST_WEIGHT
from recreate_model.support.arrays import Array
from recreate_model.support.errors import CheckError, InputError
from recreate_model.tflite.model_view import ModelView, Operator, read_model

# The kinds of difference that different constants cause. Any other kind, such as names, points to another toolchain.
OF_CONSTANTS = {Kind.WEIGHTS, Kind.BIASES, Kind.REQUANTIZED, Kind.RANGES, Kind.LAYOUT}


@dataclass(frozen=True)
class Corrections:
    """The corrections to the folding factors of this CPU, and their effect on the INT8 model.

    Attributes:
        channels: number of channels whose folding factor was corrected.
        of: number of channels that the converter folds.
        ulps: largest difference, in float32 ulps, between a corrected factor and the correctly rounded one.
        weights, scales, biases: number of values in the INT8 model that the corrections changed.
    """

    channels: int
    of: int
    ulps: int
    weights: int
    scales: int
    biases: int


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """A published file as a toolchain rebuilt it.

    Attributes:
        model: the rebuilt file.
        comparison: the published file compared with the rebuilt one.
        corrections: the corrections to folding factors; None where none were needed, or none gave the published bytes.
    """

    model: bytes
    comparison: Comparison
    corrections: Corrections | None


@dataclass(frozen=True, eq=False)
class _Convolution:
    """One convolution of a model, with its values in the graph.

    Attributes:
        shape: of the weights in the model.
        numbers: the quantized values of the model.
        given: the float values of the graph.
        foldable: whether the converter folds BatchNorm into it.
    """

    layer: Layer
    operator: Operator
    shape: tuple[int, ...]
    numbers: Channels
    given: Factors
    foldable: bool


def rebuild(published: bytes, conversion: Conversion, compared: Sequence[LayerComparison]) -> Rebuilt:
    """Rebuilds a published file, first without any corrections to folding factors.

    Args:
        published: the contents of the published file.
        compared: the result of `consistency.compare` for the published file, without refutations.

    Raises:
        ToolError: the toolchain failed.
    """
    untouched = conversion.untouched.models[0]
    as_is = Rebuilt(untouched, compare(published, untouched), None)
    if untouched == published or not as_is.comparison.counts.keys() <= OF_CONSTANTS:
        return as_is
    rows = _rows(published, conversion)
    differing = _differing_channels(untouched, rows)
    if not any(mask.any() for mask in differing):
        return as_is  # no constant differs
    if any(mask.any() and not row.foldable for mask, row in zip(differing, rows, strict=True)):
        return as_is  # a layer differs that no CPU folds
    local = _by_channel(conversion.untouched, rows)
    shifts = _search(conversion, rows, local, differing, compared)
    final = conversion.run(_constants(rows, local, differing, shifts)).models[0]
    if final != published:
        return as_is  # corrections do not explain the difference, so none are reported
    return Rebuilt(final, compare(published, final), _corrections(untouched, final, rows, shifts))


def record(published: bytes, conversion: Conversion, compared: Sequence[LayerComparison]) -> dict[str, Array]:
    """The smallest correction of every folding factor that gives a published file, for `corrections.CorrectionTable`.

    Args:
        compared: as for `rebuild`.

    Returns:
        Layer -> corrections in float32 ulps, int (channels,), for the layers that the converter folds.

    Raises:
        CheckError: no corrections give the published bytes.
        ToolError: the toolchain failed.
    """
    rows = _rows(published, conversion)
    local = _by_channel(conversion.untouched, rows)
    wanted = [np.full(len(row.numbers.bias), row.foldable) for row in rows]
    shifts = _search(conversion, rows, local, wanted, compared)
    if conversion.run(_constants(rows, local, wanted, shifts)).models[0] != published:
        raise CheckError(
            expected=f"corrections to the folding factors with which {conversion.chain.name} gives the published file",
            found="none that gives all its bytes",
            done="no table was written",
            next_step="leave --record out",
        )
    return {row.layer.name: shift for row, shift in zip(rows, shifts, strict=True) if row.foldable}


def by_table(shifts: Mapping[str, Array], conversion: Conversion) -> tuple[bytes, Corrections]:
    """The model that a table's corrections give, and their effect compared with the model without them.

    Args:
        shifts: as in `corrections.CorrectionTable`.

    Raises:
        InputError: the table does not have the layers or channels of the graph.
        ToolError: the toolchain failed.
    """
    expected = {layer.name: layer.outputs for layer in conversion.layers if conversion.foldable(layer)}
    found = {layer: len(values) for layer, values in shifts.items()}
    if expected != found:
        layer = next(name for name in (*expected, *found) if expected.get(name) != found.get(name))
        raise InputError(
            expected=f"corrections for {expected.get(layer, 'no')} channels of {layer}",
            found=f"{found.get(layer, 'none')}",
            next_step="record the table again, with `python -m pipeline prove --record`",
        )
    untouched = conversion.untouched.models[0]
    rows = _rows(untouched, conversion)
    zeros = [np.zeros(len(row.numbers.bias), np.int64) for row in rows]
    chosen = [shifts.get(row.layer.name, zero) for row, zero in zip(rows, zeros, strict=True)]
    foldable = [np.full(len(row.numbers.bias), row.foldable) for row in rows]
    local = _by_channel(conversion.untouched, rows)
    final = conversion.run(_constants(rows, local, foldable, chosen)).models[0]
    return final, _corrections(untouched, final, rows, chosen)


def _search(
    conversion: Conversion,
    rows: Sequence[_Convolution],
    local: Constants,
    wanted: Sequence[Array],
    compared: Sequence[LayerComparison],
) -> list[Array]:
    """For each convolution, the smallest corrections, int (channels,), that give the wanted channels.

    Where no correction gives a channel, its most likely one is returned.

    Args:
        rows: the convolutions of the published file.
        local: the constants folded on this CPU, by channel.
        wanted: mask of the channels to correct, bool (channels,), for each convolution.
    """
    choices = [
        _possible_shifts(row.numbers, row.given, layerwise, mask)
        for row, layerwise, mask in zip(rows, compared, wanted, strict=True)
    ]
    rounds = max(choice.shape[1] for choice in choices)
    tries = [[choice[:, min(turn, choice.shape[1] - 1)] for choice in choices] for turn in range(rounds)]
    chosen = [shifts.copy() for shifts in tries[0]]
    unsolved = [mask.copy() for mask in wanted]
    # Two tries are enough for most channels, as the scale of a channel usually determines its factor.
    for batch in (tries[:2], tries[2:]):
        if not batch or not any(mask.any() for mask in unsolved):
            break
        models = conversion.run(*(_constants(rows, local, wanted, shifts) for shifts in batch)).models
        for model, shifts in zip(models, batch, strict=True):
            for index, mask in enumerate(_differing_channels(model, rows)):
                solved = unsolved[index] & ~mask
                chosen[index][solved] = shifts[index][solved]
                unsolved[index] &= mask
    return chosen


def _rows(model: bytes, conversion: Conversion) -> list[_Convolution]:
    view = read_model(model)
    return [
        _Convolution(
            layer,
            operator,
            view.tensors[operator.inputs[1]].shape,
            _numbers(view, operator),
            factors(layer, conversion.values),
            conversion.foldable(layer),
        )
        for operator, layer in zip(convolutions(view), conversion.layers, strict=True)
    ]


def _by_channel(converted: Converted, rows: Sequence[_Convolution]) -> Constants:
    """The constants that the toolchain folds on this CPU, by channel."""
    return tuple(
        (by_channel(weights.reshape(row.shape), row.operator), bias)
        for row, (weights, bias) in zip(rows, converted.constants, strict=True)
    )


def _numbers(view: ModelView, operator: Operator) -> Channels:
    numbers = channels(view, operator)
    assert numbers is not None  # `consistency.compare` has checked types and shapes
    return numbers


def _differing_channels(model: bytes, rows: Sequence[_Convolution]) -> list[Array]:
    """For each convolution, the mask of the channels in which a model of the same graph differs, bool (channels,)."""
    view = read_model(model)
    return [
        _differing(_numbers(view, operator), row.numbers)
        for operator, row in zip(convolutions(view), rows, strict=True)
    ]


def _differing(one: Channels, two: Channels) -> Array:
    mask: Array = (one.weights != two.weights).any(axis=1)
    mask |= (one.recorded != two.recorded).any(axis=1)
    mask |= (one.scales != two.scales) | (one.bias != two.bias)
    return mask


def _constants(
    rows: Sequence[_Convolution], local: Constants, corrected: Sequence[Array], shifts: Sequence[Array]
) -> Constants:
    """Constants in TensorFlow Lite's layout: those folded on this CPU, except in the corrected channels.

    Args:
        local: the constants folded on this CPU, by channel.
        corrected: mask of the channels that are folded here with corrected factors, for each convolution.
        shifts: corrections in float32 ulps, int (channels,), for each convolution.
    """
    result = []
    for row, (weights, bias), mask, shift in zip(rows, local, corrected, shifts, strict=True):
        folded, folded_bias = row.given.fold(shift)
        mixed = np.where(mask[:, None], folded, weights)
        result.append((from_channels(mixed, row.shape, row.operator), np.where(mask, folded_bias, bias)))
    return tuple(result)


def _corrections(untouched: bytes, final: bytes, rows: Sequence[_Convolution], shifts: Sequence[Array]) -> Corrections:
    views = [read_model(model) for model in (untouched, final)]
    pairs = [[_numbers(view, operator) for operator in convolutions(view)] for view in views]
    corrected = [_differing(one, two) for one, two in zip(*pairs, strict=True)]

    def changed(get: Callable[[Channels], Array]) -> int:
        return sum(int((get(one) != get(two)).sum()) for one, two in zip(*pairs, strict=True))

    return Corrections(
        channels=sum(int(mask.sum()) for mask in corrected),
        of=sum(len(row.numbers.bias) for row in rows if row.foldable),
        ulps=max(int(np.abs(shift[mask]).max(initial=0)) for shift, mask in zip(shifts, corrected, strict=True)),
        weights=changed(lambda numbers: numbers.weights),
        scales=changed(lambda numbers: numbers.scales),
        biases=changed(lambda numbers: numbers.bias),
    )


def _possible_shifts(found: Channels, given: Factors, compared: LayerComparison, wanted: Array) -> Array:
    """The corrections that can explain each channel, for `Factors.fold`, smallest first: int (channels, tries).

    Args:
        wanted: mask of the channels to explain; the rows of other channels have no meaning.
    """
    shifts = np.array(sorted(range(-given.ulps, given.ulps + 1), key=abs))
    largest = np.abs(given.weights).max(axis=1)
    rows = []
    for shift in shifts:
        factor = add_ulps(given.exact.astype(np.float32), np.full(len(largest), shift))
        scales = largest * np.abs(factor) / np.float32(LARGEST_WEIGHT)
        with np.errstate(divide="ignore", invalid="ignore"):
            bias = (given.beta - given.mean * factor) / found.bias_scales.astype(np.float64)
        # The quantizers round the bias in three ways, which differ by at most one level and in the last float32 bits.
        near = np.abs(bias - found.bias) <= 1 + np.abs(bias) * 2.0**-23
        rows.append(((compared.lowest <= shift) & (shift <= compared.highest), near, scales == found.scales))
    inside, near, same_scale = (np.stack(column, axis=1) for column in zip(*rows, strict=True))
    possible = inside & wanted[:, None]
    # Scale and bias narrow the candidates, unless they exclude all, as a raised scale or a clipped bias does.
    for hint in (same_scale, near):
        possible = np.where((possible & hint).any(axis=1)[:, None], possible & hint, possible)
    order = np.argsort(~possible, axis=1, kind="stable")
    result: Array = shifts[order]
    # Channels with fewer candidates repeat their first one.
    result = np.where(np.take_along_axis(possible, order, axis=1), result, result[:, :1])
    return result[:, : max(1, int(possible.sum(axis=1).max()))]

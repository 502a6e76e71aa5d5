"""A published file made again by a toolchain: its own `convert()` on the checkpoint's frozen graph, given the ranges.

Where the CPU at hand folds BatchNorm to other last bits than the one that made the file, the folding factors of the
channels that differ are moved by the few units in the last place that the tolerance allows, and the toolchain itself
says which of them gives the channel published. Every constant comes from the checkpoint; none comes from the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recreate_model.compare.diff import Comparison, Kind, compare
from recreate_model.network.mobilenet_v2 import Layer
from recreate_model.prove.channels import (
    Channels,
    Factors,
    by_channel,
    channels,
    convolutions,
    factors,
    from_channels,
    moved,
)
from recreate_model.prove.consistency import Layerwise
from recreate_model.prove.conversion import Constants, Conversion
from recreate_model.prove.toolchain import Converted
from recreate_model.quantize.quantiser import LARGEST_WEIGHT
from recreate_model.support.arrays import Array
from recreate_model.support.errors import CheckError, InputError
from recreate_model.tflite.model_view import ModelView, Operator, read_model

# What other constants can change in a model; other names or operators are another toolchain's.
OF_CONSTANTS = {Kind.WEIGHTS, Kind.BIASES, Kind.REQUANTIZED, Kind.RANGES, Kind.LAYOUT}


@dataclass(frozen=True)
class Moves:
    """What was moved off the constants that the CPU at hand folds, and what that changed in the model.

    Attributes:
        channels: whose folding factor was moved, of the `of` that the converter folds.
        ulps: most units in the last place between a factor that was used and the exactly rounded one.
        weights, scales, biases: numbers of the INT8 model that differ from one made without moving.
    """

    channels: int
    of: int
    ulps: int
    weights: int
    scales: int
    biases: int


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """What a toolchain made.

    Attributes:
        comparison: of the published file with it.
        moves: None where nothing was moved, as it was not needed or did not help.
    """

    model: bytes
    comparison: Comparison
    moves: Moves | None


@dataclass(frozen=True, eq=False)
class _Convolution:
    """One convolution of a model beside what the graph says of it."""

    layer: Layer
    operator: Operator
    shape: tuple[int, ...]
    numbers: Channels
    given: Factors
    foldable: bool


def rebuild(published: bytes, conversion: Conversion, compared: Sequence[Layerwise]) -> Rebuilt:
    """Makes a file again, first with the frozen graph untouched.

    Args:
        compared: of `consistency.compare` with the published file, without a refutation.

    Raises:
        ToolError: the toolchain failed.
    """
    untouched = conversion.untouched.models[0]
    as_is = Rebuilt(untouched, compare(published, untouched), None)
    if untouched == published or not as_is.comparison.counts.keys() <= OF_CONSTANTS:
        return as_is
    rows = _rows(published, conversion)
    wrong = _wrong(untouched, rows)
    if not any(mask.any() for mask in wrong):
        return as_is  # what differs is in no constant
    if any(mask.any() and not row.foldable for mask, row in zip(wrong, rows, strict=True)):
        return as_is  # what differs is no CPU's doing
    local = _by_channel(conversion.untouched, rows)
    shifts = _search(conversion, rows, local, wrong, compared)
    final = conversion.run(_constants(rows, local, wrong, shifts)).models[0]
    if final != published:
        return as_is  # the difference is not another CPU's, and nothing is claimed to be moved
    return Rebuilt(final, compare(published, final), _moves(untouched, final, rows, shifts))


def record(published: bytes, conversion: Conversion, compared: Sequence[Layerwise]) -> dict[str, Array]:
    """The smallest shift of every folding factor that gives a file, by layer; for `moves.MoveTable`.

    Args:
        compared: as for `rebuild`.

    Raises:
        CheckError: no shifts give its bytes.
        ToolError: the toolchain failed.
    """
    rows = _rows(published, conversion)
    local = _by_channel(conversion.untouched, rows)
    wanted = [np.full(len(row.numbers.bias), row.foldable) for row in rows]
    shifts = _search(conversion, rows, local, wanted, compared)
    if conversion.run(_constants(rows, local, wanted, shifts)).models[0] != published:
        raise CheckError(
            expected=f"one shift of each folding factor to give the file, by {conversion.chain.name}",
            found="none that gives all its bytes",
            done="no table was written",
            next_step="leave --record out",
        )
    return {row.layer.name: shift for row, shift in zip(rows, shifts, strict=True) if row.foldable}


def by_table(shifts: Mapping[str, Array], conversion: Conversion) -> tuple[bytes, Moves]:
    """The model that a table's shifts give, and what they changed against the one without.

    Raises:
        InputError: other layers, or another number of channels.
        ToolError: the toolchain failed.
    """
    expected = {layer.name: layer.outputs for layer in conversion.layers if conversion.foldable(layer)}
    found = {layer: len(values) for layer, values in shifts.items()}
    if expected != found:
        layer = next(name for name in (*expected, *found) if expected.get(name) != found.get(name))
        raise InputError(
            expected=f"a shift for each of {expected.get(layer, 'no')} channels of {layer}",
            found=f"{found.get(layer, 'none')}",
            next_step="record the table again, with `python -m pipeline prove --record`",
        )
    untouched = conversion.untouched.models[0]
    rows = _rows(untouched, conversion)
    zeros = [np.zeros(len(row.numbers.bias), np.int64) for row in rows]
    chosen = [shifts.get(row.layer.name, zero) for row, zero in zip(rows, zeros, strict=True)]
    every = [np.full(len(row.numbers.bias), row.foldable) for row in rows]
    local = _by_channel(conversion.untouched, rows)
    final = conversion.run(_constants(rows, local, every, chosen)).models[0]
    return final, _moves(untouched, final, rows, chosen)


def _search(
    conversion: Conversion,
    rows: Sequence[_Convolution],
    local: Constants,
    wanted: Sequence[Array],
    compared: Sequence[Layerwise],
) -> list[Array]:
    """Of each convolution, the smallest shifts that give the wanted channels of the published file, where any do."""
    choices = [
        _possible_shifts(row.numbers, row.given, layerwise, mask)
        for row, layerwise, mask in zip(rows, compared, wanted, strict=True)
    ]
    rounds = max(choice.shape[1] for choice in choices)
    tries = [[choice[:, min(turn, choice.shape[1] - 1)] for choice in choices] for turn in range(rounds)]
    chosen = [shifts.copy() for shifts in tries[0]]
    left = [mask.copy() for mask in wanted]
    # Two tries are enough for a channel whose scale shows its factor; the others are rare.
    for batch in (tries[:2], tries[2:]):
        if not batch or not any(mask.any() for mask in left):
            break
        models = conversion.run(*(_constants(rows, local, wanted, shifts) for shifts in batch)).models
        for model, shifts in zip(models, batch, strict=True):
            for index, mask in enumerate(_wrong(model, rows)):
                solved = left[index] & ~mask
                chosen[index][solved] = shifts[index][solved]
                left[index] &= mask
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
    """The constants that the toolchain folded on this CPU, by channel."""
    return tuple(
        (by_channel(weights.reshape(row.shape), row.operator), bias)
        for row, (weights, bias) in zip(rows, converted.constants, strict=True)
    )


def _numbers(view: ModelView, operator: Operator) -> Channels:
    numbers = channels(view, operator)
    assert numbers is not None  # nothing was refuted, and models of the same graph are compared
    return numbers


def _wrong(model: bytes, rows: Sequence[_Convolution]) -> list[Array]:
    """Of each convolution, the channels in which another model of the same graph differs."""
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
    rows: Sequence[_Convolution], local: Constants, moving: Sequence[Array], shifts: Sequence[Array]
) -> Constants:
    """The constants this CPU folds, but for the moving channels, which are folded here with the factors moved."""
    result = []
    for row, (weights, bias), mask, shift in zip(rows, local, moving, shifts, strict=True):
        folded, folded_bias = row.given.fold(shift)
        mixed = np.where(mask[:, None], folded, weights)
        result.append((from_channels(mixed, row.shape, row.operator), np.where(mask, folded_bias, bias)))
    return tuple(result)


def _moves(untouched: bytes, final: bytes, rows: Sequence[_Convolution], shifts: Sequence[Array]) -> Moves:
    views = [read_model(model) for model in (untouched, final)]
    pairs = [[_numbers(view, operator) for operator in convolutions(view)] for view in views]
    moved_channels = [_differing(one, two) for one, two in zip(*pairs, strict=True)]

    def changed(get: Callable[[Channels], Array]) -> int:
        return sum(int((get(one) != get(two)).sum()) for one, two in zip(*pairs, strict=True))

    return Moves(
        channels=sum(int(mask.sum()) for mask in moved_channels),
        of=sum(len(row.numbers.bias) for row in rows if row.foldable),
        ulps=max(int(np.abs(shift[mask]).max(initial=0)) for shift, mask in zip(shifts, moved_channels, strict=True)),
        weights=changed(lambda numbers: numbers.weights),
        scales=changed(lambda numbers: numbers.scales),
        biases=changed(lambda numbers: numbers.bias),
    )


def _possible_shifts(found: Channels, given: Factors, compared: Layerwise, wanted: Array) -> Array:
    """Of each channel, the shifts for `Factors.fold` that can explain it, the smallest first: (channels, tries).

    Args:
        wanted: the channels that matter; of the others there is one try, without a meaning.
    """
    shifts = np.array(sorted(range(-given.ulps, given.ulps + 1), key=abs))
    largest = np.abs(given.weights).max(axis=1)
    rows = []
    for shift in shifts:
        factor = moved(given.exact.astype(np.float32), np.full(len(largest), shift))
        scales = largest * np.abs(factor) / np.float32(LARGEST_WEIGHT)
        with np.errstate(divide="ignore", invalid="ignore"):
            bias = (given.beta - given.mean * factor) / found.bias_scales.astype(np.float64)
        # The quantisers round a quotient in three ways, which differ by a level at most, and in the last bits.
        near = np.abs(bias - found.bias) <= 1 + np.abs(bias) * 2.0**-23
        rows.append(((compared.lowest <= shift) & (shift <= compared.highest), near, scales == found.scales))
    inside, near, same_scale = (np.stack(column, axis=1) for column in zip(*rows, strict=True))
    possible = inside & wanted[:, None]
    # A scale that was widened says nothing of the factor, nor does a bias that did not fit.
    for hint in (same_scale, near):
        possible = np.where((possible & hint).any(axis=1)[:, None], possible & hint, possible)
    order = np.argsort(~possible, axis=1, kind="stable")
    result: Array = shifts[order]
    # Where a channel has fewer tries than another, its first stands for the rest.
    result = np.where(np.take_along_axis(possible, order, axis=1), result, result[:, :1])
    return result[:, : max(1, int(possible.sum(axis=1).max()))]

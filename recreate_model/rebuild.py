"""A published file made again by a toolchain: its own `convert()` on the checkpoint's frozen graph, given the ranges.

Where the CPU at hand folds BatchNorm to other last bits than the one that made the file, the folding factors of the
channels that differ are moved by the few units in the last place that the tolerance allows, and the toolchain itself
says which of them gives the channel published. Every constant comes from the checkpoint; none comes from the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recreate_model import toolchain
from recreate_model.channels import (
    Channels,
    Factors,
    by_channel,
    channels,
    convolutions,
    factors,
    from_channels,
    moved,
)
from recreate_model.consistency import Layerwise
from recreate_model.diff import Comparison, Kind, compare
from recreate_model.model_view import ModelView, Operator, read_model
from recreate_model.network import Array, Layer
from recreate_model.quantiser import LARGEST_WEIGHT
from recreate_model.toolchain import Converted, Edits, Job, Toolchain

# What other constants can change in a model; other names or operators are another toolchain's.
_OF_CONSTANTS = {Kind.WEIGHTS, Kind.BIASES, Kind.RESTATED, Kind.RANGES, Kind.LAYOUT}

Constants = tuple[tuple[Array, Array], ...]


@dataclass(frozen=True)
class Moves:
    """What was moved off the constants that the CPU at hand folds, and what that changed in the model.

    Attributes:
        channels: whose folding factor was moved, of `of`.
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
    """One convolution of the published file beside what the checkpoint says of it."""

    operator: Operator
    shape: tuple[int, ...]
    published: Channels
    given: Factors
    compared: Layerwise


def rebuild(
    published: bytes,
    view: ModelView,
    chain: Toolchain,
    python: Path,
    job: Job,
    layers: Sequence[Layer],
    values: Mapping[str, Array],
    compared: Sequence[Layerwise],
) -> Rebuilt:
    """Makes the file again, first with the frozen graph untouched.

    Args:
        view: of the published file.
        job: its only attempt has the recovered ranges and no constants.
        layers, values: of the checkpoint.
        compared: of `consistency.compare`, without a refutation.

    Raises:
        ToolError: the toolchain failed.
    """

    def run(*attempts: Edits) -> Converted:
        return toolchain.convert(chain, python, replace(job, attempts=attempts))

    (edits,) = job.attempts
    first = run(edits)
    untouched = first.models[0]
    as_is = Rebuilt(untouched, compare(published, untouched), None)
    if untouched == published or not as_is.comparison.counts.keys() <= _OF_CONSTANTS:
        return as_is
    table = _table(view, layers, values, compared)
    wrong = _wrong(untouched, table)
    if not any(mask.any() for mask in wrong):
        return as_is  # what differs is in no constant
    local = tuple(
        (by_channel(weights.reshape(row.shape), row.operator), bias)
        for row, (weights, bias) in zip(table, first.constants, strict=True)
    )
    choices = [
        _possible_shifts(row.published, row.given, row.compared, mask) for row, mask in zip(table, wrong, strict=True)
    ]
    rounds = max(choice.shape[1] for choice in choices)
    tries = [[choice[:, min(turn, choice.shape[1] - 1)] for choice in choices] for turn in range(rounds)]
    chosen = [shifts.copy() for shifts in tries[0]]
    left = [mask.copy() for mask in wrong]
    # Two tries are enough for a channel whose scale shows its factor; the others are rare.
    for batch in (tries[:2], tries[2:]):
        if not batch or not any(mask.any() for mask in left):
            break
        models = run(*(Edits(edits.spans, _constants(table, local, wrong, shifts)) for shifts in batch)).models
        for model, shifts in zip(models, batch, strict=True):
            for index, mask in enumerate(_wrong(model, table)):
                solved = left[index] & ~mask
                chosen[index][solved] = shifts[index][solved]
                left[index] &= mask
    final = run(Edits(edits.spans, _constants(table, local, wrong, chosen))).models[0]
    if final != published:
        return as_is  # the difference is not another CPU's, and nothing is claimed to be moved
    return Rebuilt(final, compare(published, final), _moves(untouched, final, table, wrong, chosen))


def _table(
    view: ModelView, layers: Sequence[Layer], values: Mapping[str, Array], compared: Sequence[Layerwise]
) -> list[_Convolution]:
    return [
        _Convolution(
            operator,
            view.tensors[operator.inputs[1]].shape,
            _numbers(view, operator),
            factors(layer, values),
            layerwise,
        )
        for operator, layer, layerwise in zip(convolutions(view), layers, compared, strict=True)
    ]


def _numbers(view: ModelView, operator: Operator) -> Channels:
    numbers = channels(view, operator)
    assert numbers is not None  # nothing was refuted, and models of the same graph are compared
    return numbers


def _wrong(model: bytes, table: Sequence[_Convolution]) -> list[Array]:
    """Of each convolution, the channels in which a model of the same graph differs from the published one."""
    view = read_model(model)
    return [
        _differing(_numbers(view, operator), row.published)
        for operator, row in zip(convolutions(view), table, strict=True)
    ]


def _differing(one: Channels, two: Channels) -> Array:
    mask: Array = (one.weights != two.weights).any(axis=1)
    mask |= (one.recorded != two.recorded).any(axis=1)
    mask |= (one.scales != two.scales) | (one.bias != two.bias)
    return mask


def _constants(
    table: Sequence[_Convolution], local: Constants, wrong: Sequence[Array], shifts: Sequence[Array]
) -> Constants:
    """The constants this CPU folds, but for the wrong channels, which are folded here with the factors moved."""
    result = []
    for row, (weights, bias), mask, shift in zip(table, local, wrong, shifts, strict=True):
        folded, folded_bias = row.given.fold(shift)
        mixed = np.where(mask[:, None], folded, weights)
        result.append((from_channels(mixed, row.shape, row.operator), np.where(mask, folded_bias, bias)))
    return tuple(result)


def _moves(
    untouched: bytes,
    final: bytes,
    table: Sequence[_Convolution],
    wrong: Sequence[Array],
    chosen: Sequence[Array],
) -> Moves:
    views = [read_model(model) for model in (untouched, final)]
    pairs = [[_numbers(view, operator) for operator in convolutions(view)] for view in views]

    def changed(get: Callable[[Channels], Array]) -> int:
        return sum(int((get(one) != get(two)).sum()) for one, two in zip(*pairs, strict=True))

    return Moves(
        channels=sum(int(mask.sum()) for mask in wrong),
        of=sum(len(row.published.bias) for row in table),
        ulps=max(
            (int(np.abs(shift[mask]).max(initial=0)) for shift, mask in zip(chosen, wrong, strict=True)), default=0
        ),
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

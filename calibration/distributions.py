"""Pictures -> the histogram of every activation beside its exact range, for the range methods that look at all values.

Not for: `min-max`, which needs no histogram and is faster without (`measure`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from calibration import ranges
from calibration.histogram import Histogram, Tally
from calibration.inputs import Inputs, chunks
from calibration.range_methods import RangeMethod
from calibration.workers import Workers
from recreate_model import convert
from recreate_model.interpret import Runner
from recreate_model.network import Array
from recreate_model.recipe import Picture


@dataclass(frozen=True, eq=False)
class Distributions:
    """Of every activation, in the order of `convert.activations`.

    Attributes:
        spans: exact minimum and maximum, float32 (activations, 2).
        histograms: of all values, one for each activation.
        pictures: they came from, with their digests.
    """

    spans: Array
    histograms: tuple[Histogram, ...]
    pictures: tuple[Picture, ...]


def distributions(
    float_model: bytes, inputs: Inputs, pictures: Sequence[Picture], workers: Workers, progress: Callable[[int], None]
) -> Distributions:
    """Runs the pictures through the network and counts every value of every activation.

    Args:
        progress: called with the number of pictures just finished.

    Raises:
        InputError: a picture that cannot be read, or that changed since it was chosen.
    """
    tallies = [Tally() for _ in convert.activations(float_model)]
    shards: list[Array] = []
    done: list[Picture] = []
    setup = functools.partial(_setup, convert.with_all_activations_as_outputs(float_model), inputs)
    for chunk in workers.run(setup, _count_chunk, chunks(pictures)):
        # Added as they come: those of all chunks together would not fit into memory.
        for tally, histogram in zip(tallies, chunk.histograms, strict=True):
            tally.add(histogram)
        shards.append(chunk.spans)
        done.extend(chunk.pictures)
        progress(len(chunk.pictures))
    return Distributions(ranges.merge(shards), tuple(tally.histogram() for tally in tallies), tuple(done))


def chosen(method: RangeMethod, found: Distributions, float_model: bytes) -> Array:
    """The range of every activation by a method, float32 (activations, 2); input and logits keep theirs."""
    clipped = clipped_activations(float_model)
    return np.array(
        [
            method.choose(histogram, (float(low), float(high))) if name in clipped else (low, high)
            for name, histogram, (low, high) in zip(
                convert.activations(float_model), found.histograms, found.spans, strict=True
            )
        ],
        np.float32,
    )


def clipped_activations(float_model: bytes) -> frozenset[str]:
    """Names of the activations whose outliers may be cut off.

    Not the input: pixels have their ends, and are no outliers there. Not the logits: the largest of them is the answer.
    Nor those whose range decides nothing. The effect was measured (docs/calibration.md).
    """
    return frozenset(convert.activations_with_a_range(float_model)[1:-1])


def _setup(model: bytes, inputs: Inputs) -> tuple[Runner, Inputs]:
    return Runner(model, "xnnpack"), inputs


def _count_chunk(state: tuple[Runner, Inputs], pictures: Sequence[Picture]) -> Distributions:
    runner, inputs = state
    tallies = [Tally() for _ in range(runner.outputs)]
    loaded = map(inputs.load, pictures)  # one at a time: inputs are large
    shards, done = zip(*((_count(runner, value, tallies), picture) for value, picture in loaded), strict=True)
    return Distributions(ranges.merge(shards), tuple(tally.histogram() for tally in tallies), done)


def _count(runner: Runner, value: Array, tallies: Sequence[Tally]) -> Array:
    """Adds one picture's values to the tallies and returns its ranges, float32 (activations, 2)."""
    spans = np.empty((runner.outputs, 2), np.float32)

    def count(row: int, values: Array) -> None:
        spans[row] = values.min(), values.max()
        tallies[row].count(values)

    runner.visit(value, count)
    return spans

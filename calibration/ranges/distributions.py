"""Pictures -> the histogram of every activation beside its exact range, for the range methods that look at all values.

Not for: `min-max`, which needs no histogram and is faster without (`measure`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.parallel.workers import Workers
from calibration.pictures.inputs import Inputs
from calibration.ranges.histogram import Histogram, Tally
from calibration.ranges.measure import Measured, each, joined, run_chunks
from calibration.ranges.range_methods import RangeMethod
from recreate_model.quantize import convert
from recreate_model.recipe import Picture
from recreate_model.support.arrays import Array
from recreate_model.tflite.interpret import Runner


@dataclass(frozen=True, eq=False)
class Distributions(Measured):
    """The same and more of every activation.

    Attributes:
        histograms: of all values, one for each activation.
    """

    histograms: tuple[Histogram, ...]


def distributions(
    float_model: bytes, inputs: Inputs, pictures: Sequence[Picture], workers: Workers, progress: Callable[[int], None]
) -> Distributions:
    """As `measure`, and counts every value of every activation."""
    tallies = [Tally() for _ in convert.activations(float_model)]
    parts: list[Measured] = []
    model = convert.with_all_activations_as_outputs(float_model)
    for chunk in run_chunks(model, inputs, pictures, workers, progress, _count_chunk):
        # Added as they come: those of all chunks together would not fit into memory.
        for tally, histogram in zip(tallies, chunk.histograms, strict=True):
            tally.add(histogram)
        parts.append(Measured(chunk.spans, chunk.pictures))
    return _with_histograms(joined(parts), tallies)


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


def _with_histograms(measured: Measured, tallies: Sequence[Tally]) -> Distributions:
    return Distributions(measured.spans, measured.pictures, tuple(tally.histogram() for tally in tallies))


def _count_chunk(state: tuple[Runner, Inputs], pictures: Sequence[Picture]) -> Distributions:
    runner, inputs = state
    tallies = [Tally() for _ in range(runner.outputs)]
    return _with_histograms(each(inputs, pictures, lambda value: _count(runner, value, tallies)), tallies)


def _count(runner: Runner, value: Array, tallies: Sequence[Tally]) -> Array:
    """Adds one picture's values to the tallies and returns its ranges, float32 (activations, 2)."""
    spans = np.empty((runner.outputs, 2), np.float32)

    def count(row: int, values: Array) -> None:
        spans[row] = values.min(), values.max()
        tallies[row].count(values)

    runner.visit(value, count)
    return spans

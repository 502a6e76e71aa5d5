"""Measures the range and the histogram of every activation, for range methods that use the distribution of values.

Not for: `min-max`, which needs no histograms (`measure` is faster).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.parallel.workers import Workers
from calibration.pictures.inputs import Inputs
from calibration.ranges.histogram import Histogram, Tally
from calibration.ranges.measure import Measured, merge_measured, run_chunks, spans_of_pictures
from calibration.ranges.range_methods import RangeMethod
from recreate_model.quantize import convert
from recreate_model.recipe import Picture
from recreate_model.support.arrays import Array
from recreate_model.tflite.interpret import Runner


@dataclass(frozen=True, eq=False)
class Distributions(Measured):
    """Ranges and histograms of every activation.

    Attributes:
        histograms: one for each activation, of all its values.
    """

    histograms: tuple[Histogram, ...]


def distributions(
    float_model: bytes, inputs: Inputs, pictures: Sequence[Picture], workers: Workers, progress: Callable[[int], None]
) -> Distributions:
    """As `measure`, with a histogram of every activation."""
    tallies = [Tally() for _ in convert.activations(float_model)]
    parts: list[Measured] = []
    model = convert.with_all_activations_as_outputs(float_model)
    for chunk in run_chunks(model, inputs, pictures, workers, progress, _count_chunk):
        # Added one by one, as the histograms of all chunks would not fit into memory.
        for tally, histogram in zip(tallies, chunk.histograms, strict=True):
            tally.add(histogram)
        parts.append(Measured(chunk.spans, chunk.pictures))
    return _with_histograms(merge_measured(parts), tallies)


def choose_spans(method: RangeMethod, found: Distributions, float_model: bytes) -> Array:
    """The range of every activation that a method chooses, in real units: float32 (activations, 2).

    Activations that are not among `clipped_activations` keep their exact range.
    """
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
    """Names of the activations whose outliers a range method may clip.

    The input is excluded, as the range of pixels is fixed and has no outliers. The logits are excluded, as the largest
    one is the prediction. Activations whose range has no effect are excluded. docs/calibration.md has measurements.
    """
    return frozenset(convert.activations_with_a_range(float_model)[1:-1])


def _with_histograms(measured: Measured, tallies: Sequence[Tally]) -> Distributions:
    return Distributions(measured.spans, measured.pictures, tuple(tally.histogram() for tally in tallies))


def _count_chunk(state: tuple[Runner, Inputs], pictures: Sequence[Picture]) -> Distributions:
    runner, inputs = state
    tallies = [Tally() for _ in range(runner.outputs)]
    measured = spans_of_pictures(inputs, pictures, lambda value: _count(runner, value, tallies))
    return _with_histograms(measured, tallies)


def _count(runner: Runner, value: Array, tallies: Sequence[Tally]) -> Array:
    """Adds the values of one input to the tallies and returns its ranges, float32 (activations, 2)."""
    spans = np.empty((runner.outputs, 2), np.float32)

    def count(row: int, values: Array) -> None:
        spans[row] = values.min(), values.max()
        tallies[row].count(values)

    runner.visit(value, count)
    return spans

"""From a histogram to the range that is quantised: which outliers are cut off so that the others get finer steps.

`min-max` cuts off none and is the default. The others choose from the histogram, in float64 and in one fixed order;
none ever widens a range. The histograms of two CPUs differ in a few counts, though, and where two ranges are nearly
as good a method may then come to the other: no bytes are claimed of any method but `min-max`.

Not for: rounding ranges, or widening them to hold zero; `ranges` and TensorFlow's quantiser do so for every method.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from calibration.ranges.histogram import Histogram
from recreate_model.quantize.quantiser import LEVELS
from recreate_model.recipe import MIN_MAX
from recreate_model.support.arrays import Array

KINDS = (MIN_MAX, "percentile", "mse", "entropy")
Span = tuple[float, float]

_MSE_STEPS = 256  # candidates for each end: about as many as the levels of the quantised range
_ENTROPY_BINS = 2048  # of equal width up to the largest magnitude, as TensorRT has them
_ENTROPY_STRIDE = 8  # of them between two candidates
_ENTROPY_FLOOR = 1e-4  # stands for an empty bin, in values, as ONNX Runtime smooths


@dataclass(frozen=True)
class RangeMethod:
    """How a range is chosen: one of `KINDS`, and for `percentile` the percentage that is kept, above 0 up to 100."""

    kind: str
    percentage: Fraction = Fraction(100)

    @classmethod
    def parse(cls, text: str) -> RangeMethod:
        """`min-max`, `percentile:P`, `mse` or `entropy`. Raises ValueError saying what it is instead."""
        kind, colon, number = text.partition(":")
        if kind not in KINDS:
            raise ValueError(f"the unknown method {kind!r}")
        if kind != "percentile":
            if colon:
                raise ValueError(f"{text!r}, and {kind} takes no number")
            return cls(kind)
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,9})?", number):
            raise ValueError(f"{text!r}, without a percentage")
        percentage = Fraction(number)
        if not 0 < percentage <= 100:
            raise ValueError(f"{text!r}, whose percentage is not above 0 and at most 100")
        return cls(kind, percentage)

    def __str__(self) -> str:
        """The one spelling that recipes and tables have: `percentile:99.90` is `percentile:99.9`."""
        if self.kind != "percentile":
            return self.kind
        number = f"{int(self.percentage)}.{int(self.percentage % 1 * 10**9):09d}".rstrip("0").rstrip(".")
        return f"{self.kind}:{number}"

    def choose(self, histogram: Histogram, span: Span) -> Span:
        """The range to quantise, within the exact minimum and maximum `span` of the values counted.

        A span that is not finite is returned as it is: what is wrong with it is for `convert.check_ranges` to say.
        """
        if self.kind == MIN_MAX or not np.isfinite(span).all():
            return span
        if self.kind == "percentile":
            return _percentile(histogram, span, self.percentage)
        low, high = {"mse": _mse, "entropy": _entropy}[self.kind](histogram, (min(span[0], 0.0), max(span[1], 0.0)))
        # An end that zero lies beyond stays where it is, and the other does not pass it.
        return min(max(low, span[0]), span[1]), max(min(high, span[1]), span[0])


def _percentile(histogram: Histogram, span: Span, percentage: Fraction) -> Span:
    """Cuts (100 - P) / 2 per cent of the values at each end, or fewer, as ONNX Runtime does for asymmetric ranges.

    With n values, floor(n (100 - P) / 200) of the smallest may be cut off, and as many of the largest. The range ends
    at the outer edge of the bin that holds the first value that may not, and never beyond the exact minimum or
    maximum: so P = 100 is min-max, bit for bit.
    """
    lows, highs = histogram.edges()
    upwards, downwards = np.cumsum(histogram.counts), np.cumsum(histogram.counts[::-1])
    cut = int(int(upwards[-1]) * (100 - percentage) / 200)
    first = int(np.searchsorted(upwards, cut, side="right"))
    last = len(highs) - 1 - int(np.searchsorted(downwards, cut, side="right"))
    return max(span[0], float(lows[first])), min(span[1], float(highs[last]))


def _mse(histogram: Histogram, span: Span) -> Span:
    """The range with the smallest squared error of 8-bit affine quantisation, of 257 candidates for each end.

    Candidates are 0, 1/256 ... 256/256 of the exact end. Of equal errors the widest range wins. `squared_error` says
    what is counted. `span` holds zero, as the quantiser sees to it that every range does.
    """
    steps = np.arange(_MSE_STEPS, -1, -1) / _MSE_STEPS
    lows, highs = (end * (steps if end else steps[:1]) for end in span)
    errors = squared_error(histogram, span, lows[:, None], highs[None, :])
    row, column = np.unravel_index(int(errors.argmin()), errors.shape)
    return float(lows[row]), float(highs[column])


def squared_error(histogram: Histogram, span: Span, low: Array, high: Array) -> Array:
    """Sum of squared errors, in real units, of quantising to 8 bits over [low, high] with low <= 0 <= high.

    The bounds and zero are levels: what becomes one of them, from beyond the bound or from half a step around, costs
    its squared distance from it, so zeros cost nothing. Any other value costs step**2 / 12, as if it lay anywhere
    between two levels. Values are taken at the middle of their bins. `low` and `high` broadcast.
    """
    lows, highs = histogram.edges()
    middles = np.clip((lows + highs) / 2, *span)
    sums = [np.concatenate([[0.0], np.cumsum(histogram.counts * middles**power)]) for power in (0, 1, 2)]

    def count(start: Array, stop: Array) -> Array:
        return np.asarray(sums[0][stop] - sums[0][start])

    def distance(start: Array, stop: Array, level: Array) -> Array:
        first, second = (total[stop] - total[start] for total in sums[1:])
        # Differences of large sums can come out a little below zero.
        return np.asarray(np.maximum(second - 2 * level * first + level * level * count(start, stop), 0.0))

    step = (high - low) / LEVELS
    begin = np.searchsorted(middles, low + step / 2, "left")
    end = np.maximum(begin, np.searchsorted(middles, high - step / 2, "right"))
    zero_begin = np.clip(np.searchsorted(middles, -step / 2, "left"), begin, end)
    zero_end = np.clip(np.searchsorted(middles, step / 2, "right"), begin, end)
    at_levels = (
        distance(np.zeros_like(begin), begin, low)
        + distance(zero_begin, zero_end, np.zeros_like(step))
        + distance(end, np.full_like(end, len(middles)), high)
    )
    return np.asarray(at_levels + (count(begin, zero_begin) + count(zero_end, end)) * step * step / 12)


def _entropy(histogram: Histogram, span: Span) -> Span:
    """The range whose quantised distribution diverges least from the true one: Kullback and Leibler's measure.

    After S. Migacz, "8-bit inference with TensorRT" (GTC 2017), as ONNX Runtime and others implement it: for each
    candidate threshold the distribution up to it, what lies beyond gathered in the last bin, is compared with the same
    distribution in as many levels as there are to quantise to. Adapted to affine int8 so:

    - the range of a threshold T is [-T, T] within the exact minimum and maximum, [0, T] for values that are never
      negative, and all 256 levels fall on it, not 128 on each side;
    - zeros are left out, as they are quantised exactly, and would outweigh everything after a ReLU;
    - bins of equal width are filled from ours, each spread evenly over its width;
    - a threshold that most values lie beyond is no candidate: where no value is near zero, all of them would be in one
      bin, and one bin diverges from nothing.

    `span` holds zero.
    """
    width = max(-span[0], span[1]) / _ENTROPY_BINS
    below, above = (int(np.ceil(end / width)) if width else 0 for end in (-span[0], span[1]))
    counts = _evenly_spaced(histogram, span, np.arange(-below, above + 1) * width)
    if not counts.sum():
        return span
    best, least = _ENTROPY_BINS, np.inf
    for threshold in range(_ENTROPY_BINS, 0, -_ENTROPY_STRIDE):
        start, stop = below - min(threshold, below), below + min(threshold, above)
        if stop - start <= LEVELS:
            break  # fewer bins than levels: nothing would be lost
        if 2 * counts[start:stop].sum() < counts.sum():
            break
        divergence = _divergence(counts, start, stop)
        if divergence < least:
            best, least = threshold, divergence
    return -best * width, best * width


def _evenly_spaced(histogram: Histogram, span: Span, edges: Array) -> Array:
    """Values in each bin between neighbouring `edges`, as fractions where our bins are wider; zeros left out."""
    lows, highs = (np.clip(side, *span) for side in histogram.edges())
    zero = (histogram.bins & 0x7FFF) == 0
    upto = np.cumsum(np.where(zero, 0, histogram.counts)).astype(np.float64)
    positions = np.stack([lows, highs], axis=1).reshape(-1)
    cumulated = np.stack([np.concatenate([[0.0], upto[:-1]]), upto], axis=1).reshape(-1)
    found = np.interp(edges, positions, cumulated)
    # Many values can be equal to the minimum or the maximum, as after a ReLU6; a line has no height there.
    found[0], found[-1] = 0.0, upto[-1]
    return np.diff(found)


def _divergence(counts: Array, start: int, stop: int) -> float:
    """Of the distribution clipped to the bins `start` to `stop` from the same in 256 levels, in nats."""
    inside = counts[start:stop]
    clipped = inside.copy()
    clipped[0] += counts[:start].sum()
    clipped[-1] += counts[stop:].sum()
    occupied = clipped > 0
    level = np.arange(len(inside)) * (LEVELS + 1) // len(inside)
    mass, members = np.bincount(level, inside), np.bincount(level, occupied)
    quantised = np.maximum((mass / np.maximum(members, 1))[level], _ENTROPY_FLOOR)[occupied]
    true = clipped[occupied] / clipped.sum()
    return float((true * np.log(true / (quantised / quantised.sum()))).sum())

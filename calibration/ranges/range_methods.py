"""Range methods: choose the range to quantize from a histogram, clipping outliers for a smaller scale.

`min-max` clips nothing and is the default. The other methods choose from the histogram, in float64 and in a fixed
order; none widens a range. The histograms of two CPUs differ in a few counts. So where two ranges are almost equally
good, a method may choose differently on another CPU. Reproducible bytes are claimed for `min-max` only.

Not for: rounding ranges (`range_table`), or widening them to include zero (TensorFlow's quantizer).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from calibration.ranges.histogram import Histogram
from recreate_model.quantize.quantizer import LEVELS
from recreate_model.recipe import MIN_MAX
from recreate_model.support.arrays import Array

KINDS = (MIN_MAX, "percentile", "mse", "entropy")
Span = tuple[float, float]

_MSE_STEPS = 256  # candidates for each bound: about the number of quantized levels
_ENTROPY_BINS = 2048  # bins of equal width up to the largest absolute value, as in TensorRT
_ENTROPY_STRIDE = 8  # bins between two candidate thresholds
_ENTROPY_FLOOR = 1e-4  # count that replaces 0 in an empty bin, as in ONNX Runtime


@dataclass(frozen=True)
class RangeMethod:
    """A range method.

    Attributes:
        kind: one of `KINDS`.
        percentage: for `percentile`, the percentage of values to keep, above 0 and at most 100.
    """

    kind: str
    percentage: Fraction = Fraction(100)

    @classmethod
    def parse(cls, text: str) -> RangeMethod:
        """Reads `min-max`, `percentile:P`, `mse` or `entropy`.

        Raises:
            ValueError: anything else; the message describes what was found.
        """
        kind, colon, number = text.partition(":")
        if kind not in KINDS:
            raise ValueError(f"unknown method {kind!r}")
        if kind != "percentile":
            if colon:
                raise ValueError(f"{text!r}, but {kind} takes no number")
            return cls(kind)
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,9})?", number):
            raise ValueError(f"{text!r}, without a valid percentage")
        percentage = Fraction(number)
        if not 0 < percentage <= 100:
            raise ValueError(f"{text!r}, whose percentage is not above 0 and at most 100")
        return cls(kind, percentage)

    def __str__(self) -> str:
        """The canonical spelling, as in recipes and range tables: `percentile:99.90` becomes `percentile:99.9`."""
        if self.kind != "percentile":
            return self.kind
        number = f"{int(self.percentage)}.{int(self.percentage % 1 * 10**9):09d}".rstrip("0").rstrip(".")
        return f"{self.kind}:{number}"

    def choose(self, histogram: Histogram, span: Span) -> Span:
        """The range to quantize, in real units. It never exceeds `span`.

        Args:
            histogram: of all values.
            span: exact minimum and maximum of these values. If it is not finite, it is returned unchanged, and
                `convert.check_ranges` reports it.
        """
        if self.kind == MIN_MAX or not np.isfinite(span).all():
            return span
        if self.kind == "percentile":
            return _percentile(histogram, span, self.percentage)
        low, high = {"mse": _mse, "entropy": _entropy}[self.kind](histogram, (min(span[0], 0.0), max(span[1], 0.0)))
        # The range is computed with zero included. If all values are positive or negative, it is clipped to `span`.
        return min(max(low, span[0]), span[1]), max(min(high, span[1]), span[0])


def _percentile(histogram: Histogram, span: Span, percentage: Fraction) -> Span:
    """Clips up to (100 - P) / 2 percent of the values on each side, as ONNX Runtime does for asymmetric ranges.

    Of n values, at most floor(n (100 - P) / 200) on each side are clipped. Each bound is the outer edge of the bin with
    the first value to keep, but not beyond the exact minimum or maximum. So P = 100 equals min-max, bit for bit.
    """
    lows, highs = histogram.edges()
    upwards, downwards = np.cumsum(histogram.counts), np.cumsum(histogram.counts[::-1])
    cut = int(int(upwards[-1]) * (100 - percentage) / 200)
    first = int(np.searchsorted(upwards, cut, side="right"))
    last = len(highs) - 1 - int(np.searchsorted(downwards, cut, side="right"))
    return max(span[0], float(lows[first])), min(span[1], float(highs[last]))


def _mse(histogram: Histogram, span: Span) -> Span:
    """The range with the smallest `squared_error` of 8-bit affine quantization, of 257 candidates for each bound.

    The candidates are 0, 1/256 ... 256/256 of the exact bound. Of equal errors, the widest range is chosen. `span`
    includes zero, as the quantizer requires.
    """
    steps = np.arange(_MSE_STEPS, -1, -1) / _MSE_STEPS
    lows, highs = (bound * (steps if bound else steps[:1]) for bound in span)
    errors = squared_error(histogram, span, lows[:, None], highs[None, :])
    row, column = np.unravel_index(int(errors.argmin()), errors.shape)
    return float(lows[row]), float(highs[column])


def squared_error(histogram: Histogram, span: Span, low: Array, high: Array) -> Array:
    """The sum of squared errors, in squared real units, of quantizing to 8 bits over [low, high].

    Values that map to low, high or zero contribute their squared distance from it; these are the clipped values and
    those within half a step. Every other value contributes step**2 / 12, the expected error between two levels. Each
    value is assumed to be at the middle of its bin.

    Args:
        span: exact minimum and maximum of the values.
        low, high: bounds with low <= 0 <= high; arrays that broadcast against each other.
    """
    lows, highs = histogram.edges()
    middles = np.clip((lows + highs) / 2, *span)
    sums = [np.concatenate([[0.0], np.cumsum(histogram.counts * middles**power)]) for power in (0, 1, 2)]

    def count(start: Array, stop: Array) -> Array:
        return np.asarray(sums[0][stop] - sums[0][start])

    def distance(start: Array, stop: Array, level: Array) -> Array:
        first, second = (total[stop] - total[start] for total in sums[1:])
        # Rounding can make the difference of two large sums slightly negative.
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
    """The range whose quantized distribution has the smallest Kullback-Leibler divergence from the original one.

    After S. Migacz, "8-bit inference with TensorRT" (GTC 2017), as ONNX Runtime and others implement it. For each
    candidate threshold, the values beyond it are moved to the last bin, and the distribution is compared with itself
    after quantization. Changes for affine int8:

    - The range of a threshold T is [-T, T] clipped to the exact minimum and maximum, so [0, T] if no value is negative.
      All 256 levels cover this range, rather than 128 for each sign.
    - Zeros are not counted. They are quantized exactly, and after a ReLU they would outweigh all other values.
    - The bins of equal width are computed from the histogram, with the values of each bin spread evenly over it.
    - A threshold below most of the values is not a candidate. If no value is near zero, such a threshold would put all
      values into one bin, whose divergence is zero.

    `span` includes zero.
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
            break  # with fewer bins than levels, quantization loses nothing
        if 2 * counts[start:stop].sum() < counts.sum():
            break
        divergence = _divergence(counts, start, stop)
        if divergence < least:
            best, least = threshold, divergence
    return -best * width, best * width


def _evenly_spaced(histogram: Histogram, span: Span, edges: Array) -> Array:
    """The number of values, without zeros, between neighboring `edges`; fractional where a histogram bin is wider."""
    lows, highs = (np.clip(side, *span) for side in histogram.edges())
    zero = (histogram.bins & 0x7FFF) == 0
    upto = np.cumsum(np.where(zero, 0, histogram.counts)).astype(np.float64)
    positions = np.stack([lows, highs], axis=1).reshape(-1)
    cumulated = np.stack([np.concatenate([[0.0], upto[:-1]]), upto], axis=1).reshape(-1)
    found = np.interp(edges, positions, cumulated)
    # Many values may equal the minimum or maximum, as after ReLU6. Interpolation does not count these.
    found[0], found[-1] = 0.0, upto[-1]
    return np.diff(found)


def _divergence(counts: Array, start: int, stop: int) -> float:
    """The divergence, in nats, of the distribution clipped to the bins `start` to `stop` from its quantized form."""
    inside = counts[start:stop]
    clipped = inside.copy()
    clipped[0] += counts[:start].sum()
    clipped[-1] += counts[stop:].sum()
    occupied = clipped > 0
    level = np.arange(len(inside)) * (LEVELS + 1) // len(inside)
    mass, members = np.bincount(level, inside), np.bincount(level, occupied)
    quantized = np.maximum((mass / np.maximum(members, 1))[level], _ENTROPY_FLOOR)[occupied]
    original = clipped[occupied] / clipped.sum()
    return float((original * np.log(original / (quantized / quantized.sum()))).sum())

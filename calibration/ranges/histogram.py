"""Histograms with fixed bins, so that histograms of parts of the data add up exactly.

The bin of a float32 value is the upper half of its bits: sign, exponent and seven bits of mantissa. The width of a bin
is at most 2**-7 of its values, for values of any size, and the range need not be known before counting. Counts are
integers, so neither order, grouping nor the number of processes changes their sum.

Not for: minima and maxima, which `range_table.merge` merges with all their bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recreate_model.support.arrays import Array

_BINS = 1 << 16
_NEGATIVE = 1 << 15  # the sign bit


@dataclass(frozen=True, eq=False)
class Histogram:
    """The number of values of one activation in each occupied bin; small enough to send between processes.

    Attributes:
        bins: upper halves of the bit patterns, uint16 (n,), in ascending order of their values, -0.0 before 0.0.
        counts: int64 (n,), all positive.
    """

    bins: Array
    counts: Array

    def edges(self) -> tuple[Array, Array]:
        """Lower and upper edges of the bins, each float64 (n,), in the order of the bins. 0.0 is in [0, 2**-133)."""
        inner = _magnitudes(self.bins)
        outer = _magnitudes(self.bins.astype(np.uint32) + 1)
        negative = self.bins >= _NEGATIVE
        return np.where(negative, -outer, inner), np.where(negative, -inner, outer)


class Tally:
    """Accumulates a histogram. It takes half a megabyte."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)

    def count(self, values: Array) -> None:
        """Counts every value of a contiguous float32 array of any shape."""
        found = np.bincount(values.reshape(-1).view(np.uint32) >> 16)
        self._counts[: len(found)] += found

    def add(self, histogram: Histogram) -> None:
        """Adds the counts of another histogram."""
        self._counts[histogram.bins] += histogram.counts

    def histogram(self) -> Histogram:
        """The histogram of all values counted so far."""
        occupied = np.flatnonzero(self._counts).astype(np.uint16)
        negative = occupied >= _NEGATIVE
        bins = np.concatenate([occupied[negative][::-1], occupied[~negative]])
        return Histogram(bins, self._counts[bins])


def _magnitudes(bins: Array) -> Array:
    """The smallest absolute value of each bin, float64; infinite for the bin after the last finite one."""
    bits = (bins.astype(np.uint32) & (_NEGATIVE - 1)) << 16
    magnitudes: Array = bits.view(np.float32).astype(np.float64)
    return magnitudes

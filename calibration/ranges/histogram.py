"""Histograms whose bins do not depend on the data, so that those of any shards add up exactly.

The bin of a float32 value is the upper half of its bits: sign, exponent and seven bits of mantissa. So a bin is 2**-7
of its values wide or less, for small values as for large ones, and nobody has to know a range before counting. Adding
counts is adding whole numbers: order, grouping and the number of processes cannot matter.

Not for: minima and maxima, which `ranges` merges exactly, with all their bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recreate_model.support.arrays import Array

_BINS = 1 << 16
_NEGATIVE = 1 << 15  # the bit of the sign


@dataclass(frozen=True, eq=False)
class Histogram:
    """How many values of one activation lie in each bin that has any; small enough to send between processes.

    Attributes:
        bins: upper halves of the bit patterns, uint16 (n,), in the order of their values, -0.0 before 0.0.
        counts: int64 (n,), all positive.
    """

    bins: Array
    counts: Array

    def edges(self) -> tuple[Array, Array]:
        """Lower and upper bound of each bin, float64 (n,), both in the order of the bins. Zeros are in [0, 2**-133)."""
        inner = _magnitudes(self.bins)
        outer = _magnitudes(self.bins.astype(np.uint32) + 1)
        negative = self.bins >= _NEGATIVE
        return np.where(negative, -outer, inner), np.where(negative, -inner, outer)


class Tally:
    """Counts that are still growing. One for each activation takes half a megabyte at most."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)

    def count(self, values: Array) -> None:
        """Counts every value of a contiguous float32 array of any shape."""
        found = np.bincount(values.reshape(-1).view(np.uint32) >> 16)
        self._counts[: len(found)] += found

    def add(self, histogram: Histogram) -> None:
        """Adds what was counted elsewhere."""
        self._counts[histogram.bins] += histogram.counts

    def histogram(self) -> Histogram:
        """What was counted so far."""
        occupied = np.flatnonzero(self._counts).astype(np.uint16)
        negative = occupied >= _NEGATIVE
        bins = np.concatenate([occupied[negative][::-1], occupied[~negative]])
        return Histogram(bins, self._counts[bins])


def _magnitudes(bins: Array) -> Array:
    """The smallest magnitude of each bin, its sign left out: float64, infinite behind the last finite bin."""
    bits = (bins.astype(np.uint32) & (_NEGATIVE - 1)) << 16
    magnitudes: Array = bits.view(np.float32).astype(np.float64)
    return magnitudes

"""Histograms count every value once, in its bin, and merging them does not depend on the order."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calibration.ranges.histogram import Histogram, Tally
from recreate_model.support.arrays import Array

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VALUES = st.integers(0, 300).flatmap(lambda size: arrays(np.float32, size, elements=FLOATS))


def of(values: Array) -> Histogram:
    """Returns the histogram of one array."""
    tally = Tally()
    tally.count(values)
    return tally.histogram()


def merge(shards: Iterable[Histogram]) -> Histogram:
    """Returns the sum of the shards, as the parent of the workers adds them."""
    tally = Tally()
    for shard in shards:
        tally.add(shard)
    return tally.histogram()


def counted(histogram: Histogram) -> list[tuple[int, int]]:
    """Returns pairs of bin number and count, in order."""
    return list(zip(histogram.bins.tolist(), histogram.counts.tolist(), strict=True))


@given(st.lists(VALUES, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_merging_does_not_depend_on_order_or_grouping(shards: list[Array], chance: random.Random) -> None:
    """Any order, merged in any two groups, gives the histogram of all values together."""
    shuffled = chance.sample(shards, len(shards))
    cut = chance.randint(0, len(shards))
    groups = [merge(map(of, group)) for group in (shuffled[:cut], shuffled[cut:])]
    together = counted(of(np.concatenate(shards)))
    assert counted(merge(groups)) == counted(merge(map(of, shards))) == together


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_counting_arrays_one_by_one_equals_counting_all_at_once(shards: list[Array]) -> None:
    """A tally continues after it returned a histogram, and that histogram does not change."""
    tally = Tally()
    tally.count(shards[0])
    before = tally.histogram()
    kept = counted(before)
    for values in shards[1:]:
        tally.count(values)
    assert counted(tally.histogram()) == counted(of(np.concatenate(shards)))
    assert counted(before) == kept


@given(VALUES)
def test_every_value_lies_in_its_bin(values: Array) -> None:
    """Counting by the edges alone gives the same count for each bin, and no value is left over; -0.0 is negative."""
    histogram = of(values)
    assert int(histogram.counts.sum()) == len(values)
    lows, highs = histogram.edges()
    for low, high, (number, count) in zip(lows, highs, counted(histogram), strict=True):
        negative = number >= 1 << 15
        inside = (values > low) & (values <= high) if negative else (values >= low) & (values < high)
        assert int((inside & (np.signbit(values) == negative)).sum()) == count


@given(VALUES)
def test_bins_are_in_the_order_of_their_values(values: Array) -> None:
    """Edges ascend and do not overlap; each bin holds a value and occurs once."""
    histogram = of(values)
    lows, highs = histogram.edges()
    assert (lows < highs).all()
    assert (highs[:-1] <= lows[1:]).all()
    assert (histogram.counts > 0).all()
    assert histogram.counts.dtype == np.int64


@given(st.floats(2.0**-100, 2.0**100, width=32))
def test_bins_are_narrow(value: float) -> None:
    """A bin is at most 2**-7 of its values wide, on both sides of zero. Subnormal numbers are not tested."""
    for sign in (1, -1):
        ((low,), (high,)) = of(np.array([sign * value], np.float32)).edges()
        assert 0 < high - low <= value * 2.0**-7


def test_arrays_of_any_shape_and_large_counts_are_added_exactly() -> None:
    """Arrays have four dimensions, as activations do, and counts above 32 bits are added exactly."""
    values = np.random.default_rng(0).normal(size=(1, 7, 5, 3)).astype(np.float32)
    assert counted(of(values)) == counted(of(values.reshape(-1)))
    many = Histogram(np.array([3], np.uint16), np.array([1 << 40], np.int64))
    assert counted(merge([many, many, of(np.zeros(1, np.float32))])) == [(0, 1), (3, 1 << 41)]


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, -1e-45, 3.4028235e38, -3.4028235e38, 6.0, -1.0])
def test_extreme_float32_values_lie_in_their_bins(value: float) -> None:
    """Zeros of both signs, the smallest subnormals and the largest numbers."""
    ((low,), (high,)) = of(np.array([value], np.float32)).edges()
    assert low <= np.float32(value) <= high

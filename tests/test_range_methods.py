"""Range methods: what each cuts off, what it keeps, and that the number of processes does not matter."""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calibration.parallel.workers import Workers
from calibration.pictures.folder import FolderSource
from calibration.pictures.inputs import CHUNK, Inputs
from calibration.ranges import range_methods
from calibration.ranges.distributions import Distributions, choose_spans, distributions
from calibration.ranges.histogram import Histogram, Tally
from calibration.ranges.measure import measure
from calibration.ranges.range_methods import KINDS, RangeMethod, squared_error
from calibration.ranges.range_table import from_json
from calibration.selection import select
from pipeline import console
from pipeline.engine import golden, runner
from pipeline.engine.stages import STAGES
from pipeline.interface.views import build as build_view
from pipeline.request import resolve
from pipeline.request.request import Request
from recreate_model.quantize import convert
from recreate_model.quantize.quantizer import activation_parameters
from recreate_model.recipe import Picture, Preprocess
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_file
from recreate_model.support.errors import UsageError
from tests.conftest import build

NAME = "mobilenet_v2_0.35_96_seeded_INT8"
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**60), max_value=2.0**60)
# Arrays of many and of few distinct values: some bins hold several values, and the ends occur more than once.
VALUES = st.one_of(
    arrays(np.float32, st.integers(1, 300), elements=FLOATS),
    arrays(np.float32, st.integers(1, 300), elements=st.sampled_from([0.0, -0.0, 6.0, -2.5, 0.125, 1e-40, 40.0])),
)
PERCENTAGES = st.decimals(min_value="0.001", max_value=100, places=3).map(Fraction)
METHODS = ("percentile:99.9", "percentile:100", "percentile:0.001", "mse", "entropy")


def histogram_of(values: Array) -> tuple[Histogram, tuple[float, float]]:
    """The histogram of the values and their exact range."""
    tally = Tally()
    tally.count(values)
    return tally.histogram(), (float(values.min()), float(values.max()))


def choose(method: str, values: Array) -> tuple[float, float]:
    """The range that a method chooses for the values."""
    return RangeMethod.parse(method).choose(*histogram_of(values))


def bell(count: int, *more: float) -> Array:
    """Normally distributed values, the same in every run, followed by `more`."""
    return np.append(np.random.default_rng(0).normal(size=count), more).astype(np.float32)


@given(VALUES, st.sampled_from(METHODS))
def test_no_method_widens_a_range(values: Array, method: str) -> None:
    """The chosen bounds are in order and lie within the exact minimum and maximum."""
    low, high = choose(method, values)
    assert float(values.min()) <= low <= high <= float(values.max())


@given(VALUES)
def test_percentile_100_is_min_max(values: Array) -> None:
    """Nothing is cut off; the bounds are equal to the last bit."""
    assert choose("percentile:100", values) == choose("min-max", values) == histogram_of(values)[1]


@given(VALUES, PERCENTAGES, PERCENTAGES)
def test_a_larger_percentage_never_cuts_more(values: Array, one: Fraction, other: Fraction) -> None:
    """The range of the larger percentage contains that of the smaller."""
    less, more = (RangeMethod("percentile", part).choose(*histogram_of(values)) for part in sorted((one, other)))
    assert more[0] <= less[0]
    assert less[1] <= more[1]


@given(VALUES, PERCENTAGES)
def test_a_percentile_cuts_no_more_than_its_share(values: Array, percentage: Fraction) -> None:
    """At most (100 - P) / 2 percent of the values at each end; each bound is within a bin of the first value kept."""
    low, high = RangeMethod("percentile", percentage).choose(*histogram_of(values))
    cut = math.floor(len(values) * (100 - percentage) / 200)
    ordered = np.sort(values).astype(np.float64)
    first, last = ordered[cut], ordered[len(values) - 1 - cut]
    assert low <= first
    assert high >= last
    assert (values < low).sum() <= cut
    assert (values > high).sum() <= cut
    for bound, kept in ((low, first), (high, last)):
        assert abs(bound - kept) <= max(abs(kept) * 2.0**-7, 2.0**-126)


def test_a_percentile_counts_exactly() -> None:
    """99.9 percent cuts one of 2,000 values at each end, and none of 1,999: the share is not rounded as a float."""
    many = np.arange(1, 2001, dtype=np.float32)
    assert choose("percentile:99.9", many) == (2.0, 2000.0)  # 1,999 and 2,000 share a bin
    assert choose("percentile:99.9", many[:-1]) == (1.0, 1999.0)
    far = np.append(many, np.float32(1e6))
    assert choose("percentile:99.9", far) == (2.0, 2000.0 + 8)  # the edge of its bin
    assert choose("percentile:99.9", -far) == (-2008.0, -2.0)


@given(VALUES)
def test_the_squared_error_equals_a_plain_sum_over_the_bins(values: Array) -> None:
    """For several ranges at once, each result equals that of a loop over the bins."""
    histogram, span = histogram_of(values)
    lows = np.array([[min(span[0], 0.0)], [min(span[0], 0.0) / 3]])
    highs = np.array([[max(span[1], 0.0), max(span[1], 0.0) / 5]])
    found = squared_error(histogram, span, lows, highs)
    assert found.shape == (2, 2)
    for row, column in np.ndindex(2, 2):
        low, high = float(lows[row, 0]), float(highs[0, column])
        largest = max(abs(span[0]), abs(span[1])) ** 2 * len(values)
        assert found[row, column] == pytest.approx(
            _plain_error(histogram, span, low, high), rel=1e-9, abs=1e-9 * largest
        )


def _plain_error(histogram: Histogram, span: tuple[float, float], low: float, high: float) -> float:
    step, total = (high - low) / 255, 0.0
    for lower, upper, count in zip(*histogram.edges(), histogram.counts, strict=True):
        middle = min(max((lower + upper) / 2, span[0]), span[1])
        if middle < low + step / 2:
            error = (middle - low) ** 2
        elif middle > high - step / 2:
            error = (middle - high) ** 2
        elif abs(middle) <= step / 2:
            error = middle**2
        else:
            error = step**2 / 12
        total += float(error) * int(count)
    return total


@pytest.mark.parametrize("bounds", [(-4.5, 4.5), (-2.0, 3.0), (-1.0, 1.0)])
def test_the_squared_error_estimates_the_error_of_quantizing(bounds: tuple[float, float]) -> None:
    """For 50,000 values it is within 2 % of the error of rounding to the 256 levels and back."""
    values = bell(50_000)
    scale, zero_point = activation_parameters(*bounds)
    levels = np.clip(np.rint(values / np.float64(scale)) + zero_point, -128, 127)
    lost = float(np.square((levels - zero_point) * scale - values).sum())
    assert float(squared_error(*histogram_of(values), *map(np.float64, bounds))) == pytest.approx(lost, rel=0.02)


@given(VALUES)
def test_mse_is_no_worse_than_min_max_by_its_own_measure(values: Array) -> None:
    """The exact range is one of the candidates."""
    histogram, span = histogram_of(values)
    errors = [
        float(squared_error(histogram, span, np.float64(min(low, 0.0)), np.float64(max(high, 0.0))))
        for low, high in (span, choose("mse", values))
    ]
    assert errors[1] <= errors[0]


def test_mse_finds_the_best_pair_of_bounds() -> None:
    """No pair of candidates has a smaller error; both ends of a skewed distribution are cut, by different amounts."""
    values = np.concatenate([bell(200_000), np.abs(bell(500)) * 4]).astype(np.float32)
    histogram, span = histogram_of(values)
    low, high = choose("mse", values)
    steps = np.arange(257) / 256
    errors = squared_error(histogram, span, (span[0] * steps)[:, None], (span[1] * steps)[None, :])
    assert float(squared_error(histogram, span, np.float64(low), np.float64(high))) == errors.min()
    assert span[0] < low < -3
    assert 10 < high < span[1]


@pytest.mark.parametrize("method", ["percentile:99.9", "mse", "entropy"])
@pytest.mark.parametrize("sign", [1, -1])
def test_one_outlier_is_cut_off(method: str, sign: int) -> None:
    """One value in a million, at 30 standard deviations, does not cost the others precision; min-max keeps it."""
    values = sign * bell(1_000_000, 30.0)
    ends = sorted(map(abs, choose(method, values)))
    assert ends[0] > 3
    assert ends[1] < 15
    assert sorted(map(abs, choose("min-max", values)))[1] == 30


@pytest.mark.parametrize("method", ["mse", "entropy"])
def test_values_without_outliers_keep_their_range(method: str) -> None:
    """Evenly spread values, such as pixels, lose less than two steps of 1/128, also where none is negative."""
    even = np.linspace(-1, 1, 100_001, dtype=np.float32)
    for values in (even, np.abs(even)):
        low, high = choose(method, values)
        assert low <= float(values.min()) + 2 / 128
        assert high >= 1 - 2 / 128


@given(VALUES)
def test_no_value_is_lost_between_bins_of_equal_width(values: Array) -> None:
    """Every nonzero value is counted, also where many are equal to the minimum, at the edge of the first bin."""
    histogram, span = histogram_of(values)
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    counts = range_methods._evenly_spaced(histogram, (low, high), np.linspace(low, high, 11))
    assert counts.sum() == pytest.approx(histogram.counts[histogram.bins & 0x7FFF != 0].sum())
    assert (counts >= 0).all()


def test_zeros_do_not_move_the_threshold_of_entropy() -> None:
    """A million zeros, as after a ReLU, do not change the upper bound: every range represents zero exactly."""
    values = np.abs(bell(20_000, 12.0))
    _, alone = choose("entropy", values)
    assert choose("entropy", np.append(values, np.zeros(1_000_000, np.float32))) == (0.0, alone)
    assert alone < 6


@pytest.mark.parametrize("sign", [1, -1])
def test_entropy_does_not_cut_off_everything_where_no_value_is_near_zero(sign: int) -> None:
    """A threshold below all values gathers them in one bin without divergence: the range 5 to 5 was once chosen."""
    values = (sign * (5 + np.abs(np.random.default_rng(4).standard_normal(50_000) * 3))).astype(np.float32)
    low, high = choose("entropy", values)
    assert np.count_nonzero((values < low) | (values > high)) < 50


def test_entropy_chooses_the_threshold_with_the_least_divergence() -> None:
    """A plain search agrees, for values that are never negative, with many zeros, and for values of both signs."""
    for values in (np.maximum(bell(20_000, 40.0), 0) ** 2, bell(20_000, 9.0, 12.0), bell(20_000, -9.0) + 1):
        values = values.astype(np.float32)
        assert choose("entropy", values) == pytest.approx(_plain_entropy(values), rel=1e-9)


def _plain_entropy(values: Array) -> tuple[float, float]:
    histogram, span = histogram_of(values)
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    width = max(-low, high) / 2048
    below, above = math.ceil(-low / width), math.ceil(high / width)
    counts = np.zeros(below + above)
    for lower, upper, number, count in zip(*histogram.edges(), histogram.bins, histogram.counts, strict=True):
        if number & 0x7FFF:
            lower, upper = max(lower, low), min(upper, high)
            if lower == upper:  # the minimum or the maximum itself
                counts[0 if lower < 0 else -1] += count
                continue
            start, stop = (math.floor(edge / width) + below for edge in (lower, upper))
            for index in range(max(start - 1, 0), min(stop + 2, below + above)):
                left, right = (index - below) * width, (index + 1 - below) * width
                counts[index] += count * max(0.0, min(upper, right) - max(lower, left)) / (upper - lower)
    results = []
    for threshold in range(2048, 0, -8):
        inside = slice(below - min(threshold, below), below + min(threshold, above))
        size = inside.stop - inside.start
        if size >= 256:
            results.append((_plain_divergence(counts, inside, size), -threshold))
    best = -min(results)[1] * width
    return max(span[0], -best), min(span[1], best)


def _plain_divergence(counts: Array, inside: slice, size: int) -> float:
    true = list(counts[inside])
    true[0] += sum(counts[: inside.start])
    true[-1] += sum(counts[inside.stop :])
    quantized = [0.0] * size
    for _, group in itertools.groupby(range(size), lambda i: i * 256 // size):
        members = list(group)
        occupied = [i for i in members if true[i] > 0]
        for i in occupied:
            quantized[i] = max(sum(counts[inside][members]) / len(occupied), 1e-4)
    all_true, all_quantized = sum(true), sum(quantized)
    return sum(
        p / all_true * math.log(p / all_true / (q / all_quantized)) for p, q in zip(true, quantized, strict=True) if p
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "values",
    [[0.0] * 9, [-0.0], [3.0] * 9, [-3.0] * 9, [7.0], [1e-45, 0.0], [-1e-45], [-5.0, -4.0, -4.5], [3.4e38, -3.4e38]],
    ids=str,
)
def test_degenerate_data_has_a_finite_range(method: str, values: list[float]) -> None:
    """Equal values, zeros, a single value, subnormals, only negatives, the limits of float32: no range is widened."""
    array = np.array(values, np.float32)
    low, high = choose(method, array)
    assert float(array.min()) <= low <= high <= float(array.max())
    assert np.isfinite([low, high]).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_range_that_is_not_finite_is_left_to_the_check_of_ranges(method: str) -> None:
    """The error about a network that overflows then shows the measured value, not the result of a search."""
    histogram, _ = histogram_of(bell(100))
    assert RangeMethod.parse(method).choose(histogram, (-1.0, math.inf)) == (-1.0, math.inf)
    assert math.isnan(RangeMethod.parse(method).choose(histogram, (math.nan, math.nan))[0])


@pytest.mark.parametrize(
    "text", ["percentile:0", "percentile:0.000", "percentile:100.001", "percentile", "mse:1", "kl", ""]
)
def test_an_invalid_method_is_refused(text: str) -> None:
    """A percentage of 0 or above 100, a missing or an unexpected one, and unknown names."""
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        RangeMethod.parse(text)


@given(PERCENTAGES)
def test_a_method_has_one_spelling(percentage: Fraction) -> None:
    """The text reads back as the same method, so trailing zeros do not make another recipe."""
    method = RangeMethod("percentile", percentage)
    assert RangeMethod.parse(str(method)) == method
    assert len(str(method)) <= len("percentile:99.999")
    for kind in set(KINDS) - {"percentile"}:
        assert str(RangeMethod.parse(kind)) == kind


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("percentile:99.90", "percentile:99.9"),
        ("percentile:100.0", "percentile:100"),
        ("percentile:010", "percentile:10"),
    ],
)
def test_redundant_zeros_are_left_out(text: str, spelling: str) -> None:
    """Leading and trailing ones."""
    assert str(RangeMethod.parse(text)) == spelling


@pytest.fixture(scope="module")
def found(small_float: bytes, picture_folder: Path) -> Distributions:
    """The distributions of twelve pictures, measured by one process."""
    return _found(small_float, picture_folder, 1)


def _pictures(root: Path) -> tuple[Picture, ...]:
    return select(FolderSource(root), calib=12, limit=0).calibration


def _found(model: bytes, root: Path, jobs: int, step: int = 1) -> Distributions:
    inputs = Inputs(FolderSource(root), Preprocess(), 96)
    return distributions(model, inputs, _pictures(root)[::step], Workers(jobs), lambda count: None)


def _counted(found: Distributions) -> list[tuple[list[int], list[int]]]:
    return [(histogram.bins.tolist(), histogram.counts.tolist()) for histogram in found.histograms]


def test_histograms_do_not_depend_on_processes_or_order(
    found: Distributions, small_float: bytes, picture_folder: Path
) -> None:
    """Three processes, or the reverse order, give the same counts, and every method the same bits."""
    assert len(found.pictures) == 12 > CHUNK  # else one process would have had it all
    for other in (_found(small_float, picture_folder, 3), _found(small_float, picture_folder, 1, -1)):
        assert _counted(other) == _counted(found)
        for text in METHODS:
            method = RangeMethod.parse(text)
            same = choose_spans(method, other, small_float), choose_spans(method, found, small_float)
            assert same[0].tobytes() == same[1].tobytes()


def test_histograms_come_with_the_ranges_of_min_max(
    found: Distributions, small_float: bytes, picture_folder: Path
) -> None:
    """The exact ranges and the pictures are those of `measure`, and every value of every picture is counted."""
    inputs = Inputs(FolderSource(picture_folder), Preprocess(), 96)
    exact = measure(small_float, inputs, _pictures(picture_folder), Workers(), lambda count: None)
    assert found.spans.tobytes() == exact.spans.tobytes()
    assert found.pictures == exact.pictures == _pictures(picture_folder)
    assert len(found.histograms) == 67
    assert int(found.histograms[0].counts.sum()) == 12 * 96 * 96 * 3
    for histogram, (low, high) in zip(found.histograms, found.spans, strict=True):
        lows, highs = histogram.edges()
        assert lows[0] <= low <= highs[0]
        assert lows[-1] <= high <= highs[-1]


@pytest.mark.parametrize("method", ["percentile:90", "mse", "entropy"])
def test_input_and_logits_keep_their_range(method: str, found: Distributions, small_float: bytes) -> None:
    """So do activations whose range no byte depends on; other ranges are cut."""
    spans = choose_spans(RangeMethod.parse(method), found, small_float)
    names = list(convert.activations(small_float))
    kept = {name for name, new, old in zip(names, spans, found.spans, strict=True) if (new == old).all()}
    assert {"input", "MobilenetV2/Logits/Conv2d_1c_1x1/BiasAdd"} <= kept
    assert set(names) - set(convert.activations_with_a_range(small_float)) <= kept
    assert len(kept) < len(names)
    assert (spans[:, 0] >= found.spans[:, 0]).all()
    assert (spans[:, 1] <= found.spans[:, 1]).all()


def test_a_build_names_its_method_and_claims_no_golden_bytes(small_build: Request) -> None:
    """In its range table, on its card and in the terminal, for any number of processes; `verify` claims no bytes."""
    folder = small_build.out / NAME
    before = digest_file(folder / f"{NAME}.tflite")
    request = replace(small_build, range_method="percentile:90.0")
    outcomes = build(request, ("card",))
    table = from_json((folder / "calibration" / "ranges.json").read_text(), "it")
    assert table.range_method == "percentile:90"
    assert digest_file(folder / f"{NAME}.tflite") != before
    assert ", outliers cut off by the method percentile:90." in (folder / "README.md").read_text()
    rows = {row["what"]: row["verdict"] for row in json.loads((folder / "verify.json").read_text())["rows"]}
    assert rows["SHA-256"] == "not claimed"
    assert rows["activation scales"] == "match"
    recipe, _ = resolve.resolve(request, console.NoBars(), may_fetch=False)
    (summary,) = build_view.blocks(folder, recipe, outcomes, "card", files=False)
    assert ("ranges", "by percentile:90; golden.json claims bytes of min-max alone") in summary[2]
    assert build(replace(request, jobs=3), ("calibrate",), ("calibrate",))[-1].outputs == outcomes[2].outputs


def test_min_max_is_the_default_and_the_only_golden_method() -> None:
    """Naming it changes no recipe. No other method shares its claims, not even percentile:100 with equal ranges."""
    request = Request(model="0.35_96", checkpoint="seeded", images="procedural")
    recipes = {
        method: resolve.resolve(replace(request, range_method=method), console.NoBars(), may_fetch=False)[0]
        for method in (None, "min-max", *METHODS)
    }
    assert recipes[None] == recipes["min-max"]
    assert golden.model_claims(recipes[None]) is not None
    assert len({recipe.model_id for recipe in recipes.values()}) == 1 + len(METHODS)
    for method in METHODS:
        assert golden.model_claims(recipes[method]) is golden.artifacts(recipes[method]) is None


def test_a_range_table_sets_the_method(small_build: Request) -> None:
    """A recipe takes the method from the table, and a method cannot be given as well."""
    build(replace(small_build, range_method="mse"), ("calibrate",))
    table = small_build.out / NAME / "calibration" / "ranges.json"
    request = replace(small_build, ranges=table, out=small_build.out / "again")
    recipe, machine = resolve.resolve(request, console.NoBars(), may_fetch=False)
    assert recipe.calibration.range_method == "mse"
    (stages,) = (runner.with_needs(("calibrate",), STAGES),)
    runner.build(stages, recipe, machine, (), on_wait=lambda: None)
    assert digest_file(request.out / NAME / "calibration" / "ranges.json") == digest_file(table)
    for method in ("mse", "min-max"):
        with pytest.raises(UsageError, match="found both"):
            resolve.resolve(replace(request, range_method=method), console.NoBars(), may_fetch=False)

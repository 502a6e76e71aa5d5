"""Range tables: merging, rounding, writing and reading."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calibration.ranges.range_table import Ranges, from_json, merge, round_mantissa, to_json
from recreate_model.support.arrays import Array
from recreate_model.support.errors import InputError

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**100), max_value=2.0**100)
SHARDS = st.lists(arrays(np.float32, (4, 2), elements=FLOATS), min_size=1, max_size=8)


@given(SHARDS, st.randoms(use_true_random=False))
def test_merging_does_not_depend_on_order_or_grouping(shards: list[Array], chance: random.Random) -> None:
    """Any shuffle, merged in any two groups, gives the same as all at once."""
    shuffled = chance.sample(shards, len(shards))
    cut = chance.randint(0, len(shards))
    groups = [merge(group) for group in (shuffled[:cut], shuffled[cut:]) if group]
    assert np.array_equal(merge(groups), merge(shards))


@given(arrays(np.float32, 20, elements=FLOATS), st.integers(1, 23))
def test_rounding_is_idempotent_and_monotone(values: Array, bits: int) -> None:
    """A second rounding changes nothing, and rounding never swaps two values."""
    rounded = round_mantissa(values, bits)
    assert np.array_equal(round_mantissa(rounded, bits), rounded)
    order = np.argsort(values, kind="stable")
    assert (np.diff(rounded[order]) >= 0).all()


@given(FLOATS.filter(lambda value: abs(value) > 2.0**-100))
def test_rounding_moves_a_value_by_half_a_step_at_most(value: float) -> None:
    """Ten bits of mantissa are a relative error of at most 2**-10."""
    assert abs(float(round_mantissa(np.float32(value), 10)) - value) <= abs(value) * 2.0**-10


def test_rounding_hides_the_noise_between_cpus() -> None:
    """A change of 45 ulp, the most seen between two CPUs, shows only next to a rounding boundary."""
    values = np.random.default_rng(0).uniform(0.1, 60, 10_000).astype(np.float32)
    moved = (values.view(np.int32) + 45).view(np.float32)
    changed = int((round_mantissa(values, 10) != round_mantissa(moved, 10)).sum())
    assert changed < 60  # 45 of 2**13 steps between boundaries: 55 expected


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=5))
def test_a_table_reads_back_as_it_was_written(spans: list[tuple[float, float]]) -> None:
    """Every float32 survives the decimal text."""
    table = Ranges(
        {f"a/{i}": span for i, span in enumerate(spans)},
        "mobilenet_v2_1.0_224",
        "ab",
        "squash",
        10,
        ("0" * 64, "1" * 64),
    )
    assert from_json(to_json(table), "it") == table


@pytest.mark.parametrize("method", ["min-max", "percentile:99.9", "mse", ""])
def test_a_table_says_how_its_ranges_were_chosen(method: str) -> None:
    """An empty method means unknown, as for a published file; a table without the field is min-max."""
    table = Ranges({"a": (0.0, 1.0)}, "m", "ab", "squash", 10, (), method)
    assert from_json(to_json(table), "it") == table
    document = json.loads(to_json(table))
    del document["range_method"]
    assert from_json(json.dumps(document), "it").range_method == "min-max"
    assert from_json(json.dumps({**document, "recovered_from": "ab"}), "it").range_method == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("activations"), "no 'activations'"),
        (lambda d: d.update(format="other/2"), "format 'other/2'"),
        (lambda d: d["activations"].append(d["activations"][0]), "an activation listed twice"),
        (lambda d: d["activations"][0].update(min="low"), "could not convert"),
        (lambda d: d["activations"][0].pop("max"), "no 'max'"),
        (lambda d: d.update(mantissa_bits=float("inf")), "cannot convert float infinity"),
        (lambda d: d.update(mantissa_bits=-1), "mantissa_bits -1"),
        (lambda d: d.update(mantissa_bits=25), "mantissa_bits 25"),
        (lambda d: d.update(pictures="a" * 64), "pictures that are not listed by SHA-256"),
        (lambda d: d.update(pictures=["a" * 63]), "pictures that are not listed by SHA-256"),
        (lambda d: d.update(pictures=[1]), "pictures that are not listed by SHA-256"),
        (lambda d: d.update(range_method="guess"), "unknown method 'guess'"),
    ],
)
def test_an_invalid_table_is_refused(change: object, message: str) -> None:
    """The message names the fault."""
    document = json.loads(to_json(Ranges({"a": (0.0, 1.0)}, "m", "ab", "squash", 10, ())))
    change(document)  # type: ignore[operator]
    with pytest.raises(InputError, match=f"expected it to be a range table.*{message}"):
        from_json(json.dumps(document), "it")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"x"', "[" * 100_000])
def test_other_json_and_no_json_are_refused(text: str) -> None:
    """Other JSON documents, incomplete JSON and an empty file are not range tables."""
    with pytest.raises(InputError, match="to be a range table"):
        from_json(text, "it")

"""Fuzzing the model reader: each damaged file is read, or refused in one line, within bounded time."""

from __future__ import annotations

import functools
import json
import random
import re
import struct
import time
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline.request.request import Request
from recreate_model.compare.diff import Verdict, compare, comparison_json
from recreate_model.support.errors import InputError
from recreate_model.tflite.model_view import read_model
from tests.edited_models import code, edited, insert, new_tensor
from tests.test_flatbuffer import model
from tests.tiny_models import tiny_model

_TIME_LIMIT = 5  # seconds of CPU time for one file; a valid one takes hundredths of a second
_CONSTANT = 256  # bytes; a longer buffer holds a constant, and none of its bytes is structure
_WORDS = [0, 1, 4, 8, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]

# How a file is damaged: the kind, a position in its structure (0 to 1), and the value for that kind.
_PLACE = st.floats(0, 1, exclude_max=True, width=32)
_MUTATION = st.one_of(
    st.tuples(st.just("flip"), _PLACE, st.integers(0, 7)),
    st.tuples(st.just("byte"), _PLACE, st.integers(0, 255)),
    st.tuples(st.just("word"), _PLACE, st.sampled_from(_WORDS)),
    st.tuples(st.just("word"), _PLACE, st.integers(0, 2**32 - 1)),
    st.tuples(st.just("near the end"), _PLACE, st.integers(-16, 16)),
    st.tuples(st.just("step"), _PLACE, st.integers(-64, 64)),
    st.tuples(st.just("copy"), _PLACE, _PLACE),
)
_MUTATIONS = st.lists(_MUTATION, min_size=1, max_size=6)
_CUT = st.one_of(st.none(), st.none(), st.none(), _PLACE)


@functools.cache
def structure(data: bytes) -> tuple[int, ...]:
    """Returns the positions of all bytes outside of long constants."""
    left = bytearray(len(data))
    for buffer in read_model(data).buffers:
        if len(buffer) > _CONSTANT:
            start = data.index(buffer)
            left[start : start + len(buffer)] = b"\1" * len(buffer)
    return tuple(match.start() for match in re.finditer(b"\0", left))


def damaged(data: bytes, mutations: list[tuple[str, float, float]], cut: float | None) -> bytes:
    """Returns the file after the mutations, truncated if `cut` is given."""
    places = structure(data)
    found = bytearray(data)
    for kind, place, value in mutations:
        position = places[int(place * len(places))]
        if kind == "flip":
            found[position] ^= 1 << int(value)
        elif kind == "byte":
            found[position] = int(value)
        else:
            position = min(position & ~3, len(found) - 4)
            (old,) = struct.unpack_from("<I", found, position)
            other = places[int(value * len(places))] & ~3 if kind == "copy" else 0
            new = {
                "word": value,
                "near the end": len(data) + value - position,
                "step": old + value,
                "copy": struct.unpack_from("<I", found, min(other, len(found) - 4))[0],
            }[kind]
            struct.pack_into("<I", found, position, int(new) % 2**32)
    return bytes(found if cut is None else found[: int(cut * len(found))])


def assert_bounded(data: bytes, other: bytes | None) -> bool:
    """Reads the file, compares it with `other`, and returns whether it was read. Only an InputError may be raised."""
    start = time.process_time()
    refusal = ""
    try:
        read_model(data)
        if other is not None:
            json.dumps(comparison_json(compare(other, data)), allow_nan=False)
    except InputError as error:
        refusal = str(error)
    assert time.process_time() - start < _TIME_LIMIT
    assert "\n" not in refusal
    return not refusal


def check_damaged_files(data: bytes, cases: int, comparing: bool) -> None:
    """Reads `cases` damaged versions of a file."""
    accepted = []

    @settings(
        max_examples=cases,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
        database=None,
        print_blob=False,
    )
    @given(_MUTATIONS, _CUT)
    def check_one(mutations: list[tuple[str, float, float]], cut: float | None) -> None:
        accepted.append(assert_bounded(damaged(data, mutations, cut), data if comparing else None))

    check_one()
    assert len(accepted) >= cases
    # If all files were refused, or none, the code behind the first check would not be tested.
    assert 0.02 < sum(accepted) / len(accepted) < 0.98


@pytest.mark.parametrize("kind", ["int8", "float"])
def test_a_few_hundred_damaged_files_are_read_or_refused(kind: str) -> None:
    """A short run on tiny models."""
    check_damaged_files(tiny_model(kind), 300, comparing=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "cases", "comparing"),
    [
        ("int8", 8000, True),
        ("float", 4000, True),
        ("gather", 2000, True),
        ("vela", 3000, True),
        ("small", 4000, False),
        ("small", 1000, True),
    ],
)
def test_twenty_thousand_damaged_files_are_read_or_refused(
    kind: str, cases: int, comparing: bool, finished_build: Request
) -> None:
    """Tiny models, the small network's INT8 model, and an Ethos-U model with its custom operator."""
    check_damaged_files(model(kind, finished_build), cases, comparing)


def _operators(seed: int, count: int) -> bytes:
    """Returns a model with many operators of two kinds, in random order."""

    def change(tree: Any) -> None:
        graph, kinds = tree.subgraphs[0], [code(tree, "RELU"), code(tree, "TANH")]
        ends = [int(graph.inputs[0])], [int(graph.outputs[0])]
        chosen = random.Random(seed)
        graph.operators = []
        for _ in range(count):
            insert(tree, 0, chosen.choice(kinds), *ends)

    return edited(tiny_model("int8"), change)


@pytest.mark.parametrize("count", [450, 5000])
def test_long_lists_of_operators_are_compared_in_bounded_time(count: int) -> None:
    """The cost of an alignment is the product of the two lengths, so long lists are not aligned."""
    assert assert_bounded(_operators(1, count), _operators(2, count))


@pytest.mark.parametrize(("tensors", "sharing", "size"), [(15, 15, 1 << 20), (1000, 1, 1 << 12)])
def test_constants_with_many_counterparts_are_compared_in_bounded_time(tensors: int, sharing: int, size: int) -> None:
    """Each constant of one model is paired with each constant of the other: the cost is size times number of pairs."""

    def crowded(value: int, one_after_the_other: bool) -> bytes:
        def change(tree: Any) -> None:
            graph = tree.subgraphs[0]
            first = len(graph.tensors)
            for number in range(tensors):
                if number % sharing == 0:
                    tree.buffers.append(schema.BufferT())
                    tree.buffers[-1].data = np.full(size, value, np.int8)
                tensor = graph.tensors[new_tensor(tree, graph.tensors[0], schema.TensorType.INT8, b"")]
                tensor.shape, tensor.buffer = [size], len(tree.buffers) - 1
            all_of_them = np.arange(first, first + tensors)
            arrange = np.repeat if one_after_the_other else np.tile
            graph.operators[0].inputs = [*graph.operators[0].inputs, *arrange(all_of_them, min(tensors, 40))]

        return edited(tiny_model("int8"), change)

    one, two = crowded(1, one_after_the_other=True), crowded(2, one_after_the_other=False)
    assert assert_bounded(one, two)
    assert compare(one, two).verdict is Verdict.DIFFERENT

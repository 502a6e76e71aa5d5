"""Pictures -> activation ranges, at the speed of the network.

The float model gives the range of every activation itself: each is reduced to its minimum and maximum right after it is
computed, while it is in the processor's cache, and only these two numbers leave the runtime. (TensorFlow's calibrator
reads the input of a residual addition after the sum has overwritten it, and so reports ranges for ten tensors that are
too wide.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from calibration.parallel.workers import Workers
from calibration.pictures.inputs import Inputs, chunks
from calibration.ranges import range_table
from recreate_model.quantize import convert
from recreate_model.recipe import Picture
from recreate_model.support.arrays import Array
from recreate_model.tflite.interpret import Runner

Part = TypeVar("Part", bound="Measured")


@dataclass(frozen=True, eq=False)
class Measured:
    """What some pictures, or all, gave.

    Attributes:
        spans: minimum and maximum as measured, float32 (activations, 2), in the order of `convert.activations`.
        pictures: they came from, with their digests.
    """

    spans: Array
    pictures: tuple[Picture, ...]


def measure(
    float_model: bytes, inputs: Inputs, pictures: Sequence[Picture], workers: Workers, progress: Callable[[int], None]
) -> Measured:
    """Runs the pictures through the network and keeps each activation's minimum and maximum.

    Args:
        progress: called with the number of pictures just finished.

    Raises:
        InputError: a picture that cannot be read, or that changed since it was chosen.
    """
    model = convert.with_ranges_as_outputs(float_model)
    return joined(list(run_chunks(model, inputs, pictures, workers, progress, _measure_chunk)))


def joined(parts: Sequence[Measured]) -> Measured:
    """What all of these pictures gave."""
    return Measured(
        range_table.merge([part.spans for part in parts]), tuple(p for part in parts for p in part.pictures)
    )


def run_chunks(
    model: bytes,
    inputs: Inputs,
    pictures: Sequence[Picture],
    workers: Workers,
    progress: Callable[[int], None],
    task: Callable[[tuple[Runner, Inputs], Sequence[Picture]], Part],
) -> Iterator[Part]:
    """What `task` gives, in the workers, for a runner of the model and each chunk of the pictures, in order."""
    setup = functools.partial(_setup, model, inputs)
    for part in workers.run(setup, task, chunks(pictures)):
        yield part
        progress(len(part.pictures))


def each(inputs: Inputs, pictures: Sequence[Picture], spans_of: Callable[[Array], Array]) -> Measured:
    """The ranges that `spans_of` finds for each input; one at a time, as inputs are large."""
    loaded = map(inputs.load, pictures)
    return joined([Measured(spans_of(value), (picture,)) for value, picture in loaded])


def _setup(model: bytes, inputs: Inputs) -> tuple[Runner, Inputs]:
    return Runner(model, "xnnpack"), inputs


def _measure_chunk(state: tuple[Runner, Inputs], pictures: Sequence[Picture]) -> Measured:
    runner, inputs = state
    return each(inputs, pictures, runner.run_min_max)

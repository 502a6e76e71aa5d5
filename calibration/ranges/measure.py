"""Measures the minimum and maximum of every activation, at almost the speed of inference.

The float model computes the ranges itself. It reduces each activation to its minimum and maximum right after computing
it, while it is in the processor's cache, and returns only these two values. (TensorFlow's calibrator reads the input of
a residual addition after the sum has overwritten it, so the ranges it reports for ten tensors are too wide.)
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
    """The ranges measured on some pictures.

    Attributes:
        spans: minimum and maximum in real units, float32 (activations, 2), in the order of `convert.activations`.
        pictures: the pictures, with their digests.
    """

    spans: Array
    pictures: tuple[Picture, ...]


def measure(
    float_model: bytes, inputs: Inputs, pictures: Sequence[Picture], workers: Workers, progress: Callable[[int], None]
) -> Measured:
    """Runs the pictures through the network and measures the minimum and maximum of every activation.

    Args:
        progress: called with the number of pictures just finished.

    Raises:
        InputError: a picture cannot be read, or changed since it was selected.
    """
    model = convert.with_ranges_as_outputs(float_model)
    return merge_measured(list(run_chunks(model, inputs, pictures, workers, progress, _measure_chunk)))


def merge_measured(parts: Sequence[Measured]) -> Measured:
    """The ranges of all these pictures together."""
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
    """Yields the result of `task` for each chunk of the pictures, in order.

    Args:
        task: called in a worker with a runner of the model, the inputs, and the pictures of one chunk.
        progress: called with the number of pictures just finished.
    """
    setup = functools.partial(_setup, model, inputs)
    for part in workers.run(setup, task, chunks(pictures)):
        yield part
        progress(len(part.pictures))


def spans_of_pictures(inputs: Inputs, pictures: Sequence[Picture], spans_of: Callable[[Array], Array]) -> Measured:
    """The ranges of all pictures together.

    Args:
        spans_of: returns the ranges for one input, float32 (activations, 2).
    """
    loaded = map(inputs.load, pictures)  # one at a time, as inputs are large
    return merge_measured([Measured(spans_of(value), (picture,)) for value, picture in loaded])


def _setup(model: bytes, inputs: Inputs) -> tuple[Runner, Inputs]:
    return Runner(model, "xnnpack"), inputs


def _measure_chunk(state: tuple[Runner, Inputs], pictures: Sequence[Picture]) -> Measured:
    runner, inputs = state
    return spans_of_pictures(inputs, pictures, runner.run_min_max)

"""Pictures -> activation ranges, at the speed of the network.

The float model gives the range of every activation itself: each is reduced to its minimum and maximum right after it is
computed, while it is in the processor's cache, and only these two numbers leave the runtime. (TensorFlow's calibrator
reads the input of a residual addition after the sum has overwritten it, and so reports ranges for ten tensors that are
too wide.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from calibration import ranges
from calibration.inputs import Inputs, chunks
from calibration.workers import Workers
from recreate_model import convert
from recreate_model.interpret import Runner
from recreate_model.network import Array
from recreate_model.recipe import Picture


@dataclass(frozen=True, eq=False)
class Measured:
    """Ranges as measured, float32 (activations, 2), in the order of `convert.activations`, and what they came from."""

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
    shards, done = [], []
    setup = functools.partial(_setup, convert.with_ranges_as_outputs(float_model), inputs)
    for shard, checked in workers.run(setup, _measure_chunk, chunks(pictures)):
        shards.append(shard)
        done.extend(checked)
        progress(len(checked))
    return Measured(ranges.merge(shards), tuple(done))


def _setup(model: bytes, inputs: Inputs) -> tuple[Runner, Inputs]:
    return Runner(model, "xnnpack"), inputs


def _measure_chunk(state: tuple[Runner, Inputs], pictures: Sequence[Picture]) -> tuple[Array, list[Picture]]:
    runner, inputs = state
    loaded = map(inputs.load, pictures)  # one at a time: inputs are large
    shards, done = zip(*((runner.run_min_max(value), picture) for value, picture in loaded), strict=True)
    return ranges.merge(shards), list(done)

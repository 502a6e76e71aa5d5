"""Pictures -> activation ranges, at the speed of the network.

The float model runs with every activation declared an output, so each keeps its own memory and its true range can be
read. (TensorFlow's calibrator reads the input of a residual addition after the sum has overwritten it, and so reports
ranges for ten tensors that are too wide.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from calibration import preprocess, ranges, workers
from calibration.sources import Source
from recreate_model import convert
from recreate_model.errors import InputError
from recreate_model.interpret import Runner
from recreate_model.network import Array
from recreate_model.recipe import Picture, Preprocess

# Pictures to a task: enough to make the messages between processes cheap, few enough to keep progress moving.
CHUNK = 10


@dataclass(frozen=True, eq=False)
class Measured:
    """Ranges as measured, float32 (activations, 2), in the order of `convert.activations`, and what they came from."""

    spans: Array
    pictures: tuple[Picture, ...]


def measure(
    float_model: bytes,
    source: Source,
    pictures: Sequence[Picture],
    crop: Preprocess,
    resolution: int,
    jobs: int,
    progress: Callable[[int], None],
) -> Measured:
    """Runs the pictures through the network and keeps each activation's minimum and maximum.

    Args:
        progress: called with the number of pictures just finished.

    Raises:
        InputError: a picture that cannot be read, or that changed since it was chosen.
    """
    with TemporaryDirectory(prefix="recreate_model-") as scratch:
        model_file = Path(scratch) / "all_activations.tflite"
        model_file.write_bytes(convert.with_all_activations_as_outputs(float_model))
        setup = functools.partial(_setup, model_file, source, crop, resolution)
        shards, done = [], []
        for shard, digests in workers.run(setup, _measure_chunk, chunks(pictures), jobs):
            shards.append(shard)
            done.extend(digests)
            progress(len(digests))
    return Measured(ranges.merge(shards), tuple(done))


def chunks(pictures: Sequence[Picture]) -> Iterator[Sequence[Picture]]:
    """The pictures in tasks of `CHUNK`."""
    return (pictures[start : start + CHUNK] for start in range(0, len(pictures), CHUNK))


@dataclass(frozen=True, eq=False)
class _State:
    runner: Runner
    source: Source
    crop: Preprocess
    resolution: int


def _setup(model_file: Path, source: Source, crop: Preprocess, resolution: int) -> _State:
    return _State(Runner(model_file.read_bytes(), "xnnpack"), source, crop, resolution)


def _measure_chunk(state: _State, pictures: Sequence[Picture]) -> tuple[Array, list[Picture]]:
    shards, done = [], []
    for picture in pictures:
        pixels, checked = read_checked(state.source, picture)
        shards.append(state.runner.run_min_max(preprocess.normalise(pixels, state.crop, state.resolution)))
        done.append(checked)
    return ranges.merge(shards), done


def read_checked(source: Source, picture: Picture) -> tuple[Array, Picture]:
    """Pixels of a picture, and the picture with its digest.

    Raises:
        InputError: unreadable, or not the content that was chosen.
    """
    pixels, digest = source.read(picture.id)
    if picture.sha256 not in ("", digest):
        raise InputError(
            expected=f"{picture.id} to have SHA-256 {picture.sha256}",
            found=f"{digest}: the picture changed while it was in use",
            next_step="run again",
        )
    return pixels, Picture(picture.id, digest, picture.label)

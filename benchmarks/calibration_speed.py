"""Measures the time from JPEG to ranges: this program, TensorFlow's calibrator, AI Edge Quantizer, and a lower limit.

    .venv/bin/python -m pip install -e '.[benchmarks]'      # four packages; no locked version changes
    python benchmarks/calibration_speed.py --checkpoint ARCHIVE --images FOLDER --calib 500

All run on the same pictures and the same float model, in turns, each in a new process. This program and the limit
(decoding, preprocessing and the network, without measuring ranges) are timed from the moment that every worker has
finished its first pictures until the last result. The other two run in one process, as users run them; this program's
code decodes their inputs first in that process, and the times are added. Imports are not timed, and neither is AI Edge
Quantizer's reading of the model. CPU time is the sum over all processes and threads; it depends little on other load.
The fastest of several rounds counts, for all methods alike, as other load can only add time.

At the end it compares the ranges of this program, rounded to 10 bits, with those of TensorFlow's calibrator.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from calibration.parallel.workers import Workers
from calibration.pictures.folder import FolderSource
from calibration.pictures.inputs import CHUNK, Inputs, chunks
from calibration.pictures.sources import ProceduralSource, Source
from calibration.ranges.measure import measure
from calibration.selection import select, select_procedural
from recreate_model.floats.checkpoint import read_archive
from recreate_model.network import architecture, seeded
from recreate_model.network.spec import Model
from recreate_model.quantize import convert
from recreate_model.recipe import Picture, Preprocess
from recreate_model.support.arrays import Array
from recreate_model.support.capture import captured
from recreate_model.tflite.interpret import Runner
from tests import tensorflow_ranges

_BARRIER = "barrier/"  # prefix of a picture's id: wait for the other workers
_THREADS_OF_AI_EDGE = 16  # the default of its `calibrate`
_TENSORFLOW, _AI_EDGE = "TensorFlow's calibrator", "AI Edge Quantizer, as is"


@dataclass(frozen=True)
class Job:
    """The common task of all methods."""

    model_file: Path
    source: Source
    resolution: int
    pictures: tuple[Picture, ...]

    def inputs(self, source: Source | None = None) -> Inputs:
        """The inputs of the network, from this source or another one."""
        return Inputs(source or self.source, Preprocess(), self.resolution)


@dataclass(frozen=True, eq=False)
class Timing:
    """Seconds for all pictures, wall-clock and CPU; ranges, if the method gives them for all activations."""

    wall: float
    cpu: float
    spans: Array | None = None


@dataclass(frozen=True)
class Barrier:
    """A source that makes all workers wait for each other, at the end of a warm-up of one chunk for each worker."""

    source: Source
    folder: Path
    jobs: int
    kind: str = "folder"

    def read(self, picture_id: str) -> tuple[Array, str]:
        if picture_id.startswith(_BARRIER):
            _, number, picture_id = picture_id.split("/", 2)
            (self.folder / number).touch()
            while len(os.listdir(self.folder)) < self.jobs:
                time.sleep(0.001)
        return self.source.read(picture_id)

    def warm_up(self, pictures: Sequence[Picture]) -> list[Picture]:
        """One chunk for each worker, from the measured pictures, so the ranges do not change."""
        ids = [picture.id for picture in itertools.islice(itertools.cycle(pictures), CHUNK)]
        return [Picture(name) for number in range(self.jobs) for name in (*ids[:-1], f"{_BARRIER}{number}/{ids[-1]}")]


class Stopwatch:
    """A progress callback that times everything after the first `skip` pictures."""

    def __init__(self, skip: int) -> None:
        self._left = skip
        self._marks: list[tuple[float, float]] = []

    def __call__(self, count: int) -> None:
        self._left -= count
        if self._left <= 0:
            self._marks.append((time.perf_counter(), _cpu_of_all()))

    def took(self, spans: Array | None = None) -> Timing:
        """The time from the last skipped picture to the last picture."""
        (wall, cpu), (wall_end, cpu_end) = self._marks[0], self._marks[-1]
        return Timing(wall_end - wall, cpu_end - cpu, spans)


def _cpu_of_all() -> float:
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(spent.user + spent.system for spent in times)


def pipeline(jobs: int, job: Job) -> Timing:
    """`calibration.ranges.measure.measure`, as the pipeline calls it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Barrier(job.source, Path(folder), jobs)
        warm_up = source.warm_up(job.pictures)
        watch = Stopwatch(len(warm_up))
        found = measure(
            job.model_file.read_bytes(), job.inputs(source), [*warm_up, *job.pictures], Workers(jobs), watch
        )
    return watch.took(found.spans)


def limit(jobs: int, job: Job) -> Timing:
    """The same work without ranges: preprocessing, and the converted network without extra outputs."""
    with tempfile.TemporaryDirectory() as folder:
        source = Barrier(job.source, Path(folder), jobs)
        warm_up = source.warm_up(job.pictures)
        watch = Stopwatch(len(warm_up))
        setup = functools.partial(_bare_setup, job.model_file, job.inputs(source))
        for count in Workers(jobs).run(setup, _bare_chunk, chunks([*warm_up, *job.pictures])):
            watch(count)
    return watch.took()


def _bare_setup(model_file: Path, inputs: Inputs) -> tuple[Runner, Inputs]:
    return Runner(model_file.read_bytes(), "xnnpack"), inputs


def _bare_chunk(state: tuple[Runner, Inputs], pictures: Sequence[Picture]) -> int:
    runner, inputs = state
    for picture in pictures:
        runner.run(inputs.load(picture)[0])
    return len(pictures)


def tensorflow(job: Job) -> Timing:
    """The calibrator that `TFLiteConverter` runs."""
    with captured():
        from tensorflow.lite.python.optimize import calibrator  # noqa: F401, so that the import is not timed

        model = job.model_file.read_bytes()
        wall, cpu = time.perf_counter(), time.process_time()
        spans = tensorflow_ranges.calibrated(model, _loaded(job))
        return Timing(time.perf_counter() - wall, time.process_time() - cpu, spans)


def ai_edge_quantizer(mode: str, threads: int, job: Job) -> Timing:
    """`Quantizer.calibrate` with its recipe for int8 weights and activations."""
    from ai_edge_quantizer import quantizer, recipe
    from ai_edge_quantizer.calibrator import CalibrationMode

    with captured():
        calibrating = quantizer.Quantizer(_with_signature(job.model_file.read_bytes()), recipe.static_wi8_ai8())
        wall, cpu = time.perf_counter(), time.process_time()
        # A list, because `calibrate` iterates over the data twice.
        data = {"serving_default": [{"input": value} for value in _loaded(job)]}
        calibrating.calibrate(data, num_threads=threads, mode=CalibrationMode[mode])
        return Timing(time.perf_counter() - wall, time.process_time() - cpu)


def _loaded(job: Job) -> list[Array]:
    inputs = job.inputs()
    return [inputs.load(picture)[0] for picture in job.pictures]


def _with_signature(float_model: bytes) -> bytes:
    """The model with a signature, which AI Edge Quantizer needs to find the input."""
    from ai_edge_litert import schema_py_generated as schema

    def named(name: str, index: int) -> schema.TensorMapT:
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, int(index)
        return entry

    model = convert.parse(float_model)
    graph = model.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.inputs, signature.outputs = [named("input", graph.inputs[0])], [named("output", graph.outputs[0])]
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    model.signatureDefs = [signature]
    return convert.pack(model)


def _in_new_process(method: Callable[[Job], Timing], job: Job) -> Timing:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(method, job).result()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="seeded", metavar="ARCHIVE")
    parser.add_argument("--images", default="procedural", metavar="FOLDER")
    parser.add_argument("--calib", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="1.0_224")
    arguments = parser.parse_args()
    if importlib.util.find_spec("ai_edge_quantizer") is None:
        raise SystemExit(
            "error: expected ai-edge-quantizer, to compare with; found none; done: nothing was measured; "
            "next: pip install -e '.[benchmarks]'"
        )
    jobs = arguments.jobs
    profiler, default = "CALIBRATION_PROFILER_BASED", "CALIBRATION_PRESERVE_ALL_TENSORS"
    methods: dict[str, Callable[[Job], Timing]] = {
        f"pipeline, {jobs} processes": functools.partial(pipeline, jobs),
        "pipeline, 1 process": functools.partial(pipeline, 1),
        f"limit, {jobs} processes": functools.partial(limit, jobs),
        "limit, 1 process": functools.partial(limit, 1),
        _TENSORFLOW: tensorflow,
        _AI_EDGE: functools.partial(ai_edge_quantizer, default, _THREADS_OF_AI_EDGE),
        f"  with {jobs} threads": functools.partial(ai_edge_quantizer, default, jobs),
        f"  by profiler, {jobs} threads": functools.partial(ai_edge_quantizer, profiler, jobs),
        "  by profiler, 1 thread": functools.partial(ai_edge_quantizer, profiler, 1),
    }
    runs: dict[str, list[Timing]] = {name: [] for name in methods}
    with tempfile.TemporaryDirectory() as scratch:
        job = _job(Model.parse(arguments.model), arguments, Path(scratch))
        float_model = job.model_file.read_bytes()
        for _ in range(arguments.repeats):
            print(f"load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
            for name, method in methods.items():
                timing = _in_new_process(method, job)
                runs[name].append(timing)
                print(f"  {name:30} {timing.wall:7.2f} s, CPU {timing.cpu:7.2f} s", file=sys.stderr, flush=True)
    _print_times(runs, len(job.pictures), jobs)
    first = {name: rounds[0].spans for name, rounds in runs.items()}
    spans, tensorflow_spans = first[f"pipeline, {jobs} processes"], first[_TENSORFLOW]
    assert spans is not None
    assert tensorflow_spans is not None
    _print_agreement(tensorflow_ranges.compare(float_model, spans, tensorflow_spans))


def _job(model: Model, arguments: argparse.Namespace, scratch: Path) -> Job:
    if arguments.checkpoint == "seeded":
        weights = seeded.seeded_weights(model)
    else:
        weights = read_archive(Path(arguments.checkpoint), model).values
    model_file = scratch / "float.tflite"
    model_file.write_bytes(convert.convert_float(architecture.frozen_graph(model, weights)))
    if arguments.images == "procedural":
        procedural = ProceduralSource()
        return Job(
            model_file, procedural, model.resolution, select_procedural(procedural, arguments.calib, 0).calibration
        )
    source = FolderSource(Path(arguments.images))
    return Job(model_file, source, model.resolution, select(source, arguments.calib, 0).calibration)


def _print_times(runs: dict[str, list[Timing]], pictures: int, jobs: int) -> None:
    wall = {name: min(timing.wall for timing in rounds) for name, rounds in runs.items()}
    cpu = {name: min(timing.cpu for timing in rounds) for name, rounds in runs.items()}
    many, one = f"pipeline, {jobs} processes", "pipeline, 1 process"
    print(f"{pictures} pictures, the fastest of {len(runs[one])} rounds; the pipeline used ", end="")
    print(f"{max(timing.cpu / timing.wall for timing in runs[many]):.2f} of {jobs} processors")
    print(f"{'':30}{'ms a picture':>21}{'pictures':>11}{'wall, times pipeline':>26}{'CPU, times':>12}")
    print(f"{'':30}{'wall':>7}{'slowest':>8}{'CPU':>6}{'a second':>11}", end="")
    print(f"{f'{jobs} processes':>15}{'1 process':>11}{'1 process':>12}")
    for name, rounds in runs.items():
        print(
            f"{name:30}{_ms(wall[name], pictures)}{_ms(max(timing.wall for timing in rounds), pictures):>8}"
            f"{_ms(cpu[name], pictures):>6}{pictures / wall[name]:11.0f}{wall[name] / wall[many]:15.2f}"
            f"{wall[name] / wall[one]:11.2f}{cpu[name] / cpu[one]:12.2f}"
        )
    seconds = wall[many] / pictures * 500
    if_idle = cpu[many] / jobs / pictures * 500
    _target(f"500 pictures in under 3 s: {seconds:.2f} s ({if_idle:.2f} s by CPU time)", seconds < 3)
    for name, times in ((_TENSORFLOW, 10), (_AI_EDGE, 5)):
        found = wall[name] / wall[many]
        ratio = f"{found:.1f} times ({cpu[name] / cpu[many]:.1f} by CPU time)"
        _target(f"{times} times as fast as {name}: {ratio}", found >= times)


def _ms(seconds: float, pictures: int) -> str:
    return f"{seconds / pictures * 1e3:7.2f}"


def _target(what: str, met: bool) -> None:
    print(f"target, {what}: {'met' if met else 'NOT met'}")


def _print_agreement(found: tensorflow_ranges.Agreement) -> None:
    print(f"ranges: {found.values} values, {found.same_bits} bit-exact with TensorFlow's calibrator before rounding")
    print(f"  {found.widened} of 10 residual inputs are wider there, up to {found.widest:.2f} times")
    print(f"  rounded, {len(found.different)} differ; residual inputs are merged with their sums as TensorFlow does")
    print(f"  {len(found.near)} at a rounding boundary, of which {len(found.near_and_different)} differ")
    for line in (*found.different, *found.near):
        print(f"    {line}")


if __name__ == "__main__":
    main()

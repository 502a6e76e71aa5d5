"""Time from JPEG to ranges: ours, TensorFlow's calibrator, AI Edge Quantizer's, and what no calibrator can beat.

    .venv/bin/python -m pip install -e '.[benchmarks]'      # four packages; no locked version changes
    python benchmarks/calibration_speed.py --checkpoint ARCHIVE --images FOLDER --calib 500

All run on the same pictures and the same float model, in turns, each in a fresh process. Ours and the limit (decoding,
preprocessing and the bare network, nothing measured) are timed from the moment when every worker has measured its first
pictures until the last result is in. The other two run in one process, as their users run them; their inputs are
decoded first, by our code in that process, and both times are added. Not timed are imports, and of AI Edge Quantizer
the reading of the model. CPU time is that of all processes and threads: what a method costs, however busy the machine.
Of several rounds the fastest counts, of each alike: other load only ever adds.

At the end our ranges, rounded to 10 bits, are held against those of TensorFlow's calibrator.
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

_MEET = "meet/"  # in front of a picture's id: wait for the other workers
_THREADS_OF_AI_EDGE = 16  # what its `calibrate` takes unless told
_TENSORFLOW, _AI_EDGE = "TensorFlow's calibrator", "AI Edge Quantizer, as is"


@dataclass(frozen=True)
class Job:
    """What everyone measures."""

    model_file: Path
    source: Source
    resolution: int
    pictures: tuple[Picture, ...]

    def inputs(self, source: Source | None = None) -> Inputs:
        """These pictures as inputs, or those of a source around theirs."""
        return Inputs(source or self.source, Preprocess(), self.resolution)


@dataclass(frozen=True, eq=False)
class Took:
    """Seconds for all pictures, wall-clock and CPU; ranges where they are the true ones or TensorFlow's."""

    wall: float
    cpu: float
    spans: Array | None = None


@dataclass(frozen=True)
class Meeting:
    """A source that lets workers go on when all are up: each gets one chunk of the warm-up, which ends with a wait."""

    source: Source
    folder: Path
    jobs: int
    kind: str = "folder"

    def read(self, picture_id: str) -> tuple[Array, str]:
        if picture_id.startswith(_MEET):
            _, number, picture_id = picture_id.split("/", 2)
            (self.folder / number).touch()
            while len(os.listdir(self.folder)) < self.jobs:
                time.sleep(0.001)
        return self.source.read(picture_id)

    def warm_up(self, pictures: Sequence[Picture]) -> list[Picture]:
        """A chunk for each worker; the pictures are some of those that are measured, so the ranges are the same."""
        ids = [picture.id for picture in itertools.islice(itertools.cycle(pictures), CHUNK)]
        return [Picture(name) for number in range(self.jobs) for name in (*ids[:-1], f"{_MEET}{number}/{ids[-1]}")]


class Stopwatch:
    """Times what comes after the first `skip` pictures, as `progress` reports them."""

    def __init__(self, skip: int) -> None:
        self._left = skip
        self._marks: list[tuple[float, float]] = []

    def __call__(self, count: int) -> None:
        self._left -= count
        if self._left <= 0:
            self._marks.append((time.perf_counter(), _cpu_of_all()))

    def took(self, spans: Array | None = None) -> Took:
        """From the last picture skipped to the last picture."""
        (wall, cpu), (wall_end, cpu_end) = self._marks[0], self._marks[-1]
        return Took(wall_end - wall, cpu_end - cpu, spans)


def _cpu_of_all() -> float:
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def ours(jobs: int, job: Job) -> Took:
    """`calibration.ranges.measure.measure`, as the pipeline calls it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Meeting(job.source, Path(folder), jobs)
        warm_up = source.warm_up(job.pictures)
        watch = Stopwatch(len(warm_up))
        found = measure(
            job.model_file.read_bytes(), job.inputs(source), [*warm_up, *job.pictures], Workers(jobs), watch
        )
    return watch.took(found.spans)


def limit(jobs: int, job: Job) -> Took:
    """The same, without ranges: pictures become inputs, and the network as it was converted runs on them."""
    with tempfile.TemporaryDirectory() as folder:
        source = Meeting(job.source, Path(folder), jobs)
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


def tensorflow(job: Job) -> Took:
    """The calibrator that `TFLiteConverter` runs."""
    with captured():
        from tensorflow.lite.python.optimize import calibrator  # noqa: F401, so that the import is not timed

        model = job.model_file.read_bytes()
        wall, cpu = time.perf_counter(), time.process_time()
        spans = tensorflow_ranges.calibrated(model, _loaded(job))
        return Took(time.perf_counter() - wall, time.process_time() - cpu, spans)


def ai_edge_quantizer(mode: str, threads: int, job: Job) -> Took:
    """`Quantizer.calibrate` with its recipe for int8 weights and activations."""
    from ai_edge_quantizer import quantizer, recipe
    from ai_edge_quantizer.calibrator import CalibrationMode

    with captured():
        asked = quantizer.Quantizer(_with_signature(job.model_file.read_bytes()), recipe.static_wi8_ai8())
        wall, cpu = time.perf_counter(), time.process_time()
        # A list, since `calibrate` goes through the data twice, to count them first.
        data = {"serving_default": [{"input": value} for value in _loaded(job)]}
        asked.calibrate(data, num_threads=threads, mode=CalibrationMode[mode])
        return Took(time.perf_counter() - wall, time.process_time() - cpu)


def _loaded(job: Job) -> list[Array]:
    inputs = job.inputs()
    return [inputs.load(picture)[0] for picture in job.pictures]


def _with_signature(float_model: bytes) -> bytes:
    """The float model has no signature, by which alone AI Edge Quantizer finds the input."""
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


def _alone(contender: Callable[[Job], Took], job: Job) -> Took:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(contender, job).result()


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
            "error: expected ai-edge-quantizer, to compare with; found none; done: nothing; "
            "next: pip install -e '.[benchmarks]'"
        )
    jobs = arguments.jobs
    profiler, default = "CALIBRATION_PROFILER_BASED", "CALIBRATION_PRESERVE_ALL_TENSORS"
    contenders: dict[str, Callable[[Job], Took]] = {
        f"ours, {jobs} processes": functools.partial(ours, jobs),
        "ours, 1 process": functools.partial(ours, 1),
        f"limit, {jobs} processes": functools.partial(limit, jobs),
        "limit, 1 process": functools.partial(limit, 1),
        _TENSORFLOW: tensorflow,
        _AI_EDGE: functools.partial(ai_edge_quantizer, default, _THREADS_OF_AI_EDGE),
        f"  with {jobs} threads": functools.partial(ai_edge_quantizer, default, jobs),
        f"  by profiler, {jobs} threads": functools.partial(ai_edge_quantizer, profiler, jobs),
        "  by profiler, 1 thread": functools.partial(ai_edge_quantizer, profiler, 1),
    }
    runs: dict[str, list[Took]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as scratch:
        job = _job(Model.parse(arguments.model), arguments, Path(scratch))
        float_model = job.model_file.read_bytes()
        for _ in range(arguments.repeats):
            print(f"load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
            for name, contender in contenders.items():
                runs[name].append(_alone(contender, job))
                took = runs[name][-1]
                print(f"  {name:30} {took.wall:7.2f} s, CPU {took.cpu:7.2f} s", file=sys.stderr, flush=True)
    _print_times(runs, len(job.pictures), jobs)
    first = {name: tooks[0].spans for name, tooks in runs.items()}
    spans, theirs = first[f"ours, {jobs} processes"], first[_TENSORFLOW]
    assert spans is not None
    assert theirs is not None
    _print_agreement(tensorflow_ranges.compare(float_model, spans, theirs))


def _job(model: Model, arguments: argparse.Namespace, scratch: Path) -> Job:
    if arguments.checkpoint == "seeded":
        weights = seeded.seeded_weights(model)
    else:
        weights = read_archive(Path(arguments.checkpoint), model).values
    model_file = scratch / "float.tflite"
    model_file.write_bytes(convert.convert_float(architecture.frozen_graph(model, weights)))
    if arguments.images == "procedural":
        made = ProceduralSource()
        return Job(model_file, made, model.resolution, select_procedural(made, arguments.calib, 0).calibration)
    source = FolderSource(Path(arguments.images))
    return Job(model_file, source, model.resolution, select(source, arguments.calib, 0).calibration)


def _print_times(runs: dict[str, list[Took]], pictures: int, jobs: int) -> None:
    wall = {name: min(took.wall for took in rounds) for name, rounds in runs.items()}
    cpu = {name: min(took.cpu for took in rounds) for name, rounds in runs.items()}
    many, one = f"ours, {jobs} processes", "ours, 1 process"
    print(f"{pictures} pictures, the fastest of {len(runs[one])}; ours had ", end="")
    print(f"{max(took.cpu / took.wall for took in runs[many]):.2f} processors of the {jobs} it asked for")
    print(f"{'':30}{'ms a picture':>21}{'pictures':>11}{'wall, times ours with':>26}{'CPU, times':>12}")
    print(f"{'':30}{'wall':>7}{'slowest':>8}{'CPU':>6}{'a second':>11}", end="")
    print(f"{f'{jobs} processes':>15}{'1 process':>11}{'ours':>12}")
    for name, rounds in runs.items():
        print(
            f"{name:30}{_ms(wall[name], pictures)}{_ms(max(took.wall for took in rounds), pictures):>8}"
            f"{_ms(cpu[name], pictures):>6}{pictures / wall[name]:11.0f}{wall[name] / wall[many]:15.2f}"
            f"{wall[name] / wall[one]:11.2f}{cpu[name] / cpu[one]:12.2f}"
        )
    seconds = wall[many] / pictures * 500
    if_idle = cpu[many] / jobs / pictures * 500
    _target(f"500 pictures in under 3 s: {seconds:.2f} s ({if_idle:.2f} s by CPU time)", seconds < 3)
    for name, times in ((_TENSORFLOW, 10), (_AI_EDGE, 5)):
        found = wall[name] / wall[many]
        said = f"{found:.1f} times ({cpu[name] / cpu[many]:.1f} by CPU time)"
        _target(f"{times} times as fast as {name}: {said}", found >= times)


def _ms(seconds: float, pictures: int) -> str:
    return f"{seconds / pictures * 1e3:7.2f}"


def _target(what: str, met: bool) -> None:
    print(f"target, {what}: {'met' if met else 'NOT met'}")


def _print_agreement(found: tensorflow_ranges.Agreement) -> None:
    print(f"ranges: {found.values} values, {found.same_bits} with the bits of TensorFlow's calibrator before rounding")
    print(f"  {found.widened} of 10 residual inputs are wider there, up to {found.widest:.2f} times")
    print(f"  rounded, {len(found.different)} differ, residual inputs joined with their sums as it joins them")
    print(f"  {len(found.near)} at a rounding boundary, of which {len(found.near_and_different)} differ")
    for said in (*found.different, *found.near):
        print(f"    {said}")


if __name__ == "__main__":
    main()

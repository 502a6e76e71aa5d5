"""Checks that builds from recorded ranges give the same bytes on any CPU, and how measured ranges differ by CPU.

    python benchmarks/any_cpu.py
    python benchmarks/any_cpu.py --model 0.35_96,1.0_224 --cpus Haswell,EPYC,SandyBridge --sets 3 --calib 10

Needs `qemu-x86_64`. For each model it builds the seeded INT8 model from the range table in `calibration/recorded/`, on
this CPU and on each emulated CPU, and compares the bytes. All stages run on that CPU. Then it measures the ranges of
several sets of procedural pictures on each CPU, and counts the minima and maxima that differ from those of this CPU:
unrounded, and rounded as in a build. Ranges that do not affect the model, such as that of the softmax, are not counted.
Exit status 1 if the bytes of a model differ. An emulated build takes 30 to 120 s.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import emulator
import numpy as np
import stand_ins

from calibration.parallel.workers import Workers
from calibration.pictures.inputs import Inputs
from calibration.pictures.sources import ProceduralSource
from calibration.ranges import range_table
from calibration.ranges.measure import measure
from recreate_model.network import architecture, seeded
from recreate_model.network.spec import Model
from recreate_model.quantize import convert
from recreate_model.recipe import Calibration, Preprocess
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_bytes

_RECORDED = stand_ins.ROOT / "calibration" / "recorded"
_LIMIT = 1800  # seconds for one emulated run


def main() -> int:
    """Builds, measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="0.35_96,1.0_224")
    parser.add_argument("--cpus", default="Haswell,EPYC,SandyBridge", help="as `qemu-x86_64 -cpu help` names them")
    parser.add_argument("--sets", type=int, default=3, help="calibration sets to measure, each of different pictures")
    parser.add_argument("--calib", type=int, default=10, help="pictures in a set")
    parser.add_argument("--measure-to", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure_to:
        np.save(arguments.measure_to, _measured(Model.parse(arguments.model), arguments.sets, arguments.calib))
        return 0
    print(stand_ins.machine())
    print(f"{'model':10}{'CPU':14}{'built':>8}  {'INT8 SHA-1':42}{'values that differ':>20}{'rounded':>9}{'ulps':>6}")
    same = True
    for name in arguments.model.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            same &= _compare(name, arguments, Path(scratch))
    return 0 if same else 1


def _compare(name: str, arguments: argparse.Namespace, folder: Path) -> bool:
    first: tuple[str, Array] | None = None
    same = True
    for cpu in ("", *arguments.cpus.split(",")):
        python = emulator.emulated(Path(sys.executable), cpu, folder) if cpu else Path(sys.executable)
        start = time.perf_counter()
        sha1 = _built(python, name, folder / (cpu or "here"))
        seconds = time.perf_counter() - start
        spans = np.zeros((0, 0, 2), np.float32)
        if arguments.sets:
            spans = _measured_by(python, name, arguments, folder / f"{cpu}.npy")
        first = first or (sha1, spans)
        same &= sha1 == first[0]
        differing = f"{np.count_nonzero(spans != first[1]):,} of {spans.size:,}"
        bits = Calibration.mantissa_bits
        rounded = np.count_nonzero(
            range_table.round_mantissa(spans, bits) != range_table.round_mantissa(first[1], bits)
        )
        row = f"{name:10}{cpu or 'this CPU':14}{seconds:6.1f} s  {sha1:42}"
        print(f"{row}{differing:>20}{rounded:9,}{_ulps(spans, first[1]):6,}", flush=True)
    return same


def _built(python: Path, name: str, out: Path) -> str:
    """The SHA-1 of the INT8 model that the pipeline builds from the recorded range table."""
    table = _RECORDED / f"mobilenet_v2_{name}_seeded.json"
    flags = ["--model", name, "--checkpoint", "seeded", "--images", "procedural", "--ranges", table, "--limit", "0"]
    _run([python, "-m", "pipeline", "quantize", *flags, "--jobs", "1", "--quiet", "--out", out])
    (model,) = out.glob("*/*_INT8.tflite")
    return digest_bytes(model.read_bytes(), "sha1")


def _measured_by(python: Path, name: str, arguments: argparse.Namespace, file: Path) -> Array:
    """The ranges that this Python measures: float32 (sets, activations, 2)."""
    sets = ["--sets", str(arguments.sets), "--calib", str(arguments.calib)]
    _run([python, __file__, "--model", name, *sets, "--measure-to", file])
    spans: Array = np.load(file)
    return spans


def _run(command: list[Path | str]) -> None:
    done = subprocess.run(
        command,
        cwd=stand_ins.ROOT,
        env=emulator.environment(),
        capture_output=True,
        text=True,
        timeout=_LIMIT,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"error: {' '.join(map(str, command))} failed: {done.stderr[-500:]}")


def _measured(model: Model, sets: int, calib: int) -> Array:
    """The unrounded ranges of the activations that affect the model: float32 (sets, activations, 2)."""
    float_model = convert.convert_float(architecture.frozen_graph(model, seeded.seeded_weights(model)))
    relevant = np.isin(list(convert.activations(float_model)), convert.activations_with_a_range(float_model))
    return np.stack([_set(float_model, model, seed, calib)[relevant] for seed in range(sets)])


def _set(float_model: bytes, model: Model, seed: int, calib: int) -> Array:
    """The ranges of `calib` procedural pictures of a seed: float32 (activations, 2)."""
    source = ProceduralSource(seed)
    inputs = Inputs(source, Preprocess(), model.resolution)
    return measure(float_model, inputs, source.pictures(0, calib), Workers(), lambda count: None).spans


def _ulps(values: Array, others: Array) -> int:
    """The largest difference in units in the last place; values of opposite signs do not occur."""
    if not values.size:
        return 0
    return int(np.abs(values.view(np.int32).astype(np.int64) - others.view(np.int32)).max())


if __name__ == "__main__":
    sys.exit(main())

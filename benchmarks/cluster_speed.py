"""Measures the time to measure ranges with local processes and with a Dask cluster on this machine, in turns.

    PYTHONPATH=. python benchmarks/cluster_speed.py --checkpoint ARCHIVE --images FOLDER --calib 500

Uses two workers with one thread each, with and without Dask's nanny. Only `measure` is timed, not reading the model or
selecting pictures. `first` is the first job of new workers, timed once they are ready; `again` is the second.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from calibration.parallel.workers import Workers
from calibration.pictures.folder import FolderSource
from calibration.pictures.inputs import Inputs
from calibration.ranges.measure import measure
from calibration.selection import select
from recreate_model.floats.checkpoint import read_archive
from recreate_model.network import architecture
from recreate_model.network.spec import Model
from recreate_model.quantize import convert
from recreate_model.recipe import Preprocess

ROOT = Path(__file__).resolve().parent.parent
_PORT = 18797


def dask(*arguments: str) -> subprocess.Popen[bytes]:
    """Starts a command of Dask in the project's folder."""
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--no-dashboard"]
    return subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet, start_new_session=True)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--calib", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model = Model()
    weights = read_archive(arguments.checkpoint, model).values
    float_model = convert.convert_float(architecture.frozen_graph(model, weights))
    source = FolderSource(arguments.images.absolute())
    pictures = select(source, calib=arguments.calib, limit=0).calibration
    inputs = Inputs(source, Preprocess(), model.resolution)
    seen = set()

    def seconds(workers: Workers) -> float:
        start = time.perf_counter()
        seen.add(measure(float_model, inputs, pictures, workers, lambda count: None).spans.tobytes())
        return time.perf_counter() - start

    rows: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        rows.setdefault("two local processes", []).append(seconds(Workers(2)))
        for name, flags, count in (("without nanny", ("--no-nanny",), 2), ("with nanny", ("--nworkers", "2"), 1)):
            with cluster(flags, count) as workers:
                rows.setdefault(f"{name}, first", []).append(seconds(workers))
                rows.setdefault(f"{name}, again", []).append(seconds(workers))
    for name, values in rows.items():
        times = ", ".join(f"{value:.1f}" for value in values)
        print(f"{name:24} median {statistics.median(values):5.1f} s of {len(values)} ({times})")
    print(f"{len(pictures)} pictures; {'the same ranges' if len(seen) == 1 else 'DIFFERENT RANGES'} every time")


@contextlib.contextmanager
def cluster(flags: tuple[str, ...], count: int) -> Iterator[Workers]:
    """Starts a scheduler and `count` worker commands with these flags, two workers in total; kills them at the end."""
    import distributed

    address = f"tcp://127.0.0.1:{_PORT}"
    with tempfile.TemporaryDirectory() as scratch:
        processes = [dask("scheduler", "--port", str(_PORT))]
        worker = ("worker", address, "--nthreads", "1", "--local-directory", scratch, *flags)
        processes += [dask(*worker) for _ in range(count)]
        try:
            with distributed.Client(address, timeout=60, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=60)
            yield Workers(cluster=address)
        finally:
            for process in processes:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


if __name__ == "__main__":
    main()

"""Measures the time and memory of the whole pipeline, from the command line.

    python benchmarks/pipeline_speed.py --checkpoint ARCHIVE --images FOLDER --calib 500

Measures a first `all`, an unchanged `all`, `--help`, and the peak memory of calibration with 100 and with 5,000
procedural pictures. Times are wall-clock times of whole processes. Memory is the peak of the proportional set size,
summed over the process and its workers and sampled 20 times a second, so it can miss short peaks. The largest resident
set size of a single process, as the kernel reports it, is printed too.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
_INTERVAL = 0.05  # seconds between two samples of memory
_MIB = 1 << 20


@dataclass(frozen=True)
class Run:
    """The result of one run: time, peak memory of the process tree, and peak memory of its largest process."""

    seconds: float
    tree_mib: float
    largest_mib: float


def measure(*arguments: str) -> Run:
    """Runs `python -m pipeline` with the arguments.

    Raises:
        SystemExit: it failed.
    """
    start = time.perf_counter()
    process = psutil.Popen([sys.executable, "-m", "pipeline", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _tree_pss(process))
        time.sleep(_INTERVAL)
    seconds = time.perf_counter() - start
    # The maximum over all children so far: the value of this run alone is lost, as poll() has collected its status.
    largest = _largest_child()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)}: status {process.returncode}")
    return Run(seconds, peak / _MIB, largest)


def timed(*arguments: str) -> float:
    """The time of one run in seconds, without sampling, which would slow down short runs."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "pipeline", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def _tree_pss(process: psutil.Process) -> int:
    total = 0
    try:
        for member in (process, *process.children(recursive=True)):
            total += member.memory_full_info().pss
    except psutil.Error:
        return 0  # a process ended during the sample; the next sample has the others
    return total


def _largest_child() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="seeded")
    parser.add_argument("--images", default="procedural")
    parser.add_argument("--calib", default="500")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    build = ["--checkpoint", arguments.checkpoint, "--images", arguments.images, "--calib", arguments.calib]
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} processors, Python {platform.python_version()}")
    print(f"all {' '.join(['--calib', arguments.calib])}, median of {arguments.repeats} where repeated")
    with tempfile.TemporaryDirectory() as out:
        cold = measure("all", *build, "--out", f"{out}/cold", "--quiet")
        _print("cold all", cold.seconds, f"tree {cold.tree_mib:.0f} MiB, largest process {cold.largest_mib:.0f} MiB")
        repeats = range(arguments.repeats)
        quiet = [timed("all", *build, "--out", f"{out}/cold", "--quiet") for _ in repeats]
        _print("unchanged all", statistics.median(quiet))
        table = [timed("all", *build, "--out", f"{out}/cold") for _ in repeats]
        _print("the same, with tables", statistics.median(table))
        _print("--help", statistics.median([timed("--help") for _ in repeats]))
        common = [
            "--checkpoint",
            "seeded",
            "--images",
            "procedural",
            "--limit",
            "0",
            "--quiet",
            "--out",
            f"{out}/memory",
        ]
        measure("freeze", *common)
        for count in ("100", "5000"):
            run = measure("calibrate", *common, "--calib", count, "--force")
            _print(f"calibrate on {count}", run.seconds, f"tree {run.tree_mib:.0f} MiB")


def _print(what: str, seconds: float, memory: str = "") -> None:
    print(f"  {what:<22} {seconds:7.2f} s  {memory}", flush=True)


if __name__ == "__main__":
    main()

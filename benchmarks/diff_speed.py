"""Measures the time of `python -m pipeline diff` on two models of 4 MB, and of its parts in one process.

    python benchmarks/diff_speed.py A.tflite B.tflite

Without files it compares the model of the seeded build in `artifacts/` with a copy that has one different weight. Times
of commands are wall-clock times of whole processes; `--help` shows the start-up time.
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
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_DEFAULT = "artifacts/mobilenet_v2_1.0_224_seeded_INT8/mobilenet_v2_1.0_224_seeded_INT8.tflite"


def timed(*arguments: str) -> float:
    """The time of one run of the command line, in seconds."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "pipeline", *arguments]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def called(function: Callable[[], object]) -> float:
    """The time of one call, in seconds."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from recreate_model.compare.diff import compare
    from recreate_model.tflite.model_view import read_file, read_model

    with tempfile.TemporaryDirectory() as scratch:
        files = arguments.files or _stand_ins(Path(scratch))
        one, two = (read_file(path) for path in files)
        print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} processors, Python {platform.python_version()}")
        print(f"{len(one):,} and {len(two):,} bytes, median of {arguments.repeats}")
        comparing = ("diff", *map(str, files), "--accept", "DIFFERENT")
        repeats = range(arguments.repeats)
        whole = _print("diff, with tables", [timed(*comparing) for _ in repeats])
        _print("diff --json", [timed(*comparing, "--json") for _ in repeats])
        start = _print("--help", [timed("--help") for _ in repeats])
        _print("read_model", [called(lambda: read_model(one)) for _ in repeats])
        inner = _print("compare", [called(lambda: compare(one, two)) for _ in repeats])
    print(f"  starting is {start / whole:.0%} of the command, comparing {inner / whole:.0%}")


def _stand_ins(folder: Path) -> list[Path]:
    """Two model files that differ in one bit."""
    model = bytearray((ROOT / _DEFAULT).read_bytes())
    files = [folder / "one.tflite", folder / "two.tflite"]
    files[0].write_bytes(model)
    model[len(model) // 2] ^= 1  # most of the file is weights
    files[1].write_bytes(model)
    return files


def _print(what: str, seconds: list[float]) -> float:
    median = statistics.median(seconds)
    print(f"  {what:<22} {median:8.4f} s, {min(seconds):.4f} to {max(seconds):.4f}", flush=True)
    return median


if __name__ == "__main__":
    main()

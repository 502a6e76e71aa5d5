"""Compares the standalone runtime with TensorFlow Lite Micro: time on this machine, memory, Cortex-M instructions.

    python benchmarks/standalone_speed.py [MODEL.tflite] [--rounds 20] [--boards]

Inferences of the two alternate on the same pictures, so changes of the machine's speed affect both; the ratio is
computed for each pair. All outputs are compared byte for byte. TFLM is the distribution `tflite-micro`, with its
reference kernels as its maintainers compile them for this machine. `--boards` also runs the runtime under QEMU, which
counts instructions. The default model is that of the seeded build in `artifacts/`.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
_DEFAULT = "artifacts/mobilenet_v2_1.0_224_seeded_INT8/mobilenet_v2_1.0_224_seeded_INT8.tflite"
_FLAGS = ("-std=c99", "-O3", "-march=native", "-shared", "-fPIC")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=ROOT / _DEFAULT)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--boards", action="store_true")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from pipeline.cortex_m import tflm
    from pipeline.cortex_m.standalone.emit import runtime_sources
    from recreate_model.tflite.model_view import read_file, read_model

    model = read_file(arguments.model)
    sources = runtime_sources(model, "net")
    shape = read_model(model).input.shape
    pictures = np.random.default_rng(0).integers(-128, 128, (arguments.rounds, *shape)).astype(np.int8)
    compiler = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} processors, gcc {compiler} {' '.join(_FLAGS[1:3])}")
    with tempfile.TemporaryDirectory() as scratch:
        run_standalone, run_tflm = _standalone(sources, Path(scratch)), _tflm(model)
        times: dict[str, list[float]] = {"TFLM": [], "standalone": []}
        equal = 0
        for picture in pictures:
            expected = _timed(times["TFLM"], run_tflm, picture)
            equal += bool(np.array_equal(expected, _timed(times["standalone"], run_standalone, picture)))
    for name, seconds in times.items():
        print(f"{name:<12} {1e3 * min(seconds):8.2f} ms at best, {1e3 * statistics.median(seconds):8.2f} median")
    ratios = [tflm_time / own_time for tflm_time, own_time in zip(times["TFLM"], times["standalone"], strict=True)]
    print(f"ratio        {min(ratios):.1f} to {max(ratios):.1f}, median {statistics.median(ratios):.1f}")
    print(f"outputs      {equal} of {len(pictures)} byte for byte the same")
    measured = tflm.measure(model, pictures[:1, 0], "the model")
    arena = int(sources["net_run.h"].split("_ARENA_BYTES ")[1].split()[0])
    print(f"memory       TFLM {measured.arena:,} bytes, of them {measured.head:,} of activations; standalone {arena:,}")
    if arguments.boards:
        _boards(model, pictures[:1, 0])


def _timed(times: list[float], run: Callable[[Any], Any], picture: Any) -> Any:
    """The output for a picture; appends the time in seconds to `times`."""
    start = time.perf_counter()
    output = run(picture)
    times.append(time.perf_counter() - start)
    return output


def _standalone(sources: dict[str, str], folder: Path) -> Callable[[Any], Any]:
    """Compiles the runtime; returns a function from a picture to its int8 scores."""
    for name, text in sources.items():
        (folder / name).write_text(text)
    files = [name for name in sources if name.endswith(".c")]
    subprocess.run(["gcc", *_FLAGS, *files, "-o", "net.so"], cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "net.so"))
    library.net_input.restype = library.net_output.restype = ctypes.c_void_p
    classes = int(sources["net_run.h"].split("_OUTPUT_BYTES ")[1].split()[0])

    def run(picture: Any) -> Any:
        ctypes.memmove(library.net_input(), picture.ctypes.data, picture.nbytes)
        library.net_run()
        return np.frombuffer(ctypes.string_at(library.net_output(), classes), np.int8)

    return run


def _tflm(model: bytes) -> Callable[[Any], Any]:
    """Loads the model in TFLM; returns a function from a picture to its int8 scores."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(model, arena_size=8 << 20)

    def run(picture: Any) -> Any:
        interpreter.set_input(picture, 0)
        interpreter.invoke()
        return interpreter.get_output(0)[0].copy()

    return run


def _boards(model: bytes, pictures: Any) -> None:
    """Runs the runtime on the emulated boards and prints the instruction counts."""
    from pipeline.c_array import label_sources, model_sources
    from pipeline.cortex_m.firmware import image
    from pipeline.cortex_m.firmware.boards import BOARDS
    from pipeline.cortex_m.standalone.emit import runtime_sources

    sources = {**runtime_sources(model, "net"), **model_sources(model, "net"), **label_sources(["none"])}
    print(", ".join(image.tool_versions()))
    for board in BOARDS:
        with tempfile.TemporaryDirectory() as folder:
            elf = image.build_image(board, sources, "net", Path(folder))
            found = image.run_image(board, elf, pictures, limit=600)
        print(f"{board.name} ({board.core}): {found.instructions[0]:,} instructions, {found.seconds:.2f} s of QEMU")


if __name__ == "__main__":
    main()

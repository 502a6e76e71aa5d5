"""Runs a model with LiteRT's GPU delegate on every picture of a file; run as a script, in a process of its own.

For: keeping a driver's crash, its hang and LiteRT's log away from the process that asks. Which device is used is
decided outside, by the Vulkan driver that the environment names. Not for: comparing; the outputs go to a file.

The only argument is a JSON file with the paths `model`, `inputs`, `outputs` (NumPy files) and `report`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def main(job: dict[str, str]) -> None:
    """Writes the outputs, int8 (n, classes), and a report.

    The report has `fully_accelerated`, the `seconds` of each inference, and the names of the shared `libraries` that
    the process had loaded, which show the back end and the driver.
    """
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator

    # With the CPU allowed beside it, a model that the GPU takes in part only is reported as such, not refused.
    accelerators = HardwareAccelerator.GPU | HardwareAccelerator.CPU
    model: Any = CompiledModel.from_file(job["model"], hardware_accel=accelerators)
    (signature,) = model.get_signature_list()
    (output,) = model.get_output_tensor_details(signature).values()
    sources, targets = model.create_input_buffers(0), model.create_output_buffers(0)
    size = int(np.prod(output["shape"]))
    outputs, seconds = [], []
    for picture in np.load(job["inputs"]):
        start = time.perf_counter()
        sources[0].write(np.ascontiguousarray(picture))
        model.run_by_index(0, sources, targets)
        outputs.append(targets[0].read(size, np.int8).copy())  # reading waits for the device
        seconds.append(time.perf_counter() - start)
    np.save(job["outputs"], np.array(outputs, np.int8).reshape(-1, size))
    report = {
        "fully_accelerated": model.is_fully_accelerated(),
        "seconds": seconds,
        "libraries": _libraries(),
    }
    Path(job["report"]).write_text(json.dumps(report), encoding="utf-8")


def _libraries() -> list[str]:
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    paths = {line.split(maxsplit=5)[5] for line in maps.splitlines() if "/" in line and ".so" in line}
    return sorted({Path(path).name for path in paths})


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))

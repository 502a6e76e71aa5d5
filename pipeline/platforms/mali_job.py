"""Runs a model with LiteRT's GPU delegate on every picture of a file; a script for a separate process.

For: isolating a driver's crash or hang, and LiteRT's log. The environment variables of the Vulkan loader select the
device. Not for: comparing; the outputs are written to a file.

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
    """Writes the outputs, int8 (n, classes), and a JSON report.

    The report has `fully_accelerated`, the `seconds` of each inference, and the file names of the loaded shared
    `libraries`, which show the back end and the driver.
    """
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator

    # With the CPU allowed too, a model that the GPU supports only in part is reported as such instead of refused.
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

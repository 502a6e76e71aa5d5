"""Running TensorFlow Lite Micro on this machine: what it computes, and the memory it needs for that.

For: the size of the arena, and whether TFLM's reference kernels give the bytes of LiteRT's. They are the sources that a
Cortex-M gets, compiled for this machine. Not for: speed on a device, or the kernels of CMSIS-NN.

TFLM comes from the distribution `tflite-micro`, which is optional. It runs in a process of its own (`tflm_job`), since
where it fails hard it takes its process with it.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np

from pipeline.cortex_m import tflm_job
from pipeline.engine.keys import is_installed
from recreate_model.support.arrays import Array
from recreate_model.support.errors import InputError, ToolError
from recreate_model.support.processes import run_to_end
from recreate_model.tflite.model_view import read_model

DISTRIBUTION = "tflite-micro"
INSTALL = "python -m pip install '.[tflm]'"  # in the project's folder
_TIME_LIMIT = 600  # seconds; twenty pictures take about six
_STRUCTURES = 4 << 20  # bytes; more than TFLM keeps about any model beside its tensors
_ALLOCATION = re.compile(r"Arena allocation (head|tail) (\d+) bytes")


@dataclass(frozen=True, eq=False)
class Measured:
    """What a run of TFLM showed.

    Attributes:
        version: of `tflite-micro`.
        arena: bytes of the smallest arena that works; a multiple of 16, and 16 less are not enough.
        head: bytes in it for activations, which share their memory.
        tail: bytes in it for structures that stay.
        outputs: int8 (n, ...), one for each input, as computed in that arena.
        seconds: for one inference on this machine.
    """

    version: str
    arena: int
    head: int
    tail: int
    outputs: Array = field(repr=False)
    seconds: float


def is_here() -> bool:
    """Whether TFLM is installed."""
    return is_installed(DISTRIBUTION)


def measure(model: bytes, inputs: Array, name: str) -> Measured:
    """Runs a model with one int8 input and one int8 output on all inputs, int8 (n, height, width, 3).

    Args:
        name: of the model, for messages.

    Raises:
        InputError: TFLM cannot run the model.
        ToolError: TFLM crashed.
    """
    with tempfile.TemporaryDirectory(prefix="recreate_model-tflm-") as scratch:
        model_path, inputs_path, outputs_path = files = [Path(scratch, file) for file in ("model", "in.npy", "out.npy")]
        model_path.write_bytes(model)
        np.save(inputs_path, inputs)
        finished = run_to_end([sys.executable, tflm_job.__file__, *files, str(_enough(model))], _TIME_LIMIT)
        if finished.returncode:
            raise _failed(name, finished)
        answer, outputs = json.loads(finished.stdout), np.load(outputs_path)
    memory = {part: int(size) for part, size in _ALLOCATION.findall(finished.stderr)}
    return Measured(version(DISTRIBUTION), answer["arena"], memory["head"], memory["tail"], outputs, answer["seconds"])


def _enough(model: bytes) -> int:
    """Bytes of an arena for any model like it: no tensor shares memory with another, and constants are in it too."""
    tensors = sum(math.prod(tensor.shape) * 4 + tflm_job.STEP for tensor in read_model(model).tensors)
    return tensors + _STRUCTURES


def _failed(name: str, finished: CompletedProcess[str]) -> InputError | ToolError:
    said = " / ".join(line for line in finished.stderr.splitlines() if line.strip())
    if finished.returncode == 1 and "Traceback" not in said:
        return InputError(
            expected=f"TensorFlow Lite Micro to run {name}",
            found=f"that it cannot: {said[-300:]}",
            next_step="give a model of operators and types that TFLM has",
        )
    return ToolError(
        expected=f"TensorFlow Lite Micro to end with a result for {name}",
        found=f"status {finished.returncode}: {said[-300:]}",
        next_step=f"install it again: {INSTALL}",
    )

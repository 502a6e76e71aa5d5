"""Runs TensorFlow Lite Micro on this machine: its outputs, and the arena size that the model needs.

For: the size of the arena, and whether TFLM's reference kernels give the same bytes as LiteRT's. They are the sources
that run on a Cortex-M, compiled for this machine. Not for: speed on a device, or the kernels of CMSIS-NN.

TFLM comes from the optional distribution `tflite-micro`. It runs in a separate process (`tflm_job`), because a fatal
error in TFLM aborts its process.
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
_STRUCTURES = 4 << 20  # bytes; more than TFLM allocates for its own structures with any model
_ALLOCATION = re.compile(r"Arena allocation (head|tail) (\d+) bytes")


@dataclass(frozen=True, eq=False)
class Measurement:
    """The result of running a model with TFLM.

    Attributes:
        version: version of `tflite-micro`.
        arena: size of the smallest arena that works, in bytes; a multiple of 16, and 16 bytes less are not enough.
        head: bytes of the arena for activations, which share memory.
        tail: bytes of the arena for persistent structures.
        outputs: int8 (n, ...), one for each input, computed in that arena.
        seconds: mean time of one inference on this machine.
    """

    version: str
    arena: int
    head: int
    tail: int
    outputs: Array = field(repr=False)
    seconds: float


def is_available() -> bool:
    """Whether TFLM is installed."""
    return is_installed(DISTRIBUTION)


def measure(model: bytes, inputs: Array, name: str) -> Measurement:
    """Finds the smallest arena for a model and runs the model on all inputs.

    Args:
        model: bytes of a `.tflite` file with one int8 input and one int8 output.
        inputs: int8 (n, ...), each in the shape of the model's input without its batch.
        name: of the model, for messages.

    Raises:
        InputError: TFLM cannot run the model.
        ToolError: TFLM crashed.
    """
    with tempfile.TemporaryDirectory(prefix="recreate_model-tflm-") as scratch:
        model_path, inputs_path, outputs_path = files = [Path(scratch, file) for file in ("model", "in.npy", "out.npy")]
        model_path.write_bytes(model)
        np.save(inputs_path, inputs)
        finished = run_to_end([sys.executable, tflm_job.__file__, *files, str(_sufficient_arena(model))], _TIME_LIMIT)
        if finished.returncode:
            raise _failed(name, finished)
        report, outputs = json.loads(finished.stdout), np.load(outputs_path)
    memory = {part: int(size) for part, size in _ALLOCATION.findall(finished.stderr)}
    return Measurement(
        version(DISTRIBUTION), report["arena"], memory["head"], memory["tail"], outputs, report["seconds"]
    )


def _sufficient_arena(model: bytes) -> int:
    """An upper bound of the arena size, in bytes: no tensors share memory, and constants are counted too."""
    tensors = sum(math.prod(tensor.shape) * 4 + tflm_job.STEP for tensor in read_model(model).tensors)
    return tensors + _STRUCTURES


def _failed(name: str, finished: CompletedProcess[str]) -> InputError | ToolError:
    log = " / ".join(line for line in finished.stderr.splitlines() if line.strip())
    if finished.returncode == 1 and "Traceback" not in log:
        return InputError(
            expected=f"TensorFlow Lite Micro to run {name}",
            found=f"an error: {log[-300:]}",
            next_step="give a model whose operators and types TFLM supports",
        )
    return ToolError(
        expected=f"TensorFlow Lite Micro to return a result for {name}",
        found=f"status {finished.returncode}: {log[-300:]}",
        next_step=f"install it again: {INSTALL}",
    )

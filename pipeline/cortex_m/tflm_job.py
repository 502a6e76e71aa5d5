"""Runs TensorFlow Lite Micro in a separate process, because a fatal error in TFLM aborts its process.

    python tflm_job.py MODEL INPUTS OUTPUTS LARGEST

For: `pipeline.cortex_m.tflm`, which writes the input files and reads the report. The report is JSON on standard output;
TFLM prints its allocations to standard error. It is run as a script, so it imports nothing from the project.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

STEP = 16  # bytes; tensors are aligned to it, so arena sizes are multiples of it


def main(model_path: str, inputs_path: str, outputs_path: str, largest: str) -> None:
    """Finds the smallest arena that works, up to `largest` bytes, and runs the model on every input in it.

    Raises:
        RuntimeError: TFLM cannot run the model.
    """
    import numpy as np

    model, inputs = Path(model_path).read_bytes(), np.load(inputs_path)
    _interpreter(model, int(largest))  # an error here is not a lack of memory
    arena = _smallest_arena(model, _round_up(int(largest)))
    interpreter = _interpreter(model, arena)
    start = time.perf_counter()
    outputs = [_run(interpreter, value) for value in inputs]
    seconds = (time.perf_counter() - start) / len(inputs)
    interpreter.print_allocations()
    np.save(outputs_path, np.stack(outputs))
    print(json.dumps({"arena": arena, "seconds": seconds}))


def _smallest_arena(model: bytes, size: int) -> int:
    """The smallest arena for the model: a multiple of STEP bytes, found by bisection; `size` must be large enough."""
    too_small = 0  # never tried: in a tiny arena TFLM aborts instead of reporting an error
    while size - too_small > STEP:
        middle = _round_up((size + too_small) // 2)
        size, too_small = (middle, too_small) if _fits(model, middle) else (size, middle)
    return size


def _fits(model: bytes, size: int) -> bool:
    try:
        _interpreter(model, size)
    except RuntimeError:
        return False
    return True


def _round_up(size: int) -> int:
    return -(-size // STEP) * STEP


def _interpreter(model: bytes, arena: int) -> Any:
    from tflite_micro.python.tflite_micro import runtime

    return runtime.Interpreter.from_bytes(model, arena_size=arena)


def _run(interpreter: Any, value: Any) -> Any:
    interpreter.set_input(value[None], 0)
    interpreter.invoke()
    return interpreter.get_output(0)[0].copy()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except RuntimeError as error:
        sys.exit(str(error))

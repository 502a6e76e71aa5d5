"""What runs in a process of its own: TensorFlow Lite Micro, which ends its process where it fails hard.

    python tflm_job.py MODEL INPUTS OUTPUTS ENOUGH

For: `pipeline.cortex_m.tflm`, which makes the files and reads the answer. The answer is JSON on standard output; what
TFLM says of its memory is on standard error. It imports nothing of the project, as it is run as a file.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

STEP = 16  # bytes; arenas are multiples of it, as their tensors are aligned to it


def main(model_path: str, inputs_path: str, outputs_path: str, enough: str) -> None:
    """Finds the smallest arena that works, at most `enough` bytes, and runs every input in it."""
    import numpy as np

    model, inputs = Path(model_path).read_bytes(), np.load(inputs_path)
    _interpreter(model, int(enough))  # what fails here has other reasons than memory
    arena = _smallest(model, _round_up(int(enough)))
    interpreter = _interpreter(model, arena)
    start = time.perf_counter()
    outputs = [_run(interpreter, value) for value in inputs]
    seconds = (time.perf_counter() - start) / len(inputs)
    interpreter.print_allocations()
    np.save(outputs_path, np.stack(outputs))
    print(json.dumps({"arena": arena, "seconds": seconds}))


def _smallest(model: bytes, size: int) -> int:
    """The smallest multiple of STEP bytes that everything fits in; it fits in `size`."""
    too_small = 0  # never tried: halving a size that is enough stays above what TFLM needs to fail in order
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

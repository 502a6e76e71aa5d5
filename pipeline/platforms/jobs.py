"""A model run on pictures by another process: with this Python, the system's, or one on an emulated CPU.

For: outputs of code that this process cannot or should not load. Not for: judging them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.platforms.evidence import Subject
from recreate_model.support.arrays import Array
from recreate_model.support.errors import ToolError
from recreate_model.support.processes import last_line, run_to_end

Runtime = Literal["litert", "armnn"]

_SCRIPT = Path(__file__).with_name("inference_job.py")
_START, _EACH = 120, 60  # seconds a job and each picture may take; emulated, they take 3 and at most 6


@dataclass(frozen=True)
class Place:
    """Where a job runs.

    Attributes:
        name: for messages.
        command: the start of a command line that runs Python there.
        remedy: what helps where a job fails there, as the end of an error.
        site: folders of unpacked wheels.
    """

    name: str
    command: tuple[Path | str, ...]
    remedy: str
    site: tuple[Path, ...] = ()


@dataclass(frozen=True, eq=False)
class Ran:
    """What a job did.

    Attributes:
        outputs: int8 (n, classes), by the kernels that made them.
        seconds: for one inference, by kernels.
        machine: the architecture that the Python saw around it, such as `aarch64`.
        versions: of the runtime, the Python and numpy.
    """

    outputs: Mapping[str, Array] = field(repr=False)
    seconds: Mapping[str, float]
    machine: str
    versions: tuple[str, ...]


def run_job(place: Place, runtime: Runtime, kernels: Sequence[str], subject: Subject) -> Ran:
    """Runs the subject's model on all of its pictures, once with each of the kernels.

    Args:
        kernels: `reference` and `xnnpack` of LiteRT; back ends of Arm NN.

    Raises:
        ToolError: it failed, took too long, or gave outputs of another shape; its last words are in the message.
    """
    with tempfile.TemporaryDirectory(prefix="recreate_model-") as scratch:
        folder = Path(scratch)
        model, inputs, outputs, report = (folder / name for name in ("m.tflite", "in.npy", "out.npz", "report.json"))
        model.write_bytes(subject.model)
        np.save(inputs, subject.inputs)
        job = {
            "runtime": runtime,
            "kernels": list(kernels),
            "site": [str(path) for path in place.site],
            "model": str(model),
            "inputs": str(inputs),
            "outputs": str(outputs),
            "report": str(report),
        }
        (folder / "job.json").write_text(json.dumps(job))
        limit = _START + _EACH * len(subject.inputs) * len(kernels)
        done = run_to_end((*place.command, _SCRIPT, folder / "job.json"), limit)
        if done.returncode or not report.is_file():
            raise _failed(place, runtime, kernels, last_line(done))
        document = json.loads(report.read_text())
        with np.load(outputs) as arrays:
            found = {name: arrays[name] for name in kernels}
    for name, array in found.items():
        if array.shape != subject.expected.shape:
            raise _failed(place, runtime, [name], f"outputs of the shape {array.shape}")
    return Ran(found, document["seconds"], document["machine"], tuple(document["versions"]))


def _failed(place: Place, runtime: Runtime, kernels: Sequence[str], found: str) -> ToolError:
    return ToolError(
        expected=f"{runtime} ({', '.join(kernels)}) to run the model on {place.name}",
        found=found,
        done="the outputs were not compared",
        next_step=place.remedy,
    )

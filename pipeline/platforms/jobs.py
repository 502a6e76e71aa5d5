"""Runs a model on pictures in another process: with this Python, the system's, or one on an emulated CPU.

For: outputs of code that this process cannot or should not load. Not for: comparing them.
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
# Limits in seconds, for the start and for each picture; emulated, they take 3 and at most 6.
_START_LIMIT, _PICTURE_LIMIT = 120, 60


@dataclass(frozen=True)
class PythonHost:
    """The Python that runs a job.

    Attributes:
        name: for messages.
        command: the start of its command line.
        remedy: the next step in the error of a failed job.
        site: folders of unpacked wheels.
    """

    name: str
    command: tuple[Path | str, ...]
    remedy: str
    site: tuple[Path, ...] = ()


@dataclass(frozen=True, eq=False)
class JobResult:
    """The result of a job.

    Attributes:
        outputs: kernels -> int8 (n, classes).
        seconds: kernels -> mean time of one inference.
        machine: the architecture that the job's Python reports, such as `aarch64`.
        versions: of the runtime, Python and numpy.
    """

    outputs: Mapping[str, Array] = field(repr=False)
    seconds: Mapping[str, float]
    machine: str
    versions: tuple[str, ...]


def run_job(host: PythonHost, runtime: Runtime, kernels: Sequence[str], subject: Subject) -> JobResult:
    """Runs the subject's model on all of its pictures, once with each of the kernels.

    Args:
        kernels: for LiteRT, `reference` or `xnnpack`; for Arm NN, names of back ends.

    Raises:
        ToolError: the job failed, exceeded its time limit, or gave outputs of another shape; the message has the last
            line of its output.
    """
    with tempfile.TemporaryDirectory(prefix="recreate_model-") as scratch:
        folder = Path(scratch)
        model, inputs, outputs, report = (folder / name for name in ("m.tflite", "in.npy", "out.npz", "report.json"))
        model.write_bytes(subject.model)
        np.save(inputs, subject.inputs)
        job = {
            "runtime": runtime,
            "kernels": list(kernels),
            "site": [str(path) for path in host.site],
            "model": str(model),
            "inputs": str(inputs),
            "outputs": str(outputs),
            "report": str(report),
        }
        (folder / "job.json").write_text(json.dumps(job))
        limit = _START_LIMIT + _PICTURE_LIMIT * len(subject.inputs) * len(kernels)
        done = run_to_end((*host.command, _SCRIPT, folder / "job.json"), limit)
        if done.returncode or not report.is_file():
            raise _failed(host, runtime, kernels, last_line(done))
        document = json.loads(report.read_text())
        with np.load(outputs) as arrays:
            found = {name: arrays[name] for name in kernels}
    for name, array in found.items():
        if array.shape != subject.expected.shape:
            raise _failed(host, runtime, [name], f"outputs of shape {array.shape}")
    return JobResult(found, document["seconds"], document["machine"], tuple(document["versions"]))


def _failed(host: PythonHost, runtime: Runtime, kernels: Sequence[str], found: str) -> ToolError:
    return ToolError(
        expected=f"{runtime} ({', '.join(kernels)}) to run the model on {host.name}",
        found=found,
        done="the outputs were not compared",
        next_step=host.remedy,
    )

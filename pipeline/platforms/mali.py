"""Evidence for Mali GPUs: LiteRT's GPU delegate on a Vulkan device of this machine, else its documented operators.

For: whether the delegate accepts every operator of the model, and whether its floating-point arithmetic gives the same
class as the INT8 reference kernels. Not for: speed, LiteRT's OpenCL back end, or Arm's own driver unless the device
uses it.

The delegate runs in a separate process: a crash or hang of a driver becomes a row and does not end the command.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pipeline.platforms import mali_job
from pipeline.platforms.evidence import Agreement, Evidence, Subject, close, same_class
from pipeline.platforms.gpu_operators import unsupported
from pipeline.platforms.vulkan import PACKAGES, Device, Driver, reason, survey
from recreate_model.quantize.convert import pack, parse
from recreate_model.support.arrays import Array
from recreate_model.support.processes import run_to_end
from recreate_model.tflite.interpret import Runner
from recreate_model.tflite.model_view import read_model

PLATFORM = "Mali GPU"

_START_LIMIT = 120  # seconds; on a software device the delegate takes one to start
_PICTURE_LIMIT = 20  # seconds for each picture; SwiftShader takes half a second for 1.0_224 on an idle machine
_BACK_END = re.compile(r"libLiteRt\w+Accelerator\.so")
_ADAPTER = re.compile(r"Selected adapter: (.+?), arch=")
_LOG_PREFIX = re.compile(r"^(ERROR|Warning): (\[[^]]*] )?")
_SHOWN = 300  # most characters of a log in a note
# Of 20 pictures of an untrained network, one class agrees by chance in 1 of 50 runs, two in 1 of 5,000.
_BEYOND_CHANCE = 2
_NOT_MALI = "Mali's own driver was not used"


@dataclass(frozen=True, eq=False)
class Run:
    """The result of running a model with the delegate.

    Attributes:
        outputs: int8 (n, classes).
        fully_accelerated: whether LiteRT reports that no operator ran on the CPU.
        seconds: median time of one inference; None without inferences.
        back_end: the library of LiteRT's back end that was loaded, such as `libLiteRtWebGpuAccelerator.so`.
        device: the device that the delegate used; None if it is not one of the given driver.
        left_out: the delegate's messages about operators that it did not accept; empty if it accepted all.
    """

    outputs: Array
    fully_accelerated: bool
    seconds: float | None
    back_end: str
    device: Device | None
    left_out: str


def check(subject: Subject) -> list[Evidence]:
    """One row if the delegate ran; else a row for the documented operators, and one for drivers that failed.

    Raises:
        InputError: the subject's model cannot be read.
    """
    found = survey()
    failures = [f"{driver.manifest.name}: {driver.fault}" for driver in found.drivers if driver.fault]
    for driver in found.drivers:
        if not driver.devices:
            continue
        run = delegate(subject.model, subject.inputs, driver)
        if isinstance(run, Run) and run.device:
            control = delegate(control_model(subject.model), subject.inputs[:0], driver)
            return [_evidence_of_run(subject, run, run.device, control, failures)]
        fault = "the delegate used another device" if isinstance(run, Run) else run
        failures.append(f"{driver.devices[0]}: {fault}")
    rows = [_documented_support(subject, found.loader)]
    if failures:
        what = "LiteRT's GPU delegate on this machine's Vulkan drivers"
        rows.insert(0, Evidence(PLATFORM, "not run", what, tools=_tools(), note="; ".join([*failures, _NOT_MALI])))
    return rows


def delegate(model: bytes, inputs: Array, driver: Driver) -> Run | str:
    """Runs the delegate with one Vulkan driver; returns the result, or why it failed.

    Args:
        model: bytes of the `.tflite` file.
        inputs: int8 (n, height, width, 3); with n = 0 the delegate only prepares the model.
    """
    with tempfile.TemporaryDirectory(prefix="recreate_model-") as scratch:
        folder = Path(scratch)
        job = {key: str(folder / name) for key, name in _FILES.items()}
        Path(job["model"]).write_bytes(model)
        np.save(job["inputs"], inputs[:, np.newaxis])
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        limit = _START_LIMIT + _PICTURE_LIMIT * len(inputs)
        done = run_to_end([sys.executable, "-I", mali_job.__file__, folder / "job.json"], limit, driver.settings)
        log = done.stderr.splitlines()
        if done.returncode:
            # After a crash or a timeout, that is the reason, not the messages before it.
            return (done.returncode > 0 and "; ".join(_errors(log))[:_SHOWN]) or reason(done)
        return _parse_run(
            json.loads(Path(job["report"]).read_text(encoding="utf-8")), np.load(job["outputs"]), log, driver
        )


_FILES = {"model": "model.tflite", "inputs": "inputs.npy", "outputs": "outputs.npy", "report": "report.json"}


def control_model(model: bytes) -> bytes:
    """The negative control: the same model with a SOFTMAX beta that the delegate does not support.

    The CPU supports it, so the delegate must leave exactly this operator to the CPU.
    """
    tree = parse(model)
    operators = tree.subgraphs[0].operators
    options = [operator.builtinOptions for operator in operators if hasattr(operator.builtinOptions, "beta")]
    options[-1].beta = 2.0
    return pack(tree)


def _parse_run(report: dict[str, Any], outputs: Array, log: list[str], driver: Driver) -> Run:
    libraries = report["libraries"]
    # The file name may have a version suffix in one place but not in the other.
    loaded = any(name.split(".so")[0] == driver.library.split(".so")[0] for name in libraries)
    chosen = next((match[1] for line in log if (match := _ADAPTER.search(line))), driver.devices[0].name)
    device = next((candidate for candidate in driver.devices if candidate.name == chosen), None)
    return Run(
        outputs=outputs,
        fully_accelerated=report["fully_accelerated"],
        seconds=median(report["seconds"]) if report["seconds"] else None,
        back_end=" and ".join(filter(_BACK_END.fullmatch, libraries)),
        device=device if loaded else None,
        left_out=" ".join(_left_out(log)),
    )


def _left_out(log: list[str]) -> list[str]:
    """The log lines after `Following operations are not supported`, up to the count of operators on the CPU."""
    start = next((number for number, line in enumerate(log) if "operations are not supported" in line), len(log))
    end = next((number for number, line in enumerate(log) if "operations will run on the CPU" in line), start)
    return log[start + 1 : end + 1]


def _errors(log: list[str]) -> list[str]:
    """The errors and warnings in the log, without source locations."""
    return [_LOG_PREFIX.sub("", line) for line in log if _LOG_PREFIX.match(line)]


def _evidence_of_run(subject: Subject, run: Run, device: Device, control: Run | str, failures: list[str]) -> Evidence:
    count = len(read_model(subject.model).operators)
    # If the control is fully accelerated too, the report means nothing.
    control_holds = isinstance(control, Run) and not control.fully_accelerated
    full = run.fully_accelerated and control_holds
    agreement = same_class(run.outputs, subject.expected)
    least = min(_BEYOND_CHANCE, agreement.n // 10)
    difference = int(np.abs(run.outputs.astype(int) - subject.expected.astype(int)).max())
    notes = [
        f"fully accelerated: all {count} operators"
        if run.fully_accelerated
        else f"not fully accelerated: {run.left_out}",
        "a control model with one unsupported option was not, as it should be"
        if control_holds
        else f"the control failed, so `fully accelerated` means nothing: {_control_fault(control)}",
        f"scores at most {difference} of 255 apart",
        *_class_note(subject, agreement),
        f"back end {run.back_end} over Vulkan, as loaded",
        "Arm's own driver for Mali was used" if device.mali else _NOT_MALI,
        *failures,
    ]
    return Evidence(
        PLATFORM,
        "ran" if full else "analyzed",
        "LiteRT's GPU delegate",
        device=str(device),
        tools=_tools(),
        agreement=close(run.outputs, subject.expected) if subject.trained else None,
        pictures=agreement.n,
        seconds=run.seconds,
        note="; ".join(notes),
        fault="" if subject.trained or agreement.hits >= least else f"{agreement}, as by chance",
    )


def _class_note(subject: Subject, agreement: Agreement) -> Iterator[str]:
    """If some classes differ: how many agree, and how many agree for XNNPACK on the CPU."""
    if agreement.hits < agreement.n:
        runner = Runner(subject.model, "xnnpack")
        outputs = np.concatenate([runner.run(value[np.newaxis])[0] for value in subject.inputs])
        claim = "" if subject.trained else " (not claimed of untrained weights)"
        yield f"{agreement}{claim}, and of XNNPACK's kernels on the CPU {same_class(outputs, subject.expected)}"


def _control_fault(control: Run | str) -> str:
    return control if isinstance(control, str) else "it was fully accelerated too"


def _documented_support(subject: Subject, loader: bool) -> Evidence:
    """The row for the documented operators; `loader` says whether the Vulkan loader is installed."""
    view = read_model(subject.model)
    faults = unsupported(view)
    # The control: an undocumented operator in place of the last one must be found there and nowhere else.
    swapped = dataclasses.replace(view.operators[-1], name="LOG_SOFTMAX", options={})
    control = set(unsupported(dataclasses.replace(view, operators=(*view.operators[:-1], swapped)))) - set(faults)
    control_found = control == {f"operator {len(view.operators) - 1} LOG_SOFTMAX: not on the list"}
    names = ", ".join(sorted({operator.name for operator in view.operators}))
    notes = [
        f"{len(faults)} of {len(view.operators)} operators outside the documented support: {faults[0]}"
        if faults
        else f"all {len(view.operators)} operators, with types and options, are in the documented support: {names}",
        "the control, an operator that the list has not, was found" if control_found else "the control was not found",
        "nothing ran on a GPU",
        _NOT_MALI,
    ]
    return Evidence(
        PLATFORM,
        "analyzed" if control_found and not faults else "not run",
        "operators against the documented support of LiteRT's GPU delegate",
        note="; ".join(notes),
        missing=f"{'a Vulkan device' if loader else 'the Vulkan loader libvulkan.so.1'} ({PACKAGES})",
    )


def _tools() -> tuple[str, ...]:
    return (f"LiteRT {version('ai-edge-litert')}",)

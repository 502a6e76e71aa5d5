"""Evidence for Mali GPUs: LiteRT's GPU delegate run on a Vulkan device of this machine, else its list of operators.

For: whether every operator of the model is one the delegate takes, and whether its arithmetic, in floating point on a
GPU, gives the class that the INT8 reference kernels give. Not for: speed, LiteRT's OpenCL back end, or Mali's own
driver unless that is what the device runs under.

A driver's crash or hang ends a process of its own and becomes a row; it never ends the command.
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

_START_LIMIT = 120  # seconds; on a software device the delegate starts in one
_PICTURE_LIMIT = 20  # seconds for each picture; SwiftShader takes half a second for 1.0_224 on an idle machine
_BACK_END = re.compile(r"libLiteRt\w+Accelerator\.so")
_ADAPTER = re.compile(r"Selected adapter: (.+?), arch=")
_LOG_PLACE = re.compile(r"^(ERROR|Warning): (\[[^]]*] )?")
_WORDS = 300  # most characters of a log in a note
# Of 20 pictures of an untrained network: by chance one agrees in one run of fifty, two in one of five thousand.
_BEYOND_CHANCE = 2
_NOT_MALI = "Mali's own driver was not used"


@dataclass(frozen=True, eq=False)
class Run:
    """What the delegate did with one model.

    Attributes:
        outputs: int8 (n, classes).
        seconds: of the median inference; None without one.
        back_end: of LiteRT, by the library that was loaded: `libLiteRtWebGpuAccelerator.so`.
        device: that the delegate chose; None where its driver was not loaded or the log names another.
        left_out: the delegate's own words on operators it did not take; empty where it took all.
    """

    outputs: Array
    fully_accelerated: bool
    seconds: float | None
    back_end: str
    device: Device | None
    left_out: str


def check(subject: Subject) -> list[Evidence]:
    """One row where the delegate ran; else the operator list, and a row for drivers that failed.

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
            return [_ran(subject, run, run.device, control, failures)]
        said = "the delegate used another device" if isinstance(run, Run) else run
        failures.append(f"{driver.devices[0]}: {said}")
    rows = [_analysed(subject, found.loader)]
    if failures:
        what = "LiteRT's GPU delegate on this machine's Vulkan drivers"
        rows.insert(0, Evidence(PLATFORM, "not run", what, tools=_tools(), note="; ".join([*failures, _NOT_MALI])))
    return rows


def delegate(model: bytes, inputs: Array, driver: Driver) -> Run | str:
    """Runs the delegate on one driver's device, or says in its words why that failed.

    Args:
        inputs: int8 (n, height, width, 3); the model is prepared even for none.
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
            # A crash or a hang says more than what was complained of on the way there.
            return (done.returncode > 0 and "; ".join(_complaints(log))[:_WORDS]) or reason(done)
        return _read(json.loads(Path(job["report"]).read_text(encoding="utf-8")), np.load(job["outputs"]), log, driver)


_FILES = {"model": "model.tflite", "inputs": "inputs.npy", "outputs": "outputs.npy", "report": "report.json"}


def control_model(model: bytes) -> bytes:
    """The negative control: the same model but for one option of one operator, SOFTMAX's beta, which has to be 1.

    The CPU runs it, and the delegate has to leave that one operator to it.
    """
    tree = parse(model)
    options = [one.builtinOptions for one in tree.subgraphs[0].operators if hasattr(one.builtinOptions, "beta")]
    options[-1].beta = 2.0
    return pack(tree)


def _read(report: dict[str, Any], outputs: Array, log: list[str], driver: Driver) -> Run:
    libraries = report["libraries"]
    # A library's version may stand behind its name in one place and not in the other.
    loaded = any(name.split(".so")[0] == driver.library.split(".so")[0] for name in libraries)
    chosen = next((match[1] for line in log if (match := _ADAPTER.search(line))), driver.devices[0].name)
    device = next((one for one in driver.devices if one.name == chosen), None)
    return Run(
        outputs=outputs,
        fully_accelerated=report["fully_accelerated"],
        seconds=median(report["seconds"]) if report["seconds"] else None,
        back_end=" and ".join(filter(_BACK_END.fullmatch, libraries)),
        device=device if loaded else None,
        left_out=" ".join(_left_out(log)),
    )


def _left_out(log: list[str]) -> list[str]:
    """The lines from `Following operations are not supported` to the count of those that run on the CPU."""
    start = next((number for number, line in enumerate(log) if "operations are not supported" in line), len(log))
    end = next((number for number, line in enumerate(log) if "operations will run on the CPU" in line), start)
    return log[start + 1 : end + 1]


def _complaints(log: list[str]) -> list[str]:
    """What the delegate and the library below it complain of, without the places in their sources."""
    return [_LOG_PLACE.sub("", line) for line in log if _LOG_PLACE.match(line)]


def _ran(subject: Subject, run: Run, device: Device, control: Run | str, failures: list[str]) -> Evidence:
    count = len(read_model(subject.model).operators)
    # Without the control "fully accelerated" could be said of anything.
    sound = isinstance(control, Run) and not control.fully_accelerated
    full = run.fully_accelerated and sound
    agreement = same_class(run.outputs, subject.expected)
    least = min(_BEYOND_CHANCE, agreement.n // 10)
    difference = int(np.abs(run.outputs.astype(int) - subject.expected.astype(int)).max())
    notes = [
        f"fully accelerated: all {count} operators"
        if run.fully_accelerated
        else f"not fully accelerated: {run.left_out}",
        "the control, with one option that the delegate lacks, was not"
        if sound
        else f"the control failed, so that `fully accelerated` says nothing: {_control_fault(control)}",
        f"scores at most {difference} of 255 apart",
        *_words_on_classes(subject, agreement),
        f"back end {run.back_end} over Vulkan, as loaded",
        "Arm's own driver for Mali was used" if device.mali else _NOT_MALI,
        *failures,
    ]
    return Evidence(
        PLATFORM,
        "ran" if full else "analysed",
        "LiteRT's GPU delegate",
        device=str(device),
        tools=_tools(),
        agreement=close(run.outputs, subject.expected) if subject.trained else None,
        pictures=agreement.n,
        seconds=run.seconds,
        note="; ".join(notes),
        fault="" if subject.trained or agreement.hits >= least else f"{agreement}, as by chance",
    )


def _words_on_classes(subject: Subject, agreement: Agreement) -> Iterator[str]:
    """Where not all classes are the same: how many are, and how many the CPU's own fast kernels leave the same."""
    if agreement.hits < agreement.n:
        runner = Runner(subject.model, "xnnpack")
        outputs = np.concatenate([runner.run(value[np.newaxis])[0] for value in subject.inputs])
        claim = "" if subject.trained else " (not claimed of untrained weights)"
        yield f"{agreement}{claim}, and of XNNPACK's kernels on the CPU {same_class(outputs, subject.expected)}"


def _control_fault(control: Run | str) -> str:
    return control if isinstance(control, str) else "it was fully accelerated too"


def _analysed(subject: Subject, loader: bool) -> Evidence:
    view = read_model(subject.model)
    faults = unsupported(view)
    # An operator that the list has not, in the place of the last one, has to be found there and nowhere else.
    swapped = dataclasses.replace(view.operators[-1], name="LOG_SOFTMAX", options={})
    control = set(unsupported(dataclasses.replace(view, operators=(*view.operators[:-1], swapped)))) - set(faults)
    found = control == {f"operator {len(view.operators) - 1} LOG_SOFTMAX: not on the list"}
    names = ", ".join(sorted({operator.name for operator in view.operators}))
    notes = [
        f"{len(faults)} of {len(view.operators)} operators outside the documented support: {faults[0]}"
        if faults
        else f"all {len(view.operators)} operators, with types and options, are in the documented support: {names}",
        "the control, an operator that the list has not, was found" if found else "the control was not found",
        "nothing ran on a GPU",
        _NOT_MALI,
    ]
    return Evidence(
        PLATFORM,
        "analysed" if found and not faults else "not run",
        "operators against the documented support of LiteRT's GPU delegate",
        note="; ".join(notes),
        missing=f"{'a Vulkan device' if loader else 'the Vulkan loader libvulkan.so.1'} ({PACKAGES})",
    )


def _tools() -> tuple[str, ...]:
    return (f"LiteRT {version('ai-edge-litert')}",)

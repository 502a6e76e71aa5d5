"""Evidence for Cortex-A: LiteRT and Arm NN, as AArch64 code if this machine can run it.

For: comparing the outputs of several kernels with those of the reference kernels. AArch64 code runs on an AArch64
machine, or under `qemu-aarch64` after `make aarch64`; other code is no evidence for Cortex-A and has the status
`analyzed`. Not for: speed, as an emulator's run time says nothing about a device.
"""

from __future__ import annotations

import functools
import platform
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.platforms import aarch64, armnn
from pipeline.platforms.aarch64 import CPUS, EMULATOR, EMULATOR_PACKAGE, Cpu, Sysroot
from pipeline.platforms.evidence import Evidence, Status, Subject, bit_exact, close, same_class
from pipeline.platforms.jobs import JobResult, PythonHost, Runtime, run_job
from recreate_model.support.arrays import Array
from recreate_model.support.errors import ToolError

_ROW = functools.partial(Evidence, "Cortex-A")
_ARMNN_PICTURES = 10  # at most; the plain C++ back end takes seconds for each


def check(subject: Subject, cache: Path) -> list[Evidence]:
    """Evidence for each runtime and CPU; a row with `missing` for each that cannot run here.

    Args:
        cache: the download cache folder, where `make aarch64` keeps its root.

    Raises:
        ToolError: an installed tool failed.
    """
    host_result = run_job(_this_python(), "litert", ("reference", "xnnpack"), subject)
    rows = [] if aarch64.native() else _emulated(subject, cache, host_result)
    return [*rows, *_on_this_machine(subject, host_result), _armnn_here(subject)]


def check_reference(subject: Subject, cache: Path) -> list[Evidence]:
    """Evidence for the reference kernels only, on this machine and as AArch64 code.

    Args:
        cache: as for `check`.

    Raises:
        ToolError: an installed tool failed.
    """
    host_result = run_job(_this_python(), "litert", ("reference",), subject)
    agreement = bit_exact(host_result.outputs["reference"], subject.expected)
    host_row = _ROW(
        _status(),
        "LiteRT's reference kernels",
        device=_device(),
        tools=host_result.versions,
        agreement=agreement,
        pictures=agreement.n,
        seconds=host_result.seconds["reference"],
        note=_host_code_note(),
    )
    emulator, root = aarch64.emulator(), aarch64.find(cache)
    if aarch64.native() or emulator is None or root is None:
        what = "LiteRT's reference kernels as AArch64 code"
        missing = f"{EMULATOR} and the AArch64 root: `apt-get install {EMULATOR_PACKAGE}`, then `make aarch64`"
        return [host_row] if aarch64.native() else [_ROW("not run", what, missing=missing), host_row]
    cpu = next(cpu for cpu in CPUS if aarch64.emulates(emulator, cpu))
    emulated = _run_emulated(root, emulator, cpu, "litert", ("reference",), subject)
    return [_emulated_row("reference", subject, emulated, host_result, _tools(emulated, root, emulator), cpu), host_row]


def _this_python() -> PythonHost:
    return PythonHost("this machine", (sys.executable, "-I"), "install the packages of requirements/runtime.lock again")


def _on_this_machine(subject: Subject, ran: JobResult) -> list[Evidence]:
    reference = _ROW(
        _status(),
        "LiteRT's reference kernels in a process of their own",
        device=_device(),
        tools=ran.versions,
        agreement=bit_exact(ran.outputs["reference"], subject.expected),
        pictures=len(subject.expected),
        seconds=ran.seconds["reference"],
        note=_joined(
            _host_code_note(),
            "the same kernels produced the expected output on this machine, so this shows only repeatability",
        ),
    )
    outputs = ran.outputs["xnnpack"]
    xnnpack = _ROW(
        _status(),
        "LiteRT with XNNPACK",
        device=_device(),
        tools=ran.versions,
        agreement=close(outputs, subject.expected) if subject.trained else None,
        pictures=len(outputs),
        seconds=ran.seconds["xnnpack"],
        note=_joined(_host_code_note(), _untrained_note(subject, outputs)),
    )
    return [reference, xnnpack]


def _emulated(subject: Subject, cache: Path, host_result: JobResult) -> list[Evidence]:
    what = "LiteRT as AArch64 code"
    emulator = aarch64.emulator()
    if emulator is None:
        return [_ROW("not run", what, missing=f"{EMULATOR}: `apt-get install {EMULATOR_PACKAGE}`, then `make aarch64`")]
    root = aarch64.find(cache)
    if root is None:
        return [_ROW("not run", what, missing="the AArch64 root: `make aarch64`")]
    cpus = [cpu for cpu in CPUS if aarch64.emulates(emulator, cpu)]
    rows = []
    for cpu in cpus:
        # The reference kernels are plain C++, the same code on every AArch64 CPU.
        kernels = ("reference", "xnnpack") if cpu == cpus[0] else ("xnnpack",)
        ran = _run_emulated(root, emulator, cpu, "litert", kernels, subject)
        tools = _tools(ran, root, emulator)
        rows += [_emulated_row(name, subject, ran, host_result, tools, cpu) for name in kernels]
    rows += [
        _ROW("not run", f"LiteRT with XNNPACK as AArch64 code on {cpu.name}", missing=f"an {EMULATOR} that has it")
        for cpu in CPUS
        if cpu not in cpus
    ]
    return [*rows, _armnn_emulated(subject, root, emulator, cpus[-1])]


def _emulated_row(
    kernels: str, subject: Subject, ran: JobResult, host_result: JobResult, tools: tuple[str, ...], cpu: Cpu
) -> Evidence:
    outputs = ran.outputs[kernels]
    row = functools.partial(
        _ROW,
        "ran",
        device=_emulated_device(cpu),
        tools=tools,
        pictures=len(outputs),
        seconds=ran.seconds[kernels],
    )
    timing = "seconds are the emulator's"
    if kernels == "reference":
        agreement = bit_exact(outputs, subject.expected)
        return row("LiteRT's reference kernels as AArch64 code", agreement=agreement, note=timing)
    others = host_result.outputs["xnnpack"]
    difference = int(np.max(np.abs(outputs.astype(int) - others.astype(int))))
    near = (
        f"its outputs are {f'at most {difference} from' if difference else 'equal to'} those of XNNPACK on this machine"
    )
    what = "LiteRT with XNNPACK as AArch64 code"
    if subject.trained:
        return row(what, agreement=close(outputs, subject.expected), note=_joined(timing, near))
    # With untrained weights, the only claim is that XNNPACK gives close outputs on both.
    agreement = close(outputs, others)
    return row(
        f"{what}, compared with XNNPACK on this machine",
        agreement=agreement,
        note=_joined(timing, near, _untrained_note(subject, outputs)),
    )


def _armnn_emulated(subject: Subject, root: Sysroot, emulator: Path, cpu: Cpu) -> Evidence:
    what = "Arm NN's parser and its NEON kernels (CpuAcc) as AArch64 code"
    if not root.has_armnn:
        return _ROW("not run", what, missing="a distribution with Arm NN, such as Debian 12, then `make aarch64`")
    ran = _run_emulated(root, emulator, cpu, "armnn", ("CpuAcc",), subject)
    tools = (f"Arm NN {root.packages['python3-pyarmnn']}", *_tools(ran, root, emulator))
    return _armnn_row("ran", what, _emulated_device(cpu), tools, subject, ran, "CpuAcc", "seconds are the emulator's")


def _armnn_here(subject: Subject) -> Evidence:
    found = armnn.find()
    if found is None:
        missing = f"Arm NN for the system's Python: `apt-get install {armnn.PACKAGES}` (Debian 12)"
        return _ROW("not run", "Arm NN's parser and its plain C++ kernels (CpuRef)", missing=missing)
    python, backend = found
    kind = {"CpuAcc": "NEON", "CpuRef": "plain C++"}[backend]
    few = replace(subject, inputs=subject.inputs[:_ARMNN_PICTURES], expected=subject.expected[:_ARMNN_PICTURES])
    host = PythonHost("the system's Python", (python, "-I"), f"`apt-get install --reinstall {armnn.PACKAGES}`")
    ran = run_job(host, "armnn", (backend,), few)
    what = f"Arm NN's parser and its {kind} kernels ({backend})"
    return _armnn_row(_status(), what, _device(), ran.versions, few, ran, backend, _host_code_note())


def _armnn_row(
    status: Status,
    what: str,
    device: str,
    tools: tuple[str, ...],
    subject: Subject,
    ran: JobResult,
    backend: str,
    remark: str,
) -> Evidence:
    outputs = ran.outputs[backend]
    return _ROW(
        status,
        what,
        device=device,
        tools=tools,
        agreement=close(outputs, subject.expected) if subject.trained else None,
        pictures=len(outputs),
        seconds=ran.seconds[backend],
        note=_joined("a second opinion", remark, _untrained_note(subject, outputs)),
    )


def _run_emulated(
    root: Sysroot, emulator: Path, cpu: Cpu, runtime: Runtime, kernels: tuple[str, ...], subject: Subject
) -> JobResult:
    remedy = f"`make aarch64` again, or another version of {EMULATOR}"
    host = PythonHost(f"an emulated {cpu.name}", root.command(emulator, cpu), remedy, (root.site,))
    ran = run_job(host, runtime, kernels, subject)
    if ran.machine != "aarch64":
        raise ToolError(expected=f"{host.name} to be an aarch64", found=ran.machine, next_step=remedy)
    return ran


def _tools(ran: JobResult, root: Sysroot, emulator: Path) -> tuple[str, ...]:
    libraries = (f"{name} {root.packages[name]}" for name in ("libc6", "libstdc++6"))
    return (*ran.versions, *libraries, aarch64.emulator_version(emulator))


def _emulated_device(cpu: Cpu) -> str:
    return f"{EMULATOR}, {cpu.name} (emulated)"


def _device() -> str:
    return f"this machine ({platform.machine()})"


def _status() -> Status:
    """The status of evidence from code of this machine."""
    return "ran" if aarch64.native() else "analyzed"


def _host_code_note() -> str:
    """A note that no AArch64 code ran; empty on an AArch64 machine."""
    return "" if aarch64.native() else f"{platform.machine()} code: nothing of a Cortex-A ran"


def _untrained_note(subject: Subject, outputs: Array) -> str:
    """A note that the classes are not claimed; empty for a trained network."""
    if subject.trained:
        return ""
    found = same_class(outputs, subject.expected)
    return (
        f"untrained weights: the top class depends on rounding, so that of the reference kernels is not claimed; "
        f"{found.hits} of {found.n} have it"
    )


def _joined(*remarks: str) -> str:
    return "; ".join(filter(None, remarks))

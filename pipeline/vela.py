"""From the INT8 model to one compiled model per Ethos-U configuration, by the real Vela, with what Vela says of each.

For: compiling, and refusing what Vela lets through. Vela ends with status 0 for a float model (nothing on the NPU,
`nan` inferences per second) and for an Ethos-U85 with the memory system of an Ethos-U55; here both are errors.
Not for: measuring (Vela's figures are estimates), or publishing: the caller gives a temporary folder.

All eleven targets of MobileNetV2 1.0 224 take 5.0 s in one process, and 3.0 s in a pool of two on two cores.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.workers import Workers
from pipeline.vela_targets import check_target
from recreate_model.capture import captured
from recreate_model.digest import Json, digest_bytes
from recreate_model.errors import InputError, ToolError
from recreate_model.model_view import ModelView, Operator, read_model
from recreate_model.recipe import Target

# A command stream begins with this, a word that announces the configuration, and the configuration: the product in
# its top four bits, the logarithm of the multipliers in its lowest four.
_COMMANDS = b"COP1"
_PRODUCTS = {0: "ethos-u55", 1: "ethos-u65", 2: "ethos-u85"}
_CHATTER_SHOWN = 600


@dataclass(frozen=True)
class Variant:
    """A compiled model and what Vela says of it; the figures of speed and memory are Vela's estimates.

    Attributes:
        file: name of the compiled model, in the folder of its target.
        size: of that file, in bytes.
        summary: name of Vela's own summary table beside it: no clock, path or host in it.
        accelerator_config: as Vela echoed it, such as `Ethos_U55_128`.
        config_word: the first command's configuration in the file itself; the driver compares it with the hardware.
        npu_operators: how many operators Vela made for the NPU; it splits some, such as SOFTMAX, into many.
        cpu_operators: names of the operators left to the CPU, in file order; empty when none is.
        npu_share: NPU operators among all, 0..1.
        weights_area: the memory that holds the weights, such as `Off-chip Flash` or `DRAM`.
        sram_kib: SRAM in use at the peak, in KiB; `dram_kib` and `flash_kib` (off-chip and on-chip) likewise.
        arena_cache_kib: the limit Vela planned with, in KiB; the address space where the memory mode sets none.
        core_clock_hz: clock of the NPU that the estimates assume, in Hz.
        inferences_per_second: for the NPU part alone, as is `inference_time_ms`, in milliseconds.
        macs: multiplications with accumulation in one inference.
        cycles: of the NPU's clock in one inference; its kinds, below, overlap and do not add up to it.
    """

    target: Target
    file: str
    size: int
    sha256: str
    sha1: str
    summary: str
    vela_version: str
    accelerator_config: str
    config_word: str
    npu_operators: int
    cpu_operators: tuple[str, ...]
    npu_share: float
    weights_area: str
    sram_kib: float
    dram_kib: float
    flash_kib: float
    arena_cache_kib: float
    core_clock_hz: float
    inferences_per_second: float
    inference_time_ms: float
    macs: int
    cycles: int
    cycles_npu: int
    cycles_sram_access: int
    cycles_dram_access: int
    cycles_on_chip_flash_access: int
    cycles_off_chip_flash_access: int


def compile_all(
    model: bytes,
    name: str,
    targets: Sequence[Target],
    folder: Path,
    workers: Workers = Workers(),  # noqa: B008  # frozen
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[Variant, ...]:
    """Compiles the model for every target into `folder/<accelerator>/`; the results are in the order of the targets.

    Args:
        workers: the processes that compile; by default this one. The folder is for this process alone to see.
        progress: called with 1 for each target that is done.

    Raises:
        InputError, UsageError, ToolError: as `compile_target`; the first failure in the order of the targets.
    """
    _check_model(model, name)
    variants = []
    setup = functools.partial(_Build, model, name)
    enough = dataclasses.replace(workers, jobs=min(workers.jobs, len(targets)))
    for target, (variant, files) in zip(targets, enough.run(setup, _compile, targets), strict=True):
        for file_name, data in files.items():
            path = folder / target.accelerator / file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        variants.append(variant)
        progress(1)
    return tuple(variants)


@dataclass(frozen=True)
class _Build:
    """What every target of a build has in common."""

    model: bytes
    name: str


def _compile(build: _Build, target: Target) -> tuple[Variant, dict[str, bytes]]:
    """The variant and its files, by name, as bytes: a worker may be on another machine."""
    with tempfile.TemporaryDirectory(prefix="recreate_model-") as scratch:
        variant = compile_target(build.model, build.name, target, Path(scratch))
        return variant, {name: (Path(scratch) / name).read_bytes() for name in (variant.file, variant.summary)}


def compile_target(model: bytes, name: str, target: Target, folder: Path) -> Variant:
    """Compiles an INT8 model for one target: `<name>_vela.tflite` and Vela's summary table, both in `folder`.

    The bytes depend on the model, the target and Vela's version alone. Not for threads: stdout and stderr of the whole
    process are captured while Vela runs.

    Args:
        model: bytes of the `.tflite` file.
        name: stem of the files.

    Raises:
        InputError: not an INT8 model. Nothing is written.
        UsageError: a configuration that does not exist. Nothing is written.
        ToolError: Vela failed, left the NPU without work, or compiled for something else. No result is left.
    """
    _check_model(model, name)
    check_target(target)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".vela-", dir=folder) as work:
        source = Path(work) / f"{name}.tflite"
        source.write_bytes(model)
        _run_vela(source, target)
        output = Path(work) / f"{name}_vela.tflite"
        summary = Path(work) / "summary.csv"
        (Path(work) / f"{name}_summary_{target.system_config}.csv").rename(summary)
        with summary.open(newline="") as stream:
            (row,) = csv.DictReader(stream)
        variant = _variant(output.read_bytes(), row, target, file=output.name, summary=summary.name)
        for path in (output, summary):
            path.replace(folder / path.name)
    return variant


def vela_table(variants: Sequence[Variant]) -> list[Json]:
    """The variants as plain JSON, for `vela.json`."""
    return [{**dataclasses.asdict(variant), "cpu_operators": list(variant.cpu_operators)} for variant in variants]


def _check_model(model: bytes, name: str) -> None:
    view = read_model(model, name)
    ends = [view.tensors[index] for index in (*view.inputs, *view.outputs)]
    wrong = [tensor for tensor in ends if tensor.dtype != "int8"]
    wrong += [tensor for tensor in view.tensors if tensor.dtype.startswith("float")]
    if wrong:
        raise InputError(
            expected=f"{name} to be INT8 from its input to its output",
            found=f"{wrong[0].dtype} in tensor {wrong[0].name!r}",
            next_step="give an INT8 model, or build one with `python -m pipeline quantize`",
        )


def _run_vela(source: Path, target: Target) -> None:
    """Runs Vela on `source`; its files appear in the same folder."""
    arguments = [str(source), "--output-dir", str(source.parent), "--config", os.path.join("Arm", "vela.ini")]
    arguments += ["--accelerator-config", target.accelerator, "--system-config", target.system_config]
    arguments += ["--memory-mode", target.memory_mode, "--optimise", target.optimise]
    limit = sys.getrecursionlimit()
    with captured() as printed:
        try:
            from ethosu.vela import vela

            status = vela.main(arguments)
            failure = f"status {status}" if status else ""
        except (Exception, SystemExit) as error:
            # Vela raises its own errors, plain Python's, and SystemExit from its argument parser.
            failure = f"{type(error).__name__}: {error}"
        finally:
            # Vela lowers the recursion limit for the whole process.
            sys.setrecursionlimit(limit)
        chatter = printed()
    if failure:
        raise ToolError(
            expected=f"Vela to compile {source.name} for {target.accelerator}",
            found=f"{failure}; Vela printed: {chatter[-_CHATTER_SHOWN:] or 'nothing'}",
            next_step="give another target with --targets, or report the model to Vela's maintainers",
        )


def _variant(output: bytes, row: dict[str, str], target: Target, *, file: str, summary: str) -> Variant:
    """What the compiled file and Vela's summary (one row, by column name) say, both checked against `target`."""
    from importlib.metadata import version

    view = read_model(output, file)
    # The NPU's operators vanish into custom operators that hold its commands; the others run on the CPU.
    streams = [_npu_commands(view, operator) for operator in view.operators]
    cpu_operators = tuple(op.name for op, stream in zip(view.operators, streams, strict=True) if not stream)
    # Vela counts its passes over both, and hands each operator of the CPU on as one.
    total = int(row["passes_before_fusing"])
    npu_operators = total - len(cpu_operators)
    rate = float(row["inferences_per_second"])
    if npu_operators <= 0 or not any(streams) or not math.isfinite(rate):
        raise _wrong_result(target, "work for the NPU", f"{max(npu_operators, 0)} of {total} operators on it")
    echoed = (row["accelerator_configuration"], row["system_config"], row["memory_mode"])
    asked = (target.accelerator.title().replace("-", "_"), target.system_config, target.memory_mode)
    if echoed != asked:
        raise _wrong_result(target, f"the configuration {asked}", f"{echoed}")
    words = [int.from_bytes(stream[8:12], "little") for stream in streams if stream]
    for word in words:
        accelerator = f"{_PRODUCTS.get(word >> 28, 'unknown')}-{1 << (word & 15)}"
        if accelerator != target.accelerator:
            raise _wrong_result(target, f"commands for {target.accelerator}", f"commands for {accelerator}")
    return Variant(
        target=target,
        file=file,
        size=len(output),
        sha256=digest_bytes(output),
        sha1=digest_bytes(output, "sha1"),
        summary=summary,
        vela_version=version("ethos-u-vela"),
        accelerator_config=row["accelerator_configuration"],
        config_word=f"{words[0]:#x}",
        npu_operators=npu_operators,
        cpu_operators=cpu_operators,
        npu_share=npu_operators / total,
        weights_area=row["weights_storage_area"],
        sram_kib=float(row["sram_memory_used"]),
        dram_kib=float(row["dram_memory_used"]),
        flash_kib=float(row["off_chip_flash_memory_used"]) + float(row["on_chip_flash_memory_used"]),
        arena_cache_kib=float(row["arena_cache_size"]),
        core_clock_hz=float(row["core_clock"]),
        inferences_per_second=rate,
        inference_time_ms=float(row["inference_time"]) * 1e3,
        macs=int(row["nn_macs"]),
        cycles=int(row["cycles_total"]),
        cycles_npu=int(row["cycles_npu"]),
        cycles_sram_access=int(row["cycles_sram_access"]),
        cycles_dram_access=int(row["cycles_dram_access"]),
        cycles_on_chip_flash_access=int(row["cycles_on_chip_flash_access"]),
        cycles_off_chip_flash_access=int(row["cycles_off_chip_flash_access"]),
    )


def _npu_commands(view: ModelView, operator: Operator) -> bytes:
    """The command stream of an NPU operator, as the driver reads it; empty for an operator of the CPU."""
    if operator.name != "CUSTOM" or not operator.inputs:
        return b""
    data = view.tensors[operator.inputs[0]].data
    return data if data.startswith(_COMMANDS) else b""


def _wrong_result(target: Target, expected: str, found: str) -> ToolError:
    return ToolError(
        expected=f"Vela's result for {target.accelerator} to hold {expected}",
        found=found,
        done="the result was thrown away",
        next_step="give another target with --targets, or report the model to Vela's maintainers",
    )

"""What a file that Vela made holds and what Vela says of it, both checked against the target it was made for.

For: refusing what Vela lets through, and the figures. Not for: running Vela (`vela`). The figures are its estimates.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass

from pipeline.ethos_u.config import MODE, PACKAGED, SYSTEM, VelaConfig
from recreate_model.recipe import Target
from recreate_model.support.digest import Json, digest_bytes
from recreate_model.support.errors import ToolError
from recreate_model.tflite.model_view import ModelView, Operator, read_model

CUSTOM_CONFIG = "custom.ini"  # the user's configuration file, beside the folders of the variants

# A command stream begins with this, a word that announces the configuration, and the configuration. The driver
# compares the latter with the hardware, whole: product in the top four bits, logarithm of the multipliers in the lowest
# four, between them the version of the commands (0 or 1), then on U55 and U65 the internal memory in KiB, on U85 its
# ports. A memory system or an optimisation changes nothing in it.
_COMMANDS = b"COP1"
_CONFIG_WORDS = {
    "ethos-u55-32": 0x00001005,
    "ethos-u55-64": 0x00001006,
    "ethos-u55-128": 0x00001807,
    "ethos-u55-256": 0x00003008,
    "ethos-u65-256": 0x10003008,
    "ethos-u65-512": 0x10006009,
    "ethos-u85-128": 0x20000117,
    "ethos-u85-256": 0x20000118,
    "ethos-u85-512": 0x20001119,
    "ethos-u85-1024": 0x2000251A,
    "ethos-u85-2048": 0x2000261B,
}


@dataclass(frozen=True)
class Variant:
    """A compiled model and what Vela says of it; the figures of speed and memory are Vela's estimates.

    Attributes:
        file: name of the compiled model, in the folder of its target.
        size: of that file, in bytes.
        summary: name of Vela's own summary table beside it: no clock, path or host in it.
        per_layer: name of its table of operators, likewise.
        config: name of the file that says with which configuration the model was compiled.
        accelerator_config: as Vela echoed it, such as `Ethos_U55_128`.
        config_word: the first command's configuration in the file itself; the driver compares it with the hardware.
        npu_operators: how many operators Vela made for the NPU; it splits some, such as SOFTMAX, into many.
        cpu_operators: names of the operators left to the CPU, in file order; empty when none is.
        npu_share: NPU operators among all, 0..1.
        weights_area: the memory that holds the weights, such as `Off-chip Flash` or `DRAM`.
        sram_kib: SRAM in use at the peak, in KiB; `dram_kib` and `flash_kib` (off-chip and on-chip) likewise.
        sram_needed_kib: SRAM that must be there, in KiB: that in use, and the weights where the memory mode keeps them
            in SRAM, too. Vela counts those as on-chip flash.
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
    per_layer: str
    config: str
    vela_version: str
    accelerator_config: str
    config_word: str
    npu_operators: int
    cpu_operators: tuple[str, ...]
    npu_share: float
    weights_area: str
    sram_kib: float
    sram_needed_kib: float
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

    @property
    def flash_needed_kib(self) -> float:
        """Flash that must be there, in KiB: without the weights that are in SRAM."""
        return self.flash_kib - (self.sram_needed_kib - self.sram_kib)


def checked_variant(output: bytes, row: dict[str, str], target: Target, config: VelaConfig, file: str) -> Variant:
    """What the compiled file and Vela's summary say.

    Args:
        output: the compiled file's bytes.
        row: the summary's only row, by the names of its columns.
        config: the configuration file that has the target's sections.
        file: name of the compiled file.

    Raises:
        ToolError: nothing runs on the NPU, or the file or the summary is for another configuration.
    """
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
        left = f"; left to the CPU: {', '.join(sorted(set(cpu_operators)))}" if cpu_operators else ""
        raise wrong_result(target, "work for the NPU", f"{max(npu_operators, 0)} of {total} operators on it{left}")
    echoed = (row["accelerator_configuration"], row["system_config"], row["memory_mode"])
    asked = (target.accelerator.title().replace("-", "_"), target.system_config, target.memory_mode)
    if echoed != asked:
        raise wrong_result(target, f"the configuration {asked}", f"{echoed}")
    words = [int.from_bytes(stream[8:12], "little") for stream in streams if stream]
    for word in words:
        if word != _CONFIG_WORDS[target.accelerator]:
            meant = next((name for name, known in _CONFIG_WORDS.items() if known == word), "no accelerator known here")
            raise wrong_result(
                target,
                f"commands for {target.accelerator} ({_CONFIG_WORDS[target.accelerator]:#010x})",
                f"commands for {meant} ({word:#010x})",
            )
    sram, on_chip = float(row["sram_memory_used"]), float(row["on_chip_flash_memory_used"])
    weights_in_sram = config.memories(target)["const_mem_area"] == "Sram"
    return Variant(
        target=target,
        file=file,
        size=len(output),
        sha256=digest_bytes(output),
        sha1=digest_bytes(output, "sha1"),
        summary="summary.csv",
        per_layer="per_layer.csv",
        config="config.json",
        vela_version=version("ethos-u-vela"),
        accelerator_config=row["accelerator_configuration"],
        config_word=f"{words[0]:#x}",
        npu_operators=npu_operators,
        cpu_operators=cpu_operators,
        npu_share=npu_operators / total,
        weights_area=row["weights_storage_area"],
        sram_kib=sram,
        sram_needed_kib=sram + (on_chip if weights_in_sram else 0),
        dram_kib=float(row["dram_memory_used"]),
        flash_kib=float(row["off_chip_flash_memory_used"]) + on_chip,
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


def options(target: Target, config_file: str) -> list[str]:
    """What `vela` is given beside the model; these and Vela's version decide the bytes."""
    return [
        *("--config", config_file),
        *("--accelerator-config", target.accelerator),
        *("--system-config", target.system_config),
        *("--memory-mode", target.memory_mode),
        *("--optimise", target.optimise),
    ]


def configuration(variant: Variant, row: dict[str, str], config: VelaConfig) -> Json:
    """The exact configuration of a variant, for its `config.json`: every value of it, and the options that give it.

    Args:
        row: as for `checked_variant`; what Vela made of the configuration is from there.
    """
    target = variant.target
    memories = config.memories(target)
    config_file = CUSTOM_CONFIG if target.config_sha256 else PACKAGED
    return {
        "accelerator": target.accelerator,
        "optimise": target.optimise,
        "vela": variant.vela_version,
        "config_word": variant.config_word,
        "config_file": {"name": config_file, "sha256": config.sha256},
        "system_config": {"name": target.system_config, **config.values(SYSTEM, target.system_config)},
        "memory_mode": {"name": target.memory_mode, **config.values(MODE, target.memory_mode)},
        "memories": {area.removesuffix("_mem_area"): memory for area, memory in memories.items()},
        "as_vela_read_it": {
            "core_clock_hz": variant.core_clock_hz,
            "arena_cache_kib": variant.arena_cache_kib,
            "weights_area": row["weights_storage_area"],
            "feature_map_area": row["feature_map_storage_area"],
            # 2 ** 30 bytes in a second.
            "peak_gib_per_s": {
                name: float(row[f"{name}_bandwidth"]) for name in ("sram", "dram", "on_chip_flash", "off_chip_flash")
            },
        },
        "options": options(target, config_file),
    }


def layers(table: str) -> str:
    """Vela's table of operators as CSV that any reader takes: Vela quotes nothing, whatever stands in a name.

    The name is the last column, and what follows a line of too few columns belongs to it.
    """
    head, *lines = table.rstrip("\n").split("\n")
    columns = head.split(",")
    rows: list[list[str]] = []
    for line in lines:
        cells = line.split(",", len(columns) - 1)
        if len(cells) == len(columns):
            rows.append(cells)
        elif rows:
            rows[-1][-1] += f"\n{line}"
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def _npu_commands(view: ModelView, operator: Operator) -> bytes:
    """The command stream of an NPU operator, as the driver reads it; empty for an operator of the CPU."""
    if operator.name != "CUSTOM" or not operator.inputs:
        return b""
    data = view.tensors[operator.inputs[0]].data
    return data if data.startswith(_COMMANDS) else b""


def wrong_result(target: Target, expected: str, found: str) -> ToolError:
    """The error for a result that is not what was asked for."""
    return ToolError(
        expected=f"Vela's result for {target.accelerator} to hold {expected}",
        found=found,
        done="the result was thrown away",
        next_step="give another target with --targets, or report the model to Vela's maintainers",
    )

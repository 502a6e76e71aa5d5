"""Checks a model that Vela compiled, and Vela's report, against the target; collects the figures of both.

For: errors that Vela does not report itself, and the figures, which are Vela's estimates. Not for: running Vela
(`vela`).
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

CUSTOM_CONFIG = "custom.ini"  # the user's configuration file, next to the folders of the variants

# A command stream starts with this magic number, a word that tags the configuration, and the configuration word, which
# the driver compares with the hardware. Its fields: the product in the top four bits, the base-2 logarithm of the MACs
# in the lowest four, and between them the version of the command stream (0 or 1) and the internal memory in KiB (U55
# and U65) or the ports (U85). It does not depend on the memory system or the optimization.
_MAGIC = b"COP1"
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
    """A compiled model with Vela's figures for it; those of speed and memory are estimates.

    Attributes:
        file: name of the compiled model, in the folder of its target.
        size: of that file, in bytes.
        summary: name of Vela's summary table, in the same folder; it contains no time, path or host name.
        per_layer: name of Vela's table of operators, in the same folder.
        config: name of the file with the configuration that the model was compiled for.
        accelerator_config: as Vela reports it, such as `Ethos_U55_128`.
        config_word: the configuration word of the command stream; the driver compares it with the hardware.
        npu_operators: number of operators on the NPU; Vela splits some, such as SOFTMAX, into many.
        cpu_operators: names of the operators on the CPU, in file order.
        npu_share: fraction of the operators that are on the NPU, 0 to 1.
        weights_area: the memory that holds the weights, such as `Off-chip Flash` or `DRAM`.
        sram_kib, dram_kib, flash_kib: peak use of each memory, in KiB; flash is off-chip and on-chip together.
        sram_needed_kib: SRAM that the system must have, in KiB: the peak, and the weights if the memory mode keeps
            them in SRAM. Vela counts those as on-chip flash.
        arena_cache_kib: the limit that Vela planned with, in KiB; the address space if the memory mode sets no limit.
        core_clock_hz: clock of the NPU that the estimates assume, in Hz.
        inferences_per_second, inference_time_ms: for the operators on the NPU only; the time is in milliseconds.
        macs: multiply-accumulate operations of one inference.
        cycles: NPU clock cycles of one inference. The kinds of cycles overlap, so they do not add up to it.
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
        """Flash that the system must have, in KiB, without weights that are kept in SRAM."""
        return self.flash_kib - (self.sram_needed_kib - self.sram_kib)


def checked_variant(output: bytes, row: dict[str, str], target: Target, config: VelaConfig, file: str) -> Variant:
    """The figures of a compiled model and of Vela's summary, checked against the target.

    Args:
        output: bytes of the compiled model.
        row: the only row of the summary, by column name.
        config: the configuration file with the target's sections.
        file: name of the compiled model.

    Raises:
        ToolError: no operator runs on the NPU, or the model or the summary is for another configuration.
    """
    from importlib.metadata import version

    view = read_model(output, file)
    # Custom operators hold the command streams of the NPU; all other operators run on the CPU.
    streams = [_npu_commands(view, operator) for operator in view.operators]
    cpu_operators = tuple(op.name for op, stream in zip(view.operators, streams, strict=True) if not stream)
    # Vela counts passes: one for each CPU operator, and at least one for each NPU operator.
    total = int(row["passes_before_fusing"])
    npu_operators = total - len(cpu_operators)
    rate = float(row["inferences_per_second"])
    if npu_operators <= 0 or not any(streams) or not math.isfinite(rate):
        left = f"; left to the CPU: {', '.join(sorted(set(cpu_operators)))}" if cpu_operators else ""
        raise wrong_result(target, "work for the NPU", f"{max(npu_operators, 0)} of {total} operators on it{left}")
    reported = (row["accelerator_configuration"], row["system_config"], row["memory_mode"])
    expected = (target.accelerator.title().replace("-", "_"), target.system_config, target.memory_mode)
    if reported != expected:
        raise wrong_result(target, f"the configuration {expected}", f"{reported}")
    words = [int.from_bytes(stream[8:12], "little") for stream in streams if stream]
    for word in words:
        if word != _CONFIG_WORDS[target.accelerator]:
            actual = next((name for name, known in _CONFIG_WORDS.items() if known == word), "an unknown accelerator")
            raise wrong_result(
                target,
                f"commands for {target.accelerator} ({_CONFIG_WORDS[target.accelerator]:#010x})",
                f"commands for {actual} ({word:#010x})",
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
    """The options of `vela`; together with the model and Vela's version they determine the output."""
    return [
        *("--config", config_file),
        *("--accelerator-config", target.accelerator),
        *("--system-config", target.system_config),
        *("--memory-mode", target.memory_mode),
        *("--optimise", target.optimize.value),
    ]


def configuration(variant: Variant, row: dict[str, str], config: VelaConfig) -> Json:
    """The exact configuration of a variant as plain JSON, for its `config.json`: all values, and the options of `vela`.

    Args:
        row: the row of Vela's summary, with the values as Vela read them.
        config: the configuration file with the target's sections.
    """
    target = variant.target
    memories = config.memories(target)
    config_file = CUSTOM_CONFIG if target.config_sha256 else PACKAGED
    return {
        "accelerator": target.accelerator,
        "optimise": target.optimize.value,
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
            # In units of 2 ** 30 bytes per second.
            "peak_gib_per_s": {
                name: float(row[f"{name}_bandwidth"]) for name in ("sram", "dram", "on_chip_flash", "off_chip_flash")
            },
        },
        "options": options(target, config_file),
    }


def layers(table: str) -> str:
    """Vela's table of operators as valid CSV; Vela does not quote names.

    The name is the last column. A line with too few columns continues the name of the previous line.
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
    """The command stream of an NPU operator, as the driver reads it; empty for a CPU operator."""
    if operator.name != "CUSTOM" or not operator.inputs:
        return b""
    data = view.tensors[operator.inputs[0]].data
    return data if data.startswith(_MAGIC) else b""


def wrong_result(target: Target, expected: str, found: str) -> ToolError:
    """The error for a result of Vela that does not match the target."""
    return ToolError(
        expected=f"Vela's result for {target.accelerator} to hold {expected}",
        found=found,
        done="the result was discarded",
        next_step="give another target with --targets, or report the model to Vela's maintainers",
    )

"""Writes `variants.md`, the table of all Ethos-U variants of a build."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.ethos_u.targets import variant_name
from pipeline.ethos_u.variant import Variant

_TEXT = """\
# {build} on Ethos-U

Estimates of Vela {vela}: no NPU ran. Inferences per second are for the part on the NPU.

![Inferences per second against SRAM]({plot})

| Variant | Optimized for | System config | Memory mode | SRAM KiB | DRAM KiB | Flash KiB | Inferences/s | ms | \
On the NPU |
|---|---|---|---|--:|--:|--:|--:|--:|--:|
{rows}

SRAM is the peak, without what the runtime itself needs. If the memory mode keeps the weights in SRAM too, they are
included; Vela calls that on-chip flash. `python -m pipeline vela --sram KIB` finds the memory modes that fit.
"""


def markdown(build: str, variants: Sequence[Variant], plot: str) -> str:
    """The table as Markdown: one row for each variant, in the given order, with a link to its folder.

    Args:
        build: name of the build.
        plot: file name of the plot that is shown above the table.
    """
    return _TEXT.format(
        build=build, vela=variants[0].vela_version, plot=plot, rows="\n".join(_row(variant) for variant in variants)
    )


def _row(variant: Variant) -> str:
    target, name = variant.target, variant_name(variant.target)
    cells = (
        f"[{name}]({name}/)",
        target.optimize.word,
        target.system_config,
        target.memory_mode,
        *(f"{kib:,.0f}" for kib in (variant.sram_needed_kib, variant.dram_kib, variant.flash_needed_kib)),
        f"{variant.inferences_per_second:,.1f}",
        f"{variant.inference_time_ms:,.2f}",
        f"{variant.npu_operators} of {variant.npu_operators + len(variant.cpu_operators)}",
    )
    return f"| {' | '.join(cells)} |"

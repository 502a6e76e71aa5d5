"""What `vela --sram` says: the plans of each accelerator, and the options that build the fastest that fits."""

from __future__ import annotations

import shlex

from pipeline.console import Block, Verbatim, is_wide
from recreate_model.support.digest import Json

_COLUMNS = ("memory mode", "for", "SRAM KiB>", "DRAM KiB>", "inferences/s>", "fits")


def blocks(found: Json) -> list[Block]:
    """The plans of each accelerator, then the fastest of each that fits and the options that build it."""
    output: list[Block] = [f"{found['build']} in {found['sram_kib']:,} KiB of SRAM"]
    plans = {row["accelerator"]: [_row(plan) for plan in row["plans"]] for row in found["accelerators"]}
    if is_wide():
        rows = [(accelerator, *row) for accelerator, table in plans.items() for row in table]
        output.append(("", ("target", *_COLUMNS), rows))
    else:
        output += [(accelerator, _COLUMNS, table) for accelerator, table in plans.items()]
    for row in found["accelerators"]:
        plan = row["recommended"]
        if plan is None:
            output.append(f"{row['accelerator']}: nothing fits")
        else:
            rate = f"{plan['inferences_per_second']:,.1f} inferences/s"
            output.append(f"{row['accelerator']}: {plan['memory_mode']} for {plan['optimize']}, {rate}:")
            output.append(Verbatim(f"  {shlex.join(plan['options'])}"))
    output.append(
        f"These are estimates of Vela {found['vela']}, without the SRAM that the runtime itself needs. Weights count "
        "where the memory mode keeps them in SRAM, too."
    )
    return output


def _row(plan: Json) -> tuple[str, ...]:
    return (
        plan["memory_mode"],
        plan["optimize"],
        f"{plan['sram_needed_kib']:,.1f}",
        f"{plan['dram_kib']:,.0f}",
        f"{plan['inferences_per_second']:,.1f}",
        "yes" if plan["fits"] else f"over by {plan['over_by_kib']:,.1f}",
    )

"""Which memory mode fits a given SRAM: every mode of a memory system compiled, with what Vela says it uses.

For: `vela --sram`. A plan is one way to run the model: a memory mode, planned for speed or for size. Not for: building
the variant that fits; the command that does is part of what is said.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from calibration.parallel.workers import Workers
from pipeline.ethos_u.config import MODE, VelaConfig
from pipeline.ethos_u.report import OPTIMISED
from pipeline.ethos_u.targets import check_target, config_of
from pipeline.ethos_u.variant import Variant
from pipeline.ethos_u.vela import compile_all
from recreate_model.recipe import Target
from recreate_model.support.digest import Json
from recreate_model.support.errors import InputError, UsageError


def candidates(targets: Sequence[Target], custom: VelaConfig | None) -> tuple[Target, ...]:
    """The same accelerators, systems and optimisations in every memory mode that can work on them."""
    found = []
    for target in targets:
        for mode in config_of(target, custom).names(MODE):
            candidate = replace(target, memory_mode=mode)
            try:
                check_target(candidate, custom)
            except UsageError:
                # Such as an arena in flash: this system has no memory for it.
                continue
            found.append(candidate)
    return tuple(found)


def plans(
    model: bytes,
    name: str,
    targets: Sequence[Target],
    workers: Workers,
    progress: Callable[[int], None],
    custom: VelaConfig | None,
) -> tuple[Variant, ...]:
    """All candidates compiled, of which the files are thrown away. Raises as `compile_all`."""
    with tempfile.TemporaryDirectory(prefix="recreate_model-") as scratch:
        return compile_all(model, name, targets, Path(scratch), workers, progress, custom)


def document(name: str, variants: Sequence[Variant], sram_kib: int, config_path: Path | None) -> Json:
    """What fits, for each accelerator, as plain JSON.

    Args:
        config_path: where the user's configuration file is, for the command that builds.

    Raises:
        InputError: nothing fits on any accelerator.
    """
    fastest = max((plan for plan in variants if _fits(plan, sram_kib)), key=_speed, default=None)
    if fastest is None:
        least = min(variants, key=_need)
        target = least.target
        raise InputError(
            expected=f"a plan of {name} that needs no more than {sram_kib:,} KiB of SRAM",
            found=f"none of {len(variants)}, by Vela's estimates; the smallest is {target.accelerator} in "
            f"{target.memory_mode} for {OPTIMISED[target.optimise]}, with {least.sram_needed_kib:,.1f} KiB",
            done="the INT8 model is kept, and no variant was made",
            next_step=f"give --sram {math.ceil(least.sram_needed_kib)} or more, a smaller --model, or a memory mode of "
            "your own with --vela-config",
        )
    accelerators = dict.fromkeys(plan.target.accelerator for plan in variants)
    return {
        "build": name,
        "sram_kib": sram_kib,
        "vela": fastest.vela_version,
        "accelerators": [
            _accelerator([plan for plan in variants if plan.target.accelerator == accelerator], sram_kib, config_path)
            for accelerator in accelerators
        ],
    }


def _accelerator(variants: Sequence[Variant], sram_kib: int, config_path: Path | None) -> Json:
    fastest = max((plan for plan in variants if _fits(plan, sram_kib)), key=_speed, default=None)
    return {
        "accelerator": variants[0].target.accelerator,
        "recommended": _plan(fastest, sram_kib) | {"options": _options(fastest.target, config_path)}
        if fastest
        else None,
        "plans": [_plan(plan, sram_kib) for plan in sorted(variants, key=_need)],
    }


def _fits(plan: Variant, sram_kib: int) -> bool:
    return plan.sram_needed_kib <= sram_kib


def _speed(plan: Variant) -> tuple[float, float]:
    """The faster is better, and of two alike the one with less SRAM."""
    return plan.inferences_per_second, -plan.sram_needed_kib


def _need(plan: Variant) -> tuple[float, float]:
    """Less SRAM first, and of two alike the faster one."""
    return plan.sram_needed_kib, -plan.inferences_per_second


def _plan(plan: Variant, sram_kib: int) -> dict[str, Json]:
    return {
        "system_config": plan.target.system_config,
        "memory_mode": plan.target.memory_mode,
        "optimise": OPTIMISED[plan.target.optimise],
        "fits": _fits(plan, sram_kib),
        "sram_needed_kib": plan.sram_needed_kib,
        "over_by_kib": max(0.0, plan.sram_needed_kib - sram_kib),
        "dram_kib": plan.dram_kib,
        "flash_kib": plan.flash_needed_kib,
        "inferences_per_second": plan.inferences_per_second,
    }


def _options(target: Target, config_path: Path | None) -> list[str]:
    """What to give a build for this target."""
    text = f"{target.accelerator}:{target.system_config}:{target.memory_mode}"
    options = ["--targets", text, "--optimise", OPTIMISED[target.optimise]]
    return options + (["--vela-config", str(config_path)] if config_path else [])

"""Finds the memory modes that fit in a given SRAM: compiles every mode and compares Vela's estimates of the SRAM.

For: `vela --sram`. A plan is the model compiled in one memory mode, optimized for speed or for size. Not for: building
the variant that fits; the result has the options that build it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from calibration.parallel.workers import Workers
from pipeline.ethos_u.config import MODE, VelaConfig
from pipeline.ethos_u.targets import check_target, config_of
from pipeline.ethos_u.variant import Variant
from pipeline.ethos_u.vela import compile_all
from recreate_model.recipe import Target
from recreate_model.support.digest import Json
from recreate_model.support.errors import InputError, UsageError


def candidates(targets: Sequence[Target], custom: VelaConfig | None) -> tuple[Target, ...]:
    """The same accelerators, systems and optimizations with every memory mode that is valid for them.

    Args:
        custom: the configuration file of targets that do not use Vela's own.
    """
    found = []
    for target in targets:
        for mode in config_of(target, custom).names(MODE):
            candidate = replace(target, memory_mode=mode)
            try:
                check_target(candidate, custom)
            except UsageError:
                # For example, an arena in flash: this system has no memory for it.
                continue
            found.append(candidate)
    # Two targets may be modes of one system.
    return tuple(dict.fromkeys(found))


def plans(
    model: bytes,
    name: str,
    targets: Sequence[Target],
    workers: Workers,
    progress: Callable[[int], None],
    custom: VelaConfig | None,
) -> tuple[Variant, ...]:
    """Compiles all candidates and discards the files. The parameters and errors are those of `compile_all`."""
    with tempfile.TemporaryDirectory(prefix="recreate_model-") as scratch:
        return compile_all(model, name, targets, Path(scratch), workers, progress, custom)


def document(name: str, variants: Sequence[Variant], sram_kib: int, config_path: Path | None) -> Json:
    """All plans of each accelerator and the fastest that fits, as plain JSON.

    Args:
        name: of the build.
        variants: the plans.
        sram_kib: SRAM that is available, in KiB.
        config_path: path of the user's configuration file, for the options that build a plan.

    Raises:
        InputError: no plan fits, on any accelerator.
    """
    fastest = max((plan for plan in variants if _fits(plan, sram_kib)), key=_speed, default=None)
    if fastest is None:
        smallest = min(variants, key=_need)
        target = smallest.target
        raise InputError(
            expected=f"a plan of {name} that needs no more than {sram_kib:,} KiB of SRAM",
            found=f"none of {len(variants)}, by Vela's estimates; the smallest is {target.accelerator} in "
            f"{target.memory_mode} for {target.optimize.word}, with {smallest.sram_needed_kib:,.1f} KiB",
            done="the INT8 model is kept, and no variant was built",
            next_step=f"give --sram {math.ceil(smallest.sram_needed_kib)} or more, a smaller --model, or your own "
            "memory mode with --vela-config",
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
    """A key for `max`: the fastest plan; among equals, the one with the least SRAM."""
    return plan.inferences_per_second, -plan.sram_needed_kib


def _need(plan: Variant) -> tuple[float, float]:
    """A key for `min`: the plan with the least SRAM; among equals, the fastest."""
    return plan.sram_needed_kib, -plan.inferences_per_second


def _plan(plan: Variant, sram_kib: int) -> dict[str, Json]:
    return {
        "system_config": plan.target.system_config,
        "memory_mode": plan.target.memory_mode,
        "optimize": plan.target.optimize.word,
        "fits": _fits(plan, sram_kib),
        "sram_needed_kib": plan.sram_needed_kib,
        "over_by_kib": max(0.0, plan.sram_needed_kib - sram_kib),
        "dram_kib": plan.dram_kib,
        "flash_kib": plan.flash_needed_kib,
        "inferences_per_second": plan.inferences_per_second,
    }


def _options(target: Target, config_path: Path | None) -> list[str]:
    """The options that build this target."""
    text = f"{target.accelerator}:{target.system_config}:{target.memory_mode}"
    options = ["--targets", text, "--optimize", target.optimize.word]
    return options + (["--vela-config", str(config_path)] if config_path else [])

"""The Ethos-U configurations: the eleven built by default, and what the user may ask for instead.

A wrong configuration is refused here, before anything is compiled and without importing Vela: Vela itself accepts an
Ethos-U85 with the memory system of an Ethos-U55 and ends with status 0.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence
from configparser import ConfigParser
from pathlib import Path

from recreate_model.errors import ToolError, UsageError
from recreate_model.recipe import Target

TARGETS: tuple[Target, ...] = (
    Target("ethos-u55-32", "Ethos_U55_Deep_Embedded", "Shared_Sram"),
    Target("ethos-u55-64", "Ethos_U55_Deep_Embedded", "Shared_Sram"),
    Target("ethos-u55-128", "Ethos_U55_High_End_Embedded", "Shared_Sram"),
    Target("ethos-u55-256", "Ethos_U55_High_End_Embedded", "Shared_Sram"),
    Target("ethos-u65-256", "Ethos_U65_High_End", "Dedicated_Sram_384KB"),
    Target("ethos-u65-512", "Ethos_U65_High_End", "Dedicated_Sram_384KB"),
    Target("ethos-u85-128", "Ethos_U85_SYS_Flash_High", "Shared_Sram"),
    Target("ethos-u85-256", "Ethos_U85_SYS_DRAM_Low", "Dedicated_Sram_384KB"),
    Target("ethos-u85-512", "Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB"),
    Target("ethos-u85-1024", "Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB"),
    Target("ethos-u85-2048", "Ethos_U85_SYS_DRAM_High", "Dedicated_Sram_384KB"),
)
_DEFAULTS = {target.accelerator: target for target in TARGETS}


def parse_targets(text: str) -> tuple[Target, ...]:
    """Targets from `all`, or from accelerators divided by commas, such as `ethos-u55-128,ethos-u85-256`.

    An accelerator alone stands for its row in TARGETS; `accelerator:system_config:memory_mode` names all three.

    Raises:
        UsageError: an unknown name, a combination that does not exist, or an accelerator named twice.
    """
    if text.strip() == "all":
        return TARGETS
    targets = tuple(_parse_target(part.strip()) for part in text.split(","))
    accelerators = [target.accelerator for target in targets]
    for accelerator in accelerators:
        if accelerators.count(accelerator) > 1:
            raise UsageError(
                expected="each accelerator once, as each has one folder",
                found=f"{accelerator} {accelerators.count(accelerator)} times in {text!r}",
                next_step="name it once, and build its other configuration in a second run",
            )
    return targets


def _parse_target(text: str) -> Target:
    accelerator, *names = text.split(":")
    default = _default(accelerator)
    if not names:
        return default
    if len(names) != 2:
        raise UsageError(
            expected="a target as accelerator, or as accelerator:system_config:memory_mode",
            found=repr(text),
            next_step=f"give --targets {accelerator}",
        )
    target = Target(accelerator, *names)
    check_target(target)
    return target


def check_target(target: Target) -> None:
    """Refuses, without starting Vela, a configuration that Vela does not know or would wrongly accept.

    Raises:
        UsageError: a name that is not in Vela's `Arm/vela.ini`, a system configuration of another accelerator family,
            or a memory mode that puts the arena where this system has flash.
    """
    default = _default(target.accelerator)
    family = target.accelerator.title().replace("-", "_").rpartition("_")[0]  # such as Ethos_U55
    systems = [name for name in _names("System_Config.") if name.startswith(f"{family}_")]
    if target.system_config not in systems:
        what = f"a system configuration for {target.accelerator}"
        raise _unknown(what, target.system_config, systems, default.system_config)
    modes = _names("Memory_Mode.")
    if target.memory_mode not in modes:
        raise _unknown("a memory mode", target.memory_mode, modes, default.memory_mode)
    memory = _arena_memory(target)
    if memory not in ("Sram", "Dram"):
        raise UsageError(
            expected=f"a memory mode with its arena in SRAM or DRAM on {target.system_config}",
            found=f"{target.memory_mode}, which puts it in {memory}",
            next_step="give Shared_Sram",
        )


def _default(accelerator: str) -> Target:
    """The row of TARGETS for this accelerator."""
    if accelerator not in _DEFAULTS:
        raise _unknown("an accelerator", accelerator, list(_DEFAULTS), "ethos-u55-128")
    return _DEFAULTS[accelerator]


def _arena_memory(target: Target) -> str:
    """The memory that holds the arena: `Sram`, `Dram`, `OffChipFlash` and so on, as `vela.ini` spells them."""
    ini = _vela_ini()
    mode = ini[f"Memory_Mode.{target.memory_mode}"]
    if "arena_mem_area" not in mode:
        mode = ini[mode["inherit"]]
    return ini[f"System_Config.{target.system_config}"][f"{mode['arena_mem_area'].lower()}_port"]


@functools.cache
def _vela_ini() -> ConfigParser:
    # Found without importing Vela, so that a wrong --targets is refused at once.
    from importlib.util import find_spec

    spec = find_spec("ethosu")
    folders = spec.submodule_search_locations if spec else None
    ini = ConfigParser()
    if not folders or not ini.read([Path(folder) / "config_files" / "Arm" / "vela.ini" for folder in folders]):
        raise ToolError(
            expected="Vela with its Arm/vela.ini", found="none in this Python", next_step="pip install ethos-u-vela"
        )
    return ini


def _names(prefix: str) -> list[str]:
    return [section.removeprefix(prefix) for section in _vela_ini().sections() if section.startswith(prefix)]


def _unknown(what: str, name: str, known: Sequence[str], otherwise: str) -> UsageError:
    """`otherwise` is what to give where no known name is near."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.65) or [otherwise]
    return UsageError(expected=f"{what}, one of {', '.join(known)}", found=repr(name), next_step=f"give {nearest[0]}")

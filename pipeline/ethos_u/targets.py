"""The Ethos-U configurations: the eleven built by default, and what the user may ask for instead.

A wrong configuration is refused here, before anything is compiled and without importing Vela: Vela itself accepts an
Ethos-U85 with the memory system of an Ethos-U55 and ends with status 0.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace

from pipeline.ethos_u.config import MODE, SYSTEM, VelaConfig, packaged
from recreate_model.recipe import Target
from recreate_model.support.errors import InputError, UsageError

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

# What a build may be optimised for, in our words and in Vela's.
OPTIMISE = {"speed": ("Performance",), "size": ("Size",), "both": ("Performance", "Size")}


def variant_name(target: Target) -> str:
    """Name of a variant and its folder: the accelerator, and behind it what is not its default.

    That is the memory mode, with the system configuration before it where that is another too, and `_size` where the
    variant is optimised for size: `ethos-u55-128`, `ethos-u55-128_sram-only`, `ethos-u55-128_sram-only_size`.
    """
    default = _default(target.accelerator)
    parts = [target.accelerator]
    if target.system_config != default.system_config:
        parts.append(target.system_config)
    if (target.system_config, target.memory_mode) != (default.system_config, default.memory_mode):
        parts.append(target.memory_mode)
    named = [parts[0], *(re.sub("[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts[1:])]
    return "_".join([*named, *(["size"] if target.optimise == "Size" else [])])


def parse_targets(text: str, optimise: str = "speed", custom: VelaConfig | None = None) -> tuple[Target, ...]:
    """Targets from `all`, or from accelerators divided by commas, such as `ethos-u55-128,ethos-u85-256`.

    An accelerator alone stands for its row in TARGETS; `accelerator:system_config:memory_mode` names all three.

    Args:
        optimise: a key of OPTIMISE; with `both`, each accelerator's two targets follow each other.
        custom: the configuration file that has the names, instead of Vela's own.

    Raises:
        UsageError: an unknown name, a combination that does not exist, or a target named twice.
    """
    parts = list(_DEFAULTS) if text.strip() == "all" else [part.strip() for part in text.split(",")]
    targets = [_parse_target(part, custom) for part in parts]
    names = [variant_name(target) for target in targets]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                expected="each target once, as each has one folder",
                found=f"{name} {names.count(name)} times in {text!r}",
                next_step="name it once",
            )
    return tuple(replace(target, optimise=how) for target in targets for how in OPTIMISE[optimise])


def spell(targets: Sequence[Target]) -> str:
    """The text from which `parse_targets` reads the configurations of these targets, whatever they optimise for."""
    return ",".join(dict.fromkeys(f"{each.accelerator}:{each.system_config}:{each.memory_mode}" for each in targets))


def merged(had: Sequence[Target], more: Sequence[Target]) -> tuple[Target, ...]:
    """Targets that were built, and others beside them; in the usual order, an accelerator's default first.

    Raises:
        UsageError: they are of different configuration files, of which a build has one.
    """
    if {each.config_sha256 for each in had} != {each.config_sha256 for each in more}:
        raise UsageError(
            expected="--vela-config as the build's other variants were compiled with, as a build has one",
            found="another configuration file, or none",
            done="the variants are as they were",
            next_step="give the same --vela-config, or --force to replace them",
        )
    by_name = {variant_name(each): each for each in (*had, *more)}
    order = list(_DEFAULTS)
    return tuple(
        by_name[name]
        for name in sorted(by_name, key=lambda name: (order.index(by_name[name].accelerator), len(name), name))
    )


def _parse_target(text: str, custom: VelaConfig | None) -> Target:
    accelerator, *names = text.split(":")
    target = _default(accelerator)
    if names:
        if len(names) != 2:
            raise UsageError(
                expected="a target as accelerator, or as accelerator:system_config:memory_mode",
                found=repr(text),
                next_step=f"give --targets {accelerator}",
            )
        target = Target(accelerator, *names)
    if custom:
        target = replace(target, config_sha256=custom.sha256)
    check_target(target, custom)
    return target


def check_target(target: Target, custom: VelaConfig | None = None) -> VelaConfig:
    """Refuses, without starting Vela, a configuration that Vela does not know or would wrongly accept.

    Which family a system configuration is for, only its name says. One of the user's may have any name; but a name
    that begins as those of another family is taken at its word.

    Returns:
        The configuration file that has the target's sections: `custom` or Vela's own.

    Raises:
        UsageError: a name that is not in the configuration file, a system configuration of another accelerator family,
            or a memory mode that puts the arena or the cache where this system has something else.
        InputError: the target is of another configuration file than `custom`.
    """
    config = config_of(target, custom)
    default = _default(target.accelerator)
    family = target.accelerator.title().replace("-", "_").rpartition("_")[0]  # such as Ethos_U55
    systems = [name for name in config.names(SYSTEM) if _family(name) in ("", family)]
    if target.system_config not in systems:
        what = f"a system configuration for {target.accelerator}"
        raise _unknown(what, target.system_config, systems, default.system_config, custom)
    modes = config.names(MODE)
    if target.memory_mode not in modes:
        raise _unknown("a memory mode", target.memory_mode, modes, default.memory_mode, custom)
    memories = config.memories(target)
    for area, known in (("arena", ("Sram", "Dram")), ("cache", ("Sram",))):
        memory = memories[f"{area}_mem_area"]
        if memory not in known:
            raise UsageError(
                expected=f"a memory mode with its {area} in {' or '.join(known).upper()} on {target.system_config}",
                found=f"{target.memory_mode}, which puts it in {memory}",
                next_step="give Shared_Sram" if custom is None else "give another memory mode",
            )
    return config


def config_of(target: Target, custom: VelaConfig | None) -> VelaConfig:
    """The configuration file that a target is of. Raises InputError where that is neither Vela's own nor `custom`."""
    if not target.config_sha256:
        return packaged()
    if custom is None or custom.sha256 != target.config_sha256:
        raise InputError(
            expected=f"the Vela configuration file with SHA-256 {target.config_sha256}",
            found=f"{custom.source} with {custom.sha256}" if custom else "none",
            next_step="give it with --vela-config",
        )
    return custom


def _default(accelerator: str) -> Target:
    """The row of TARGETS for this accelerator."""
    if accelerator not in _DEFAULTS:
        raise _unknown("an accelerator", accelerator, list(_DEFAULTS), "ethos-u55-128", None)
    return _DEFAULTS[accelerator]


def _family(system_config: str) -> str:
    """The family that a name begins with, such as `Ethos_U55`; empty where it begins with none."""
    match = re.match(r"Ethos_U\d+(?=_)", system_config)
    return match[0] if match else ""


def _unknown(what: str, name: str, known: Sequence[str], otherwise: str, custom: VelaConfig | None) -> UsageError:
    """`otherwise` is what to give where no known name is near."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.65) or [otherwise]
    next_step = f"give {nearest[0]}"
    if custom and nearest[0] not in known:
        next_step = "name sections of the file: --targets accelerator:system_config:memory_mode"
    place = f" of {custom.source}" if custom else ""
    return UsageError(
        expected=f"{what}{place}, one of {', '.join(known) or 'none that there is'}",
        found=repr(name),
        next_step=next_step,
    )

"""The Ethos-U configurations: the eleven that are built by default, and those that the user names.

A wrong configuration is refused here, before anything is compiled and without importing Vela. Vela itself accepts an
Ethos-U85 with the memory system of an Ethos-U55 and exits with status 0.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

from pipeline.ethos_u.config import MODE, SYSTEM, VelaConfig, packaged
from recreate_model.recipe import Optimization, Target
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
# The first row of an accelerator is its default.
_DEFAULTS = {target.accelerator: target for target in reversed(TARGETS)}
_ACCELERATORS = tuple(dict.fromkeys(target.accelerator for target in TARGETS))

# The values of --optimize.
OPTIMIZE = {**{goal.word: (goal,) for goal in Optimization}, "both": tuple(Optimization)}
_SIMILAR = 0.65  # smallest ratio of difflib at which one name is suggested for another


def variant_name(target: Target) -> str:
    """The name of a variant and its folder: the accelerator, followed by everything that differs from its default.

    That is the system configuration, if it differs; the memory mode, if either differs; and `size` for a variant
    optimized for size: `ethos-u55-128`, `ethos-u55-128_sram-only`, `ethos-u55-128_sram-only_size`.
    """
    default = _default(target.accelerator)
    parts = [target.accelerator]
    if target.system_config != default.system_config:
        parts.append(target.system_config)
    if (target.system_config, target.memory_mode) != (default.system_config, default.memory_mode):
        parts.append(target.memory_mode)
    named = [parts[0], *(re.sub("[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts[1:])]
    return "_".join([*named, *(["size"] if target.optimize is Optimization.SIZE else [])])


def parse_targets(text: str, optimize: str = "speed", custom: VelaConfig | None = None) -> tuple[Target, ...]:
    """The targets of a text: `all`, or comma-separated targets such as `ethos-u55-128,ethos-u85-256`.

    A target is an accelerator, which means its row in TARGETS, or `accelerator:system_config:memory_mode`.

    Args:
        optimize: a key of OPTIMIZE; with `both`, the two targets of an accelerator are adjacent.
        custom: the configuration file with the named sections, instead of Vela's own.

    Raises:
        UsageError: a name is unknown, a combination is not valid, or a target is named twice.
    """
    rows = [target.accelerator if target == _DEFAULTS[target.accelerator] else spell((target,)) for target in TARGETS]
    parts = rows if text.strip() == "all" else [part.strip() for part in text.split(",")]
    targets = [_parse_target(part, custom) for part in parts]
    names = [variant_name(target) for target in targets]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                expected="each target only once",
                found=f"{name} {names.count(name)} times in {text!r}",
                next_step="name it once",
            )
    return tuple(replace(target, optimize=how) for target in targets for how in OPTIMIZE[optimize])


def spell(targets: Sequence[Target]) -> str:
    """The text that `parse_targets` parses to these targets, except for what they are optimized for."""
    texts = (f"{target.accelerator}:{target.system_config}:{target.memory_mode}" for target in targets)
    return ",".join(dict.fromkeys(texts))


def merged(built: Sequence[Target], added: Sequence[Target]) -> tuple[Target, ...]:
    """The targets of a build together with additional ones, in the order of TARGETS, an accelerator's default first.

    Raises:
        UsageError: they use different configuration files; a build can use only one.
    """
    if {target.config_sha256 for target in built} != {target.config_sha256 for target in added}:
        raise UsageError(
            expected="the --vela-config that the build's other variants were compiled with",
            found="another configuration file, or none",
            done="the variants were not changed",
            next_step="give the same --vela-config, or --force to replace them",
        )
    by_name = {variant_name(target): target for target in (*built, *added)}
    order = _ACCELERATORS
    return tuple(
        by_name[name]
        for name in sorted(by_name, key=lambda name: (order.index(by_name[name].accelerator), len(name), name))
    )


def _parse_target(text: str, custom: VelaConfig | None) -> Target:
    accelerator, *names = text.split(":")
    default = _default(accelerator, names, custom)
    if len(names) not in (0, 2):
        raise UsageError(
            expected="a target as accelerator, or as accelerator:system_config:memory_mode",
            found=repr(text),
            next_step=f"give --targets {_nearest_target(accelerator, names, custom)}",
        )
    target = Target(accelerator, names[0], names[1]) if names else default
    if custom:
        target = replace(target, config_sha256=custom.sha256)
    check_target(target, custom)
    return target


def check_target(target: Target, custom: VelaConfig | None = None) -> VelaConfig:
    """Refuses, without starting Vela, a configuration that Vela does not know or would wrongly accept.

    Only the name of a system configuration tells its accelerator generation. A configuration of the user's may have any
    name, but a name that starts like `Ethos_U55_` is taken to be for that generation.

    Returns:
        The configuration file that has the target's sections: `custom` or Vela's own.

    Raises:
        UsageError: a name that is not in the configuration file, a system configuration for another accelerator
            generation, or a memory mode whose arena or cache would be in a memory that cannot hold it.
        InputError: the target was made with another configuration file than `custom`.
    """
    config = config_of(target, custom)
    names = (target.system_config, target.memory_mode)
    _default(target.accelerator, names, custom)
    place = f" in {custom.source}" if custom else ""
    for what, name, known in (
        (
            f"a system configuration for {target.accelerator}",
            target.system_config,
            _systems(target.accelerator, config),
        ),
        ("a memory mode", target.memory_mode, config.names(MODE)),
    ):
        if name not in known:
            raise UsageError(
                expected=f"{what}{place}, " + (f"one of {', '.join(known)}" if known else "which has none"),
                found=repr(name),
                next_step=f"give --targets {_nearest_target(target.accelerator, names, custom)}",
            )
    if misplaced := _misplaced(target, config):
        area, memory, allowed = misplaced
        raise UsageError(
            expected=f"a memory mode with its {area} in {' or '.join(allowed).upper()} on {target.system_config}",
            found=f"{target.memory_mode}, which puts it in {memory}",
            next_step=f"give --targets {_nearest_target(target.accelerator, names, custom)}",
        )
    return config


def config_of(target: Target, custom: VelaConfig | None) -> VelaConfig:
    """The configuration file that a target was made with: `custom` or Vela's own.

    Raises:
        InputError: it is neither of them.
    """
    if not target.config_sha256:
        return packaged()
    if custom is None or custom.sha256 != target.config_sha256:
        raise InputError(
            expected=f"the Vela configuration file with SHA-256 {target.config_sha256}",
            found=f"{custom.source} with {custom.sha256}" if custom else "none",
            next_step="give it with --vela-config",
        )
    return custom


def _default(accelerator: str, names: Sequence[str] = (), custom: VelaConfig | None = None) -> Target:
    """The row of TARGETS for an accelerator; `names` and `custom` are for the advice if there is none."""
    if accelerator not in _DEFAULTS:
        raise UsageError(
            expected=f"an accelerator, one of {', '.join(_ACCELERATORS)}",
            found=repr(accelerator),
            next_step=f"give --targets {_nearest_target(_nearest_accelerator(accelerator), names, custom)}",
        )
    return _DEFAULTS[accelerator]


def _systems(accelerator: str, config: VelaConfig) -> list[str]:
    """The system configurations in a file that can be for this accelerator."""
    generation = accelerator.title().replace("-", "_").rpartition("_")[0]  # such as Ethos_U55
    return [name for name in config.names(SYSTEM) if _generation(name) in ("", generation)]


def _generation(system_config: str) -> str:
    """The accelerator generation that a name starts with, such as `Ethos_U55`; empty if there is none."""
    match = re.match(r"Ethos_U\d+(?=_)", system_config)
    return match[0] if match else ""


def _misplaced(target: Target, config: VelaConfig) -> tuple[str, str, tuple[str, ...]] | None:
    """The first area that is in the wrong memory: its name, the memory, and those allowed; None if all are right."""
    memories = config.memories(target)
    for area, allowed in (("arena", ("Sram", "Dram")), ("cache", ("Sram",))):
        memory = memories[f"{area}_mem_area"]
        if memory not in allowed:
            return area, memory, allowed
    return None


def _nearest_accelerator(name: str) -> str:
    """The accelerator of the same generation with the nearest number of MACs; else the one with the nearest name."""
    if match := re.fullmatch(r"(ethos-u\d+)-(\d+)", name.lower()):
        generation, macs = match[1], int(match[2])
        same = [known for known in _ACCELERATORS if known.startswith(f"{generation}-")]
        if same:
            return min(same, key=lambda known: abs(int(known.rpartition("-")[2]) - macs))
    return next(iter(difflib.get_close_matches(name, _ACCELERATORS, n=1, cutoff=_SIMILAR)), "ethos-u55-128")


def _nearest_target(accelerator: str, names: Sequence[str], custom: VelaConfig | None) -> str:
    """A valid target for this accelerator, as `--targets` takes it, that keeps as much of `names` as possible.

    Args:
        names: a system configuration and a memory mode, or only one of them.
    """
    if not names and custom is None:
        return accelerator
    default, config = _DEFAULTS[accelerator], custom or packaged()
    # A single name may be either, so it is compared with both.
    system_name, mode_name = (*names, *names, default.system_config, default.memory_mode)[:2]
    systems = _by_similarity(system_name, _systems(accelerator, config), default.system_config)
    modes = _by_similarity(mode_name, config.names(MODE), default.memory_mode)
    for system, mode in itertools.product(systems, modes):
        if not _misplaced(Target(accelerator, system, mode), config):
            return f"{accelerator}:{system}:{mode}"
    return "accelerator:system_config:memory_mode, with names from another --vela-config"


def _by_similarity(name: str, known: Sequence[str], default: str) -> list[str]:
    """The known names, most similar first; among those that are not similar, the default first."""

    def key(candidate: str) -> tuple[float, bool]:
        ratio = difflib.SequenceMatcher(None, name.lower(), candidate.lower()).ratio()
        return -ratio if ratio >= _SIMILAR else 0.0, candidate != default

    return sorted(known, key=key)

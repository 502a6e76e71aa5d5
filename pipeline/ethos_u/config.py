"""Vela's configuration files: memory systems (`System_Config.`) and how they are used (`Memory_Mode.`), by content.

For: reading the packaged `Arm/vela.ini` or one of the user's, and telling every value of a section, `inherit` followed.
Vela reads such a file twice, in Python for the clock and bandwidths it reports and in C++ for the plan and its cycles,
and the two differ: C++ minds capitals, passes over a `[DEFAULT]` section, and does not know `key: value`. The first two
give a plan for another memory system than is reported, with status 0. So a file of the user's is read here as strictly
as the stricter of the two.
Not for: which accelerator a section is meant for (`targets`).
"""

from __future__ import annotations

import configparser
import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from recreate_model.recipe import Target
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import InputError, ToolError

PACKAGED = "Arm/vela.ini"  # as `vela --config` takes it, on every system
SYSTEM, MODE = "System_Config.", "Memory_Mode."
MEMORIES = ("Sram", "Dram", "OnChipFlash", "OffChipFlash")
AREAS = ("const_mem_area", "arena_mem_area", "cache_mem_area")
_LARGEST = 1 << 20  # bytes; Vela's own has 7,000
_SHOWN = 200  # most characters of what was found; a line of the file may be as long as the file

_WHOLE = r"\d{1,18}"
_OF_A_MEMORY = {f"{name}_{key}": _WHOLE for name in MEMORIES for key in ("ports_used", "burst_length")}
_OF_A_MEMORY |= {f"{name}_{way}_latency": _WHOLE for name in MEMORIES for way in ("read", "write")}
_OF_A_MEMORY |= {f"{name}_max_{way}s": _WHOLE for name in MEMORIES for way in ("read", "write")}
_OF_A_MEMORY |= {f"{name}_clock_scale": "a number" for name in MEMORIES}
# What may stand in a section: key -> a regular expression of its values, or `a number` above zero.
_KEYS: Mapping[str, Mapping[str, str]] = {
    SYSTEM: {
        "core_clock": "a number",
        "axi0_port": "|".join(MEMORIES),
        "axi1_port": "|".join(MEMORIES),
        **_OF_A_MEMORY,
    },
    MODE: {"arena_cache_size": _WHOLE, **dict.fromkeys(AREAS, "Axi0|Axi1")},
}
# Vela would put a clock of 1 Hz, or a port that is not there, in the place of these.
_NEEDED = {SYSTEM: ("core_clock", "axi0_port", "axi1_port"), MODE: AREAS}


@dataclass(frozen=True)
class VelaConfig:
    """A configuration file.

    Attributes:
        source: what to call it in a message.
    """

    source: str
    data: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return digest_bytes(self.data)

    def names(self, kind: str) -> list[str]:
        """The sections of a kind, SYSTEM or MODE, in the file's order and without it."""
        sections = _parsed(self.data).sections()
        return [section.removeprefix(kind) for section in sections if section.startswith(kind)]

    def values(self, kind: str, name: str) -> dict[str, str]:
        """Every value of a section, those it inherits first, as they stand in the file.

        Raises:
            ValueError: an `inherit` that leads nowhere or back.
        """
        ini = _parsed(self.data)
        chain = [f"{kind}{name}"]
        while (parent := ini[chain[0]].get("inherit")) is not None:
            if not ini.has_section(parent) or not parent.startswith(kind):
                raise ValueError(f"[{chain[0]}] inherits {parent}, which is no section of its kind")
            if parent in chain:
                raise ValueError(f"[{chain[0]}] inherits {parent}, which inherits it")
            chain.insert(0, parent)
        merged = {key: value for section in chain for key, value in ini[section].items()}
        return {key: value for key, value in merged.items() if key != "inherit"}

    def memories(self, target: Target) -> dict[str, str]:
        """Which of MEMORIES each of AREAS is in, on the target's system and in its memory mode."""
        system, mode = self.values(SYSTEM, target.system_config), self.values(MODE, target.memory_mode)
        return {area: system[f"{mode[area].lower()}_port"] for area in AREAS}


@functools.cache
def packaged() -> VelaConfig:
    """Vela's own `Arm/vela.ini`, found without importing Vela, so that a wrong --targets is refused at once.

    Raises:
        ToolError: Vela is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec("ethosu")
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder) / "config_files" / PACKAGED
        if path.is_file():
            return VelaConfig(PACKAGED, path.read_bytes())
    raise ToolError(
        expected=f"Vela with its {PACKAGED}", found="none in this Python", next_step="pip install ethos-u-vela"
    )


def read_config(path: Path) -> VelaConfig:
    """A file of the user's, every section of it checked.

    Raises:
        InputError: it cannot be read, or holds what Vela's two readers would not take for one and the same.
    """
    try:
        if not path.is_file():
            raise _refused(path, "a folder" if path.is_dir() else "no file there")
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise _refused(path, f"more than {_LARGEST:,} bytes")
        config = VelaConfig(path.name, data)
        _check(config)
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise _refused(path, "a byte that is no ASCII") from error
    except configparser.MissingSectionHeaderError as error:
        raise _refused(path, f"no .ini file: no section above line {error.lineno}, {error.line!r}") from error
    except configparser.ParsingError as error:
        number, line = error.errors[0]
        raise _refused(path, f"no .ini file: line {number}, {line}") from error
    except configparser.Error as error:
        raise _refused(path, f"no .ini file: {error.message}") from error
    except ValueError as error:
        raise _refused(path, str(error)) from error
    return config


def _check(config: VelaConfig) -> None:
    ini = _parsed(config.data)
    if ini.defaults():
        raise ValueError("a [DEFAULT] section, which Vela heeds in what it reports but not in its plan")
    for section in ini.sections():
        kind = next((kind for kind in _KEYS if section.startswith(kind)), None)
        if kind is None:
            raise ValueError(f"[{section}], which is neither a {SYSTEM} nor a {MODE} section")
        for key, value in ini[section].items():
            if key == "inherit":
                continue
            if key not in _KEYS[kind]:
                raise ValueError(f"{key} in [{section}], a key that Vela does not have in this spelling")
            if not _fits(value, _KEYS[kind][key]):
                raise ValueError(f"{key}={value} in [{section}]")
        values = config.values(kind, section.removeprefix(kind))
        if missing := [key for key in _NEEDED[kind] if key not in values]:
            raise ValueError(f"no {missing[0]} in [{section}]")
    if not (config.names(SYSTEM) and config.names(MODE)):
        raise ValueError(f"no {SYSTEM} or no {MODE} section")


def _fits(value: str, form: str) -> bool:
    if form != "a number":
        return re.fullmatch(form, value) is not None
    try:
        return math.isfinite(float(value)) and float(value) > 0
    except ValueError:
        return False


@functools.lru_cache(maxsize=4)
def _parsed(data: bytes) -> configparser.ConfigParser:
    ini = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    ini.optionxform = str  # type: ignore[assignment,method-assign]  # capitals matter to Vela's compiler
    ini.read_string(data.decode("ascii"))
    return ini


def _refused(path: Path, found: str) -> InputError:
    return InputError(
        expected=f"--vela-config {path} to be a configuration file that Vela reads in one way only",
        found=found if len(found) <= _SHOWN else f"{found[:_SHOWN]}...",
        next_step=f"correct it: keys as in Vela's {PACKAGED}, `key=value`, ASCII; docs/ethos-u.md has an example",
    )

"""Reads Vela's configuration files: memory systems (`System_Config.`) and memory modes (`Memory_Mode.`).

For: the packaged `Arm/vela.ini` or a file of the user's, with every value of a section, inherited values included. Vela
parses such a file twice: in Python for the clock and bandwidths that it reports, and in C++ for the plan and its
cycles. The two parsers differ: C++ is case-sensitive, ignores a `[DEFAULT]` section and does not accept `key: value`.
In the first two cases the plan is for another memory system than the report, with exit status 0. Files of the user's
are therefore parsed here as strictly as the stricter parser.
Not for: which accelerator a section is for (`targets`).
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
from recreate_model.support.errors import InputError, ToolError, reason

PACKAGED = "Arm/vela.ini"  # the value of `vela --config`, on every system
SYSTEM, MODE = "System_Config.", "Memory_Mode."
MEMORIES = ("Sram", "Dram", "OnChipFlash", "OffChipFlash")
AREAS = ("const_mem_area", "arena_mem_area", "cache_mem_area")
_LARGEST = 1 << 20  # bytes; Vela's own file has 7,000
_SHOWN = 200  # most characters of `found` in a message, as a line can be as long as the file

_WHOLE = r"\d{1,18}"
_MEMORY_KEYS = {f"{name}_{key}": _WHOLE for name in MEMORIES for key in ("ports_used", "burst_length")}
_MEMORY_KEYS |= {f"{name}_{way}_latency": _WHOLE for name in MEMORIES for way in ("read", "write")}
_MEMORY_KEYS |= {f"{name}_max_{way}s": _WHOLE for name in MEMORIES for way in ("read", "write")}
_MEMORY_KEYS |= {f"{name}_clock_scale": "a number" for name in MEMORIES}
# The keys of a section -> a regular expression for the value, or `a number`, which must be positive.
_KEYS: Mapping[str, Mapping[str, str]] = {
    SYSTEM: {
        "core_clock": "a number",
        "axi0_port": "|".join(MEMORIES),
        "axi1_port": "|".join(MEMORIES),
        **_MEMORY_KEYS,
    },
    MODE: {"arena_cache_size": _WHOLE, **dict.fromkeys(AREAS, "Axi0|Axi1")},
}
# Without these, Vela would assume a clock of 1 Hz or a port that does not exist.
_REQUIRED = {SYSTEM: ("core_clock", "axi0_port", "axi1_port"), MODE: AREAS}


@dataclass(frozen=True)
class VelaConfig:
    """The content of a configuration file.

    Attributes:
        source: name of the file, for messages.
    """

    source: str
    data: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return digest_bytes(self.data)

    def names(self, kind: str) -> list[str]:
        """The names of the sections of a kind, SYSTEM or MODE, in file order and without the prefix."""
        sections = _parsed(self.data).sections()
        return [section.removeprefix(kind) for section in sections if section.startswith(kind)]

    def values(self, kind: str, name: str) -> dict[str, str]:
        """All values of a section as text, inherited ones first.

        Raises:
            ValueError: an `inherit` names no section of this kind, or forms a cycle.
        """
        ini = _parsed(self.data)
        chain = [f"{kind}{name}"]
        while (parent := ini[chain[0]].get("inherit")) is not None:
            if not ini.has_section(parent) or not parent.startswith(kind):
                raise ValueError(f"[{chain[0]}] inherits {parent}, which is not a {kind} section of the file")
            if parent in chain:
                raise ValueError(f"[{chain[0]}] inherits {parent}, which inherits it")
            chain.insert(0, parent)
        merged = {key: value for section in chain for key, value in ini[section].items()}
        return {key: value for key, value in merged.items() if key != "inherit"}

    def memories(self, target: Target) -> dict[str, str]:
        """The memory, one of MEMORIES, of each of AREAS for a target's system and memory mode."""
        system, mode = self.values(SYSTEM, target.system_config), self.values(MODE, target.memory_mode)
        return {area: system[f"{mode[area].lower()}_port"] for area in AREAS}


@functools.cache
def packaged() -> VelaConfig:
    """Vela's own `Arm/vela.ini`, found without importing Vela, so that a wrong --targets is refused immediately.

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
        expected=f"Vela with its {PACKAGED}", found="no such file for this Python", next_step="pip install ethos-u-vela"
    )


def read_config(path: Path) -> VelaConfig:
    """Reads a configuration file of the user's and checks every section.

    Raises:
        InputError: the file cannot be read, or Vela's two parsers would not read it the same way.
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
        raise _refused(path, reason(error)) from error
    except UnicodeDecodeError as error:
        raise _refused(path, "a byte that is not ASCII") from error
    except configparser.MissingSectionHeaderError as error:
        raise _refused(path, f"not an .ini file: no section before line {error.lineno}, {error.line!r}") from error
    except configparser.ParsingError as error:
        number, line = error.errors[0]
        raise _refused(path, f"not an .ini file: line {number}, {line}") from error
    except configparser.Error as error:
        raise _refused(path, f"not an .ini file: {error.message}") from error
    except ValueError as error:
        raise _refused(path, str(error)) from error
    return config


def _check(config: VelaConfig) -> None:
    ini = _parsed(config.data)
    if ini.defaults():
        raise ValueError("a [DEFAULT] section, which Vela uses for its report but not for its plan")
    for section in ini.sections():
        kind = next((kind for kind in _KEYS if section.startswith(kind)), None)
        if kind is None:
            raise ValueError(f"[{section}], which is neither a {SYSTEM} nor a {MODE} section")
        for key, value in ini[section].items():
            if key == "inherit":
                continue
            if key not in _KEYS[kind]:
                raise ValueError(f"{key} in [{section}], a key that Vela does not know in this spelling")
            if not _is_valid(value, _KEYS[kind][key]):
                raise ValueError(f"{key}={value} in [{section}]")
        values = config.values(kind, section.removeprefix(kind))
        if missing := [key for key in _REQUIRED[kind] if key not in values]:
            raise ValueError(f"no {missing[0]} in [{section}]")
    if not (config.names(SYSTEM) and config.names(MODE)):
        raise ValueError(f"no {SYSTEM} section or no {MODE} section")


def _is_valid(value: str, form: str) -> bool:
    if form != "a number":
        return re.fullmatch(form, value) is not None
    try:
        return math.isfinite(float(value)) and float(value) > 0
    except ValueError:
        return False


@functools.lru_cache(maxsize=4)
def _parsed(data: bytes) -> configparser.ConfigParser:
    ini = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    ini.optionxform = str  # type: ignore[assignment,method-assign]  # keys are case-sensitive for Vela's C++ parser
    ini.read_string(data.decode("ascii"))
    return ini


def _refused(path: Path, found: str) -> InputError:
    return InputError(
        expected=f"--vela-config {path} to be a configuration file that both parsers of Vela read the same way",
        found=found if len(found) <= _SHOWN else f"{found[:_SHOWN]}...",
        next_step=f"correct it: keys as in Vela's {PACKAGED}, `key=value`, ASCII; docs/ethos-u.md has an example",
    )

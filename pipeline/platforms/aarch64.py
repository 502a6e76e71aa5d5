"""AArch64 code on this machine: a Linux root in the cache, of which `qemu-aarch64` runs the Python.

For: finding that root, believing it by its content, and the command line that runs a program of it on an emulated
Cortex-A. Not for: making it (`aarch64_setup`), nor what is run there (`jobs`).

    aarch64/<name>/cortex-a53/      what the emulator takes for `/`: packages of the distribution, unpacked, and the
    aarch64/<name>/cortex-a76/      `/proc/cpuinfo` of that CPU; files of one are hard links to the other's
    aarch64/<name>/site/            AArch64 wheels, unpacked
    aarch64/<name>/manifest.json    versions, and the digest of all the rest
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from absl import logging

from recreate_model.support.digest import Json, digest_bytes, digest_file, digest_json, document_fault, read_document
from recreate_model.support.processes import run_to_end

EMULATOR = "qemu-aarch64"
EMULATOR_PACKAGE = "qemu-user"
LOCK = Path(__file__).with_name("aarch64.lock")
MANIFEST = "manifest.json"
FORMAT = "recreate-model/aarch64/1"


@dataclass(frozen=True)
class Cpu:
    """A Cortex-A as QEMU emulates it.

    Attributes:
        name: as QEMU and the card spell it, in lower case.
        revision: variant, part and revision of its MIDR.
        features: what Linux calls those instructions that QEMU's has.
    """

    name: str
    revision: tuple[str, str, int]
    features: str

    @property
    def cpuinfo(self) -> str:
        """Its `/proc/cpuinfo` with one core: without it XNNPACK reads this machine's, which no Arm has, and crashes."""
        variant, part, revision = self.revision
        rows = {
            "processor": "0",
            "BogoMIPS": "50.00",
            "Features": self.features,
            "CPU implementer": "0x41",
            "CPU architecture": "8",
            "CPU variant": variant,
            "CPU part": part,
            "CPU revision": str(revision),
        }
        return "".join(f"{key}\t: {value}\n" for key, value in rows.items()) + "\n"


# The two families of INT8 kernels of a Cortex-A: plain NEON, and the dot product since Armv8.2. QEMU's `max` is no
# Cortex-A, and with its SME XNNPACK gives wrong outputs under QEMU 7.2.
_NEON = "fp asimd evtstrm aes pmull sha1 sha2 crc32"
CPUS = (
    Cpu("cortex-a53", ("0x0", "0xd03", 4), f"{_NEON} cpuid"),
    Cpu("cortex-a76", ("0x4", "0xd0b", 1), f"{_NEON} atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"),
)
PACKAGES = ("python3", "libstdc++6")
# Left out where the distribution has none.
ARMNN_PACKAGES = ("python3-pyarmnn", "libarmnn-cpuacc-backend22")


@dataclass(frozen=True)
class Sysroot:
    """A root that is whole.

    Attributes:
        packages: versions of the distribution's packages, by name.
        wheels: names of the wheels' files.
        python: version of its Python, such as `3.11`.
    """

    folder: Path
    packages: dict[str, str]
    wheels: tuple[str, ...]
    python: str

    @property
    def site(self) -> Path:
        return self.folder / "site"

    @property
    def has_armnn(self) -> bool:
        return set(ARMNN_PACKAGES) <= set(self.packages)

    def command(self, emulator: Path, cpu: Cpu) -> tuple[Path | str, ...]:
        """The start of a command line that runs this root's Python on the emulated CPU."""
        prefix = self.folder / cpu.name
        # What this machine's own programs are to load is not for those in there.
        clean = ("-U", "LD_PRELOAD", "-U", "LD_LIBRARY_PATH")
        # Byte code written beside the sources would be a change of the root.
        python = (prefix / "usr" / "bin" / f"python{self.python}", "-I", "-B")
        return (emulator, "-cpu", cpu.name, *clean, "-L", prefix, *python)


def native() -> bool:
    """Whether this machine runs AArch64 code itself."""
    return platform.machine().lower() in ("aarch64", "arm64")


def emulator() -> Path | None:
    """The emulator on the PATH."""
    found = shutil.which(EMULATOR)
    return Path(found) if found else None


def emulator_version(program: Path) -> str:
    """`qemu-aarch64 7.2.22 (Debian ...)`."""
    first = run_to_end((program, "--version"), 60).stdout.partition("\n")[0]
    return first.strip().replace(" version ", " ") or EMULATOR


def emulates(program: Path, cpu: Cpu) -> bool:
    """Whether this version of the emulator knows the CPU."""
    return cpu.name in run_to_end((program, "-cpu", "help"), 60).stdout.split()


def folder(cache: Path) -> Path:
    """Where the root of this version of the program lies in the cache, or would: what makes it is in the name."""
    recipe = [FORMAT, digest_file(LOCK), *PACKAGES, *ARMNN_PACKAGES, *(cpu.name + cpu.cpuinfo for cpu in CPUS)]
    return cache / "aarch64" / digest_json(recipe)[:12]


def find(cache: Path) -> Sysroot | None:
    """The root in the cache, if every byte of it is as it was made; a damaged one is a warning to the log."""
    place = folder(cache)
    if not place.is_dir():
        return None
    try:
        document = read_document((place / MANIFEST).read_text(encoding="utf-8"), FORMAT)
        if (found := digest_tree(place)) != document["content"]:
            raise ValueError(f"content {found[:12]}, where {document['content'][:12]} was made")
        return Sysroot(place, document["packages"], tuple(document["wheels"]), document["python"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        logging.warning("the AArch64 root %s is damaged: %s; it is not used", place, document_fault(error))
        return None


def write_manifest(place: Path, packages: dict[str, str], wheels: dict[str, str], python: str) -> None:
    """Writes what a root was made of, and the digest of all that is in it: the last step of making one."""
    document: Json = {
        "format": FORMAT,
        "python": python,
        "packages": packages,
        "wheels": wheels,
        "content": digest_tree(place),
    }
    (place / MANIFEST).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def digest_tree(place: Path) -> str:
    """SHA-256 of the names and contents of all files and links below a folder, but for its manifest."""
    rows = []
    for base, folders, files in os.walk(place):
        for name in (*folders, *files):
            path = Path(base, name)
            where = path.relative_to(place).as_posix()
            if path.is_symlink():
                rows.append(f"{where} -> {os.readlink(path)}")
            elif path.is_file() and where != MANIFEST:
                rows.append(f"{where} {digest_file(path)}")
    return digest_bytes("\n".join(sorted(rows)).encode("utf-8", "surrogateescape"))

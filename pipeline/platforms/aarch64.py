"""Runs AArch64 code on this machine: a Linux root file system in the cache whose Python `qemu-aarch64` runs.

For: finding that root, verifying its content, and the command line that runs its Python on an emulated Cortex-A.
Not for: creating it (`aarch64_setup`), or the jobs that run in it (`jobs`).

    aarch64/<name>/cortex-a53/      the emulator's `/`: unpacked packages of the distribution, and the
    aarch64/<name>/cortex-a76/      `/proc/cpuinfo` of that CPU; the folders share files by hard links
    aarch64/<name>/site/            unpacked AArch64 wheels
    aarch64/<name>/manifest.json    versions, and the digest of everything else
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
    """A Cortex-A that QEMU emulates.

    Attributes:
        name: of the CPU in QEMU, in lower case.
        revision: variant, part and revision fields of the MIDR.
        features: Linux names of the instruction set features that QEMU emulates.
    """

    name: str
    revision: tuple[str, str, int]
    features: str

    @property
    def cpuinfo(self) -> str:
        """Its `/proc/cpuinfo` with one core. Without it XNNPACK reads that of the host, a non-Arm CPU, and crashes."""
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


# One CPU for each family of INT8 kernels: plain NEON, and the dot product of Armv8.2. QEMU's `max` is not a Cortex-A,
# and under QEMU 7.2 XNNPACK gives wrong outputs with its SME.
_NEON = "fp asimd evtstrm aes pmull sha1 sha2 crc32"
CPUS = (
    Cpu("cortex-a53", ("0x0", "0xd03", 4), f"{_NEON} cpuid"),
    Cpu("cortex-a76", ("0x4", "0xd0b", 1), f"{_NEON} atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"),
)
PACKAGES = ("python3", "libstdc++6")
# Not installed if the distribution does not have them.
ARMNN_PACKAGES = ("python3-pyarmnn", "libarmnn-cpuacc-backend22")


@dataclass(frozen=True)
class Sysroot:
    """A verified root.

    Attributes:
        folder: path of the root in the cache.
        packages: package name -> version, of the distribution's packages.
        wheels: file names of the wheels.
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
        # The host's preloaded libraries must not be loaded in the root.
        clean = ("-U", "LD_PRELOAD", "-U", "LD_LIBRARY_PATH")
        # -B: byte code files would change the content of the root.
        python = (prefix / "usr" / "bin" / f"python{self.python}", "-I", "-B")
        return (emulator, "-cpu", cpu.name, *clean, "-L", prefix, *python)


def native() -> bool:
    """Whether this machine is an AArch64 machine."""
    return platform.machine().lower() in ("aarch64", "arm64")


def emulator() -> Path | None:
    """The path of the emulator; None if it is not on the PATH."""
    found = shutil.which(EMULATOR)
    return Path(found) if found else None


def emulator_version(program: Path) -> str:
    """Name and version of the emulator, such as `qemu-aarch64 7.2.22 (Debian ...)`."""
    first = run_to_end((program, "--version"), 60).stdout.partition("\n")[0]
    return first.strip().replace(" version ", " ") or EMULATOR


def emulates(program: Path, cpu: Cpu) -> bool:
    """Whether this version of the emulator supports the CPU."""
    return cpu.name in run_to_end((program, "-cpu", "help"), 60).stdout.split()


def folder(cache: Path) -> Path:
    """The path of the root in the cache, which may not exist; its name is a digest of everything that defines it."""
    recipe = [FORMAT, digest_file(LOCK), *PACKAGES, *ARMNN_PACKAGES, *(cpu.name + cpu.cpuinfo for cpu in CPUS)]
    return cache / "aarch64" / digest_json(recipe)[:12]


def find(cache: Path) -> Sysroot | None:
    """The root in the cache; None if there is none, or if its content was changed, which is logged as a warning."""
    place = folder(cache)
    if not place.is_dir():
        return None
    try:
        document = read_document((place / MANIFEST).read_text(encoding="utf-8"), FORMAT)
        if (found := digest_tree(place)) != document["content"]:
            raise ValueError(f"its digest is {found[:12]} instead of {document['content'][:12]}")
        return Sysroot(place, document["packages"], tuple(document["wheels"]), document["python"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        logging.warning("the AArch64 root %s is damaged: %s; it is not used", place, document_fault(error))
        return None


def write_manifest(place: Path, packages: dict[str, str], wheels: dict[str, str], python: str) -> None:
    """Writes the manifest of a root, with its parts and the digest of its content: the last step of creating it.

    Args:
        packages: package name -> version.
        wheels: file name -> SHA-256.
        python: version of its Python.
    """
    document: Json = {
        "format": FORMAT,
        "python": python,
        "packages": packages,
        "wheels": wheels,
        "content": digest_tree(place),
    }
    (place / MANIFEST).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def digest_tree(place: Path) -> str:
    """The SHA-256 of the names and contents of all files and links below a folder, except its manifest."""
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

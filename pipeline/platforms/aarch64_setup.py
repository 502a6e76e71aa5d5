"""Makes the AArch64 root in the cache: packages of this distribution and wheels, unpacked, and nothing installed.

apt works on folders of its own in the cache, with this system's sources and keys and none of its state, so neither the
system's packages nor its list of architectures change, and no rights are needed. Packages are what the distribution's
signed index names today, and the manifest says which; wheels are held to the hashes of `aarch64.lock`.

Not for: using the root, which is `aarch64`.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from pipeline.platforms import aarch64
from pipeline.platforms.aarch64 import ARMNN_PACKAGES, CPUS, EMULATOR, EMULATOR_PACKAGE, LOCK, PACKAGES, Sysroot
from recreate_model.support.digest import digest_file, document_fault
from recreate_model.support.errors import InputError, ResourceError, ToolError
from recreate_model.support.exclusive import exclusive
from recreate_model.support.processes import last_line, run_to_end

SOURCES_VARIABLE = "RECREATE_MODEL_APT_SOURCES"
_LIMIT = 1800  # seconds for one step; over a slow line 60 MB take a while
_SIZE = "about 65 MB are fetched, 250 MB kept"
_KEYRINGS = {
    "Debian": "/usr/share/keyrings/debian-archive-keyring.gpg",
    "Ubuntu": "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
}
_COMPONENTS = ("main", "universe")
_WHEEL_PLATFORMS = ("manylinux_2_17", "manylinux2014", "manylinux_2_27", "manylinux_2_28")
# How this system fetches, such as through a proxy, holds here too; what it runs before and after does not.
_FETCHING = re.compile(r"Acquire::(https?|ftp|Retries|ForceIPv[46])\b")

Step = Callable[..., str]  # runs one command of making the root, and returns what it printed


def ensure(cache: Path, announce: Callable[[str], object]) -> Sysroot:
    """The root, made where the cache has none that is whole. Of several processes that ask at once, one makes it.

    Args:
        announce: called with a sentence before something that takes long.

    Raises:
        ResourceError: a program is missing, packages or wheels could not be had, or there is no room.
        InputError: the file of apt sources that the user names cannot be read.
        ToolError: what was made does not run.
    """
    _check_programs()
    if found := aarch64.find(cache):
        return found
    folder = aarch64.folder(cache)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        wait = "waiting for another process that makes the AArch64 root"
        with exclusive(folder.with_name(folder.name + ".lock"), lambda: announce(wait)) as held:
            if found := aarch64.find(cache):
                return found
            announce(f"making an AArch64 root in {folder}, once ({_SIZE})")
            part = folder.with_name(folder.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            try:
                _make(part, held)
                shutil.rmtree(folder, ignore_errors=True)
                part.replace(folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise ResourceError(
            expected=f"room and permission for an AArch64 root in {folder}",
            found=error.strerror or str(error),
            next_step="free some space, or set RECREATE_MODEL_CACHE to a folder that can be written",
        ) from error
    found = aarch64.find(cache)
    assert found is not None  # it was hashed a moment ago
    return found


def _check_programs() -> None:
    packages = {EMULATOR: EMULATOR_PACKAGE, "apt-get": "apt", "apt-config": "apt", "dpkg": "dpkg"}
    for program, package in packages.items():
        if shutil.which(program) is None:
            install = f"`apt-get install {package}`, then `make aarch64`"
            foreign = "use Debian or Ubuntu, or a container of one: the root is made of their packages"
            raise ResourceError(
                expected=f"{program}, to make an AArch64 root and run it",
                found="none on the PATH",
                next_step=install if program == EMULATOR else foreign,
            )


def _make(part: Path, held: BinaryIO) -> None:
    work = part / "work"
    (work / "wheels").mkdir(parents=True)
    root = part / CPUS[0].name
    packages = _unpack_packages(work, root, held)
    python = _python_version(root)
    wheels = _unpack_wheels(work / "wheels", part / "site", python, held)
    shutil.rmtree(work)
    for cpu in CPUS[1:]:
        # Not a link to the folder: what resolves links in there would leave what it takes for `/`.
        shutil.copytree(root, part / cpu.name, symlinks=True, copy_function=os.link)
    for cpu in CPUS:
        (part / cpu.name / "proc").mkdir(exist_ok=True)
        (part / cpu.name / "proc" / "cpuinfo").write_text(cpu.cpuinfo)
    aarch64.write_manifest(part, packages, wheels, python)
    _try_it(Sysroot(part, packages, tuple(wheels), python))


def _try_it(root: Sysroot) -> None:
    """Imports what jobs will import, on each CPU that this emulator has."""
    emulator = aarch64.emulator()
    assert emulator is not None  # checked at the start
    code = f"import sys; sys.path.insert(0, {str(root.site)!r}); import numpy, ai_edge_litert.interpreter"
    for cpu in CPUS:
        if aarch64.emulates(emulator, cpu):
            done = run_to_end((*root.command(emulator, cpu), "-c", code), _LIMIT)
            if done.returncode:
                raise ToolError(
                    expected=f"{aarch64.emulator_version(emulator)} to import LiteRT on an emulated {cpu.name}",
                    found=last_line(done),
                    next_step=f"try another version of {EMULATOR}, then `make aarch64`",
                )


def _run(command: Sequence[Path | str], held: BinaryIO, settings: Mapping[str, str], expected: str) -> str:
    # What a step starts outlives a killed parent for a moment, and holds the folder so long.
    done = run_to_end(command, _LIMIT, {"LC_ALL": "C", **settings}, held)
    if done.returncode:
        raise ResourceError(
            expected=expected,
            found=_complaint(done),
            next_step="make the distribution's packages and a package index reachable and run `make aarch64` again; "
            f"where arm64 packages have an archive of their own, as with Ubuntu's ports, name a file of apt sources "
            f"for it in {SOURCES_VARIABLE}",
        )
    return done.stdout


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What apt said first, since its last words are of what follows from that; of other programs the last."""
    marked = [line.strip() for line in done.stderr.splitlines() if line.startswith(("E: ", "W: "))]
    return marked[0] if marked else last_line(done)


def _unpack_packages(work: Path, root: Path, held: BinaryIO) -> dict[str, str]:
    """Fetches the packages and what they depend on, and unpacks them; versions by name."""
    apt = _apt_folders(work / "apt", held)
    run = functools.partial(_run, held=held, settings={"APT_CONFIG": str(apt / "apt.conf")})
    run(("apt-get", "update", "-qq"), expected="apt to read the distribution's list of arm64 packages")
    wanted: tuple[str, ...] = PACKAGES
    known = run(("apt-cache", "pkgnames"), expected="apt to list arm64 packages").split()
    if set(ARMNN_PACKAGES) <= set(known):
        wanted = (*PACKAGES, *ARMNN_PACKAGES)
    fetch = ("apt-get", "install", "-qq", "-y", "--download-only", "--no-install-recommends")
    run((*fetch, *wanted), expected=f"arm64 packages of {', '.join(wanted)}")
    root.mkdir()
    versions = {}
    for path in sorted((apt / "archives").glob("*.deb")):
        name, version, _ = path.stem.split("_")
        versions[name] = urllib.parse.unquote(version)
        run(("dpkg", "-x", path, root), expected=f"{path.name} to be unpacked")
    # Where a distribution keeps all below /usr, the link comes with the installation and not with a package.
    if not (root / "lib").exists():
        (root / "lib").symlink_to("usr/lib")
    return versions


def _apt_folders(apt: Path, held: BinaryIO) -> Path:
    """A state, a cache and a configuration of apt's own; returns their folder."""
    for name in ("lists/partial", "archives/partial"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(_sources(held))
    own = {
        "Dir::State": apt,
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt,
        "Dir::Log": apt,
        "Dir::Etc::sourcelist": apt / "sources.list",
        **dict.fromkeys(("main", "parts", "sourceparts", "preferences", "preferencesparts"), "/dev/null"),
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",  # another user could not write here
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
    }
    rows = [f'{key if "::" in key else f"Dir::Etc::{key}"} "{value}";' for key, value in own.items()]
    settings = _run(("apt-config", "dump", "Acquire"), held, {}, "apt to say how it fetches")
    rows += [row for row in settings.splitlines() if _FETCHING.match(row)]
    (apt / "apt.conf").write_text("\n".join(rows) + "\n")
    return apt


def _sources(held: BinaryIO) -> str:
    """Lines of apt sources for arm64: those of the file that the user names, else of this system's distribution."""
    if named := os.environ.get(SOURCES_VARIABLE):
        return _read_sources(Path(named).expanduser())
    form = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
    command = ("apt-get", "indextargets", "--format", form, "Created-By: Packages")
    lines = []
    for row in _run(command, held, {}, "apt to say where its packages are from").splitlines():
        address, release, component, origin = (*row.split(" "), "", "", "", "")[:4]
        if origin in _KEYRINGS and component in _COMPONENTS:
            signed = f" signed-by={_KEYRINGS[origin]}" if Path(_KEYRINGS[origin]).exists() else ""
            lines.append(f"deb [arch=arm64{signed}] {address} {release} {component}\n")
    if not lines:
        raise ResourceError(
            expected="apt to know the packages of Debian or Ubuntu",
            found="none in its lists",
            next_step=f"`apt-get update` as root, or name a file of apt sources in {SOURCES_VARIABLE}; "
            "then `make aarch64`",
        )
    return "".join(dict.fromkeys(lines))


def _read_sources(named: Path) -> str:
    try:
        return named.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(
            expected=f"{SOURCES_VARIABLE} to name a file of apt sources",
            found=f"{named}: {document_fault(error)}",
            next_step="name one with lines such as `deb ADDRESS bookworm main`, or unset it",
        ) from error


def _python_version(root: Path) -> str:
    """`3.11`, from what the root's `python3` is a link to."""
    return os.readlink(root / "usr" / "bin" / "python3").removeprefix("python")


def _unpack_wheels(wheels: Path, site: Path, python: str, held: BinaryIO) -> dict[str, str]:
    """Fetches the locked wheels for that Python, and unpacks them; SHA-256 by file name."""
    pip = (sys.executable, "-I", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input")
    platforms = [f"--platform={name}_aarch64" for name in _WHEEL_PLATFORMS]
    target = ("--no-deps", "--only-binary", ":all:", *platforms, "--implementation", "cp", "--python-version", python)
    expected = f"AArch64 wheels for Python {python}, from {LOCK.name}"
    _run((*pip, "--require-hashes", *target, "-d", wheels, "-r", LOCK), held, {}, expected)
    found = {}
    for path in sorted(wheels.glob("*.whl")):
        found[path.name] = digest_file(path)
        with zipfile.ZipFile(path) as archive:
            archive.extractall(site)
    return found

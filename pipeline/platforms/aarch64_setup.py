"""Creates the AArch64 root in the cache from unpacked packages of this distribution and unpacked wheels.

apt works in separate folders in the cache, with the system's sources and keys but without its state. The system's
packages and architectures therefore do not change, and no root privileges are needed. The packages are the current ones
of the distribution's signed index, recorded in the manifest; the wheels are checked against the hashes in
`aarch64.lock`.

Not for: using the root (`aarch64`).
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
from recreate_model.support.errors import InputError, ResourceError, ToolError, reason
from recreate_model.support.exclusive import exclusive
from recreate_model.support.processes import last_line, run_to_end

SOURCES_VARIABLE = "RECREATE_MODEL_APT_SOURCES"
_LIMIT = 1800  # seconds for one step, which may download 60 MB over a slow connection
_SIZE = "about 65 MB to download, 250 MB on disk"
_KEYRINGS = {
    "Debian": "/usr/share/keyrings/debian-archive-keyring.gpg",
    "Ubuntu": "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
}
_COMPONENTS = ("main", "universe")
_WHEEL_PLATFORMS = ("manylinux_2_17", "manylinux2014", "manylinux_2_27", "manylinux_2_28")
# Settings of the system's apt that apply here too, such as a proxy; its hooks do not.
_DOWNLOAD_SETTINGS = re.compile(r"Acquire::(https?|ftp|Retries|ForceIPv[46])\b")


def ensure(cache: Path, announce: Callable[[str], object]) -> Sysroot:
    """The root; created if the cache has no intact one. If several processes call this at once, one of them creates it.

    Args:
        cache: the download cache folder.
        announce: called with a message before a long step.

    Raises:
        ResourceError: a program is missing, packages or wheels cannot be downloaded, or the disk is full.
        InputError: the user's file of apt sources cannot be read.
        ToolError: the Python of the root does not run.
    """
    _check_programs()
    if found := aarch64.find(cache):
        return found
    folder = aarch64.folder(cache)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        wait = "waiting for another process that creates the AArch64 root"
        with exclusive(folder.with_name(folder.name + ".lock"), lambda: announce(wait)) as lock:
            if found := aarch64.find(cache):
                return found
            announce(f"creating an AArch64 root in {folder}, once ({_SIZE})")
            part = folder.with_name(folder.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            try:
                _create(part, lock)
                shutil.rmtree(folder, ignore_errors=True)
                part.replace(folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise ResourceError(
            expected=f"disk space and permission for an AArch64 root in {folder}",
            found=reason(error),
            next_step="free some space, or set RECREATE_MODEL_CACHE to a folder that can be written",
        ) from error
    found = aarch64.find(cache)
    assert found is not None  # it was created above
    return found


def _check_programs() -> None:
    packages = {EMULATOR: EMULATOR_PACKAGE, "apt-get": "apt", "apt-config": "apt", "dpkg": "dpkg"}
    for program, package in packages.items():
        if shutil.which(program) is None:
            install = f"`apt-get install {package}`, then `make aarch64`"
            other = "use Debian or Ubuntu, or a container with one: the root is made of their packages"
            raise ResourceError(
                expected=f"{program}, to create and run an AArch64 root",
                found="none on the PATH",
                next_step=install if program == EMULATOR else other,
            )


def _create(part: Path, lock: BinaryIO) -> None:
    work = part / "work"
    (work / "wheels").mkdir(parents=True)
    root = part / CPUS[0].name
    packages = _unpack_packages(work, root, lock)
    python = _python_version(root)
    wheels = _unpack_wheels(work / "wheels", part / "site", python, lock)
    shutil.rmtree(work)
    for cpu in CPUS[1:]:
        # Not a symbolic link: a program that resolves it would leave the emulated `/`.
        shutil.copytree(root, part / cpu.name, symlinks=True, copy_function=os.link)
    for cpu in CPUS:
        (part / cpu.name / "proc").mkdir(exist_ok=True)
        (part / cpu.name / "proc" / "cpuinfo").write_text(cpu.cpuinfo)
    aarch64.write_manifest(part, packages, wheels, python)
    _check_imports(Sysroot(part, packages, tuple(wheels), python))


def _check_imports(root: Sysroot) -> None:
    """Imports the modules that jobs need, on each CPU that this emulator supports."""
    emulator = aarch64.emulator()
    assert emulator is not None  # checked in _check_programs
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


def _run(command: Sequence[Path | str], lock: BinaryIO, settings: Mapping[str, str], expected: str) -> str:
    """Runs a command with the environment variables `settings`; returns its standard output."""
    # The child process inherits the lock: if this process is killed, the folder stays locked until the child ends.
    done = run_to_end(command, _LIMIT, {"LC_ALL": "C", **settings}, lock)
    if done.returncode:
        raise ResourceError(
            expected=expected,
            found=_complaint(done),
            next_step="make the distribution's packages and a package index reachable and run `make aarch64` again; "
            f"if arm64 packages have a separate archive, as Ubuntu's do, name a file of apt sources for it in "
            f"{SOURCES_VARIABLE}",
        )
    return done.stdout


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The first error of apt, because later ones follow from it; the last line of other programs."""
    marked = [line.strip() for line in done.stderr.splitlines() if line.startswith(("E: ", "W: "))]
    return marked[0] if marked else last_line(done)


def _unpack_packages(work: Path, root: Path, lock: BinaryIO) -> dict[str, str]:
    """Downloads and unpacks the packages and their dependencies; returns package name -> version."""
    apt = _apt_folders(work / "apt", lock)
    run = functools.partial(_run, lock=lock, settings={"APT_CONFIG": str(apt / "apt.conf")})
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
    # If a distribution has merged /usr, the installer creates this link and no package contains it.
    if not (root / "lib").exists():
        (root / "lib").symlink_to("usr/lib")
    return versions


def _apt_folders(apt: Path, lock: BinaryIO) -> Path:
    """Creates state, cache and configuration folders for apt; returns their parent folder."""
    for name in ("lists/partial", "archives/partial"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(_sources(lock))
    options = {
        "Dir::State": apt,
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt,
        "Dir::Log": apt,
        "Dir::Etc::sourcelist": apt / "sources.list",
        **dict.fromkeys(("main", "parts", "sourceparts", "preferences", "preferencesparts"), "/dev/null"),
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",  # the sandbox user could not write here
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
    }
    rows = [f'{key if "::" in key else f"Dir::Etc::{key}"} "{value}";' for key, value in options.items()]
    settings = _run(("apt-config", "dump", "Acquire"), lock, {}, "apt to print its download settings")
    rows += [row for row in settings.splitlines() if _DOWNLOAD_SETTINGS.match(row)]
    (apt / "apt.conf").write_text("\n".join(rows) + "\n")
    return apt


def _sources(lock: BinaryIO) -> str:
    """Lines of apt sources for arm64: the file that the user names, else the sources of this system."""
    if named := os.environ.get(SOURCES_VARIABLE):
        return _read_sources(Path(named).expanduser())
    form = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
    command = ("apt-get", "indextargets", "--format", form, "Created-By: Packages")
    lines = []
    for row in _run(command, lock, {}, "apt to list its package sources").splitlines():
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
    """The version of the root's Python, such as `3.11`, from the target of the link `python3`."""
    return os.readlink(root / "usr" / "bin" / "python3").removeprefix("python")


def _unpack_wheels(wheels: Path, site: Path, python: str, lock: BinaryIO) -> dict[str, str]:
    """Downloads and unpacks the locked wheels for this Python; returns file name -> SHA-256."""
    pip = (sys.executable, "-I", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input")
    platforms = [f"--platform={name}_aarch64" for name in _WHEEL_PLATFORMS]
    target = ("--no-deps", "--only-binary", ":all:", *platforms, "--implementation", "cp", "--python-version", python)
    expected = f"AArch64 wheels for Python {python}, from {LOCK.name}"
    _run((*pip, "--require-hashes", *target, "-d", wheels, "-r", LOCK), lock, {}, expected)
    found = {}
    for path in sorted(wheels.glob("*.whl")):
        found[path.name] = digest_file(path)
        with zipfile.ZipFile(path) as archive:
            archive.extractall(site)
    return found

"""A bare-metal image of the standalone runtime: built by the Arm compiler, run by QEMU, its outputs read back.

For: showing that the emitted C works as Cortex-M code. QEMU shows what is computed and counts instructions; it knows
nothing of cycles. Not for: comparing outputs (`pipeline.platforms`), or what is printed
(`pipeline.interface.commands.firmware`).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline.c_array import identifier
from pipeline.cortex_m import firmware
from pipeline.cortex_m.firmware.boards import NANOSECONDS_PER_TICK, Board
from pipeline.engine import user_files
from pipeline.engine.work import CORTEX_M_FOLDER, STANDALONE_FOLDER
from recreate_model.support.arrays import Array
from recreate_model.support.errors import ResourceError, ToolError
from recreate_model.support.processes import run_to_end

# The stages whose files an image is made of.
STAGES_NEEDED = ("c-array", "standalone")
COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
_PACKAGES = {COMPILER: "gcc-arm-none-eabi libnewlib-arm-none-eabi", EMULATOR: "qemu-system-arm"}
_COMPILE_LIMIT = 600  # seconds; it takes about ten
_FLAGS = ("-std=gnu99", "-O2", "-mthumb", "-Wall", "-Wextra", "-Werror", "-ffunction-sections", "-fdata-sections")
_LINK = ("-nostartfiles", "-Wl,--gc-sections", "--specs=nosys.specs")
_IN_MODEL = '__attribute__((section(".model")))'
_CLASS = re.compile(r"best (\d+) score (-?\d+) (.*)")
_WORDS = 500  # characters of a tool's last words in a message


@dataclass(frozen=True)
class Best:
    """One of the best classes of a picture, as the device printed it."""

    number: int
    score: int
    label: str


@dataclass(frozen=True, eq=False)
class Run:
    """What a board did with the pictures.

    Attributes:
        crc32: of the model's array, computed on the board.
        outputs: int8 (n, classes).
        instructions: for each picture, to the nearest 40.
        best: for each picture, from the best class down.
        seconds: the emulator's whole time, from its start to its end.
    """

    crc32: int
    outputs: Array = field(repr=False)
    instructions: tuple[int, ...]
    best: tuple[tuple[Best, ...], ...]
    seconds: float


def check_tools() -> None:
    """Raises ResourceError where the compiler, its C library or the emulator is missing; it names the package."""
    for tool, packages in _PACKAGES.items():
        if shutil.which(tool) is None:
            raise _missing(tool, packages)
    # The compiler prints a path where it has the library, and the bare name where it has not.
    found = run_to_end((COMPILER, "-print-file-name=libc.a"), 60).stdout.strip()
    if found == "libc.a":
        raise _missing("newlib for Arm (libc.a)", "libnewlib-arm-none-eabi")


def tool_versions() -> tuple[str, str]:
    """The compiler and the emulator with their versions, as evidence names them."""
    compiler = run_to_end((COMPILER, "-dumpfullversion"), 60).stdout.strip()
    emulator = re.search(r"version ([\d.]+)", run_to_end((EMULATOR, "--version"), 60).stdout)
    return f"{COMPILER} {compiler}", f"{EMULATOR} {emulator[1] if emulator else 'of an unknown version'}"


def sources_of(build: Mapping[str, Path]) -> dict[str, str]:
    """The C sources of a build that go into an image, by file name; `build` is its files by their paths in it."""
    folders = (CORTEX_M_FOLDER, STANDALONE_FOLDER)
    paths = [PurePosixPath(path) for path in build if str(PurePosixPath(path).parent) in folders]
    return {path.name: build[str(path)].read_text(encoding="utf-8") for path in paths if path.suffix in (".c", ".h")}


def build_image(board: Board, sources: Mapping[str, str], name: str, folder: Path, option: str = "TMPDIR") -> Path:
    """Compiles a model's sources and the check for a board, in `folder`; the path of the image, an ELF file.

    Args:
        sources: file name -> text, of `sources_of`.
        name: of the model's file.
        folder: made where it is not there; images for several boards can lie in it.
        option: under which the user named it.

    Raises:
        InputError: in `folder` lies something else under the name of a source.
        ResourceError: it cannot be written.
        ToolError: the compiler failed.
    """
    script = f"{board.name}.ld"
    written = {
        **sources,
        "firmware_model.h": names(name, sources),
        "firmware.c": _data("firmware.c"),
        script: _data("firmware.ld").replace("@model_address@", f"{board.model_address:#x}"),
    }
    user_files.write_new(folder, written, option)
    image = folder / f"{board.name}.elf"
    placed = [f"-D{what}={_IN_MODEL}" for what in ("MODEL_DATA_SECTION", "MODEL_CONSTANTS_SECTION")]
    command = [COMPILER, *board.flags, *_FLAGS, f"-DCOUNTER={board.counter:#x}", *placed, *_LINK, "-T", script]
    command += ["-o", image.name, *sorted(file for file in written if file.endswith(".c"))]
    done = run_to_end(command, _COMPILE_LIMIT, cwd=folder)
    if done.returncode:
        raise ToolError(
            expected=f"{COMPILER} to build an image for {board.name}",
            found=_last_words(done),
            next_step="report it with the compiler's version (Debian's gcc-arm-none-eabi 12.2 works)",
        )
    return image


def run_image(board: Board, image: Path, inputs: Array, limit: float) -> Run:
    """Runs an image on pictures, int8 (n, height, width, 3).

    Args:
        limit: seconds that the emulator may take.

    Raises:
        ToolError: it crashed, hung, or printed something else than the firmware prints.
    """
    folder = image.parent
    (folder / "inputs.bin").write_bytes(inputs.tobytes())
    (folder / "outputs.bin").write_bytes(b"")  # what an earlier run left is not this one's
    command = [EMULATOR, "-M", board.name, "-display", "none", "-monitor", "none", "-serial", "none"]
    # Every instruction takes a nanosecond of the board's time, so that its counter counts them.
    command += ["-icount", "shift=0", "-semihosting-config", "enable=on,target=native", "-kernel", image.name]
    start = time.perf_counter()
    done = run_to_end(command, limit, cwd=folder)
    seconds = time.perf_counter() - start
    lines = f"{done.stdout}\n{done.stderr}".splitlines()
    if done.returncode or "done" not in lines:
        slow = seconds >= limit
        raise ToolError(
            expected=f"the firmware to end on {board.name} under {EMULATOR}",
            found=_last_words(done),
            next_step="give a longer --time-limit, or fewer --pictures" if slow else "report it",
        )
    try:
        return _read(lines, (folder / "outputs.bin").read_bytes(), len(inputs), seconds)
    except ValueError as error:
        raise ToolError(
            expected=f"the firmware on {board.name} to give a CRC-32, and scores and classes of {len(inputs)} pictures",
            found=str(error),
            next_step="report it",
        ) from error


def _read(lines: Sequence[str], outputs: bytes, count: int, seconds: float) -> Run:
    """What the firmware said and wrote of `count` pictures; raises ValueError where that is not all of it."""
    ticks = [int(line.split()[-1]) for line in lines if line.startswith("picture ")]
    best = tuple(_best(lines))
    if (len(ticks), len(best)) != (count, count):
        raise ValueError(f"{len(ticks)} pictures, and classes of {len(best)}")
    (crc,) = [int(line.split()[1], 16) for line in lines if line.startswith("crc32 ")]
    instructions = tuple(ticked * NANOSECONDS_PER_TICK for ticked in ticks)
    return Run(crc, np.frombuffer(outputs, np.int8).reshape(count, -1), instructions, best, seconds)


def _best(lines: Sequence[str]) -> Iterator[tuple[Best, ...]]:
    found: list[Best] = []
    for line in (*lines, "picture"):
        if line.startswith("picture"):
            if found:
                yield tuple(found)
            found = []
        elif match := _CLASS.fullmatch(line):
            found.append(Best(int(match[1]), int(match[2]), match[3]))


def names(name: str, sources: Collection[str]) -> str:
    """A header by whose names a program uses a model's files.

    Args:
        name: of the model's file.
        sources: names of the files.
    """
    c_name = identifier(name)
    prefix = c_name.upper()
    without = 'enum { LABELS_COUNT };\nstatic const char *const labels[] = {""};'
    labels = '#include "labels.h"' if "labels.h" in sources else without
    return f"""\
{labels}
#include "{c_name}.h"
#include "{c_name}_run.h"

#define MODEL_DATA {c_name}_data
#define MODEL_SIZE {prefix}_SIZE
#define MODEL_CLASSES {prefix}_RUN_OUTPUT_BYTES
#define MODEL_INPUT_BYTES {prefix}_RUN_INPUT_BYTES
#define model_input {c_name}_input
#define model_run {c_name}_run
#define model_output {c_name}_output
"""


def _data(file: str) -> str:
    return files(firmware).joinpath(file).read_text(encoding="utf-8")


def _missing(what: str, packages: str) -> ResourceError:
    return ResourceError(
        expected=f"{what}, to build firmware and run it",
        found="none on this machine",
        done="nothing was built",
        next_step=f"install it (Debian and Ubuntu: apt-get install {packages})",
    )


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    said = " ".join(f"{done.stdout} {done.stderr}".split())
    return said[-_WORDS:] or f"no word, and exit status {done.returncode}"

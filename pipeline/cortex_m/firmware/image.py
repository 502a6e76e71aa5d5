"""Builds a bare-metal image of the standalone runtime with the Arm compiler, runs it under QEMU and reads its outputs.

For: checking that the generated C works as Cortex-M code. QEMU gives the outputs and counts instructions; it does not
model cycles. Not for: comparing outputs (`pipeline.platforms`), or printing (`pipeline.interface.commands.firmware`).
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

# The stages whose files an image is built from.
STAGES_NEEDED = ("c-array", "standalone")
COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
_PACKAGES = {COMPILER: "gcc-arm-none-eabi libnewlib-arm-none-eabi", EMULATOR: "qemu-system-arm"}
_COMPILE_LIMIT = 600  # seconds; it takes about ten
_FLAGS = ("-std=gnu99", "-O2", "-mthumb", "-Wall", "-Wextra", "-Werror", "-ffunction-sections", "-fdata-sections")
_LINK = ("-nostartfiles", "-Wl,--gc-sections", "--specs=nosys.specs")
_MODEL_SECTION = '__attribute__((section(".model")))'
_BEST_LINE = re.compile(r"best (\d+) score (-?\d+) (.*)")
_SHOWN = 500  # most characters of a tool's output in a message


@dataclass(frozen=True)
class Best:
    """One of the highest-scoring classes of a picture, as the device printed it."""

    number: int
    score: int
    label: str


@dataclass(frozen=True, eq=False)
class Run:
    """The results of a board for all pictures.

    Attributes:
        crc32: of the model's C array, computed on the board.
        outputs: int8 (n, classes).
        instructions: executed for each picture, to the nearest 40.
        best: for each picture, its best classes, highest score first.
        seconds: run time of the emulator, including its start.
    """

    crc32: int
    outputs: Array = field(repr=False)
    instructions: tuple[int, ...]
    best: tuple[tuple[Best, ...], ...]
    seconds: float


def check_tools() -> None:
    """Checks that the compiler, its C library and the emulator are installed.

    Raises:
        ResourceError: one is missing; the message names its package.
    """
    for tool, packages in _PACKAGES.items():
        if shutil.which(tool) is None:
            raise _missing(tool, packages)
    # The compiler prints a path if it has the library, else only the name.
    found = run_to_end((COMPILER, "-print-file-name=libc.a"), 60).stdout.strip()
    if found == "libc.a":
        raise _missing("newlib for Arm (libc.a)", "libnewlib-arm-none-eabi")


def tool_versions() -> tuple[str, str]:
    """Name and version of the compiler and of the emulator."""
    compiler = run_to_end((COMPILER, "-dumpfullversion"), 60).stdout.strip()
    emulator = re.search(r"version ([\d.]+)", run_to_end((EMULATOR, "--version"), 60).stdout)
    return f"{COMPILER} {compiler}", f"{EMULATOR} {emulator[1] if emulator else 'of an unknown version'}"


def sources_of(build: Mapping[str, Path]) -> dict[str, str]:
    """File name -> text of the C sources for an image.

    Args:
        build: path in the build folder -> path on disk, for every file of the build.
    """
    folders = (CORTEX_M_FOLDER, STANDALONE_FOLDER)
    paths = [PurePosixPath(path) for path in build if str(PurePosixPath(path).parent) in folders]
    return {path.name: build[str(path)].read_text(encoding="utf-8") for path in paths if path.suffix in (".c", ".h")}


def build_image(board: Board, sources: Mapping[str, str], name: str, folder: Path, option: str = "TMPDIR") -> Path:
    """Compiles a model's sources and `firmware.c` for a board; returns the path of the image, an ELF file in `folder`.

    Args:
        sources: file name -> text, from `sources_of`.
        name: the model's file name.
        folder: created if needed; it can hold the images of several boards.
        option: the option or variable by which the user chose the folder, for messages.

    Raises:
        InputError: the folder has a file with the name of a source and other content.
        ResourceError: the folder cannot be written.
        ToolError: the compiler failed.
    """
    script = f"{board.name}.ld"
    written = {
        **sources,
        "firmware_model.h": names_header(name, sources),
        "firmware.c": _package_file("firmware.c"),
        script: _package_file("firmware.ld").replace("@model_address@", f"{board.model_address:#x}"),
    }
    user_files.write_new(folder, written, option)
    image = folder / f"{board.name}.elf"
    sections = [f"-D{what}={_MODEL_SECTION}" for what in ("MODEL_DATA_SECTION", "MODEL_CONSTANTS_SECTION")]
    command = [COMPILER, *board.flags, *_FLAGS, f"-DCOUNTER={board.counter:#x}", *sections, *_LINK, "-T", script]
    command += ["-o", image.name, *sorted(file for file in written if file.endswith(".c"))]
    done = run_to_end(command, _COMPILE_LIMIT, cwd=folder)
    if done.returncode:
        raise ToolError(
            expected=f"{COMPILER} to build an image for {board.name}",
            found=_output_tail(done),
            next_step="report it with the compiler's version (Debian's gcc-arm-none-eabi 12.2 works)",
        )
    return image


def run_image(board: Board, image: Path, inputs: Array, limit: float) -> Run:
    """Runs an image on pictures under QEMU.

    Args:
        image: from `build_image`; `inputs.bin` and `outputs.bin` are written to the same folder.
        inputs: int8 (n, height, width, 3).
        limit: time limit for the emulator, in seconds.

    Raises:
        ToolError: the firmware crashed, exceeded the limit, or printed unexpected output.
    """
    folder = image.parent
    (folder / "inputs.bin").write_bytes(inputs.tobytes())
    (folder / "outputs.bin").write_bytes(b"")  # remove the outputs of an earlier run
    command = [EMULATOR, "-M", board.name, "-display", "none", "-monitor", "none", "-serial", "none"]
    # Every instruction takes one nanosecond of emulated time, so the board's counter counts instructions.
    command += ["-icount", "shift=0", "-semihosting-config", "enable=on,target=native", "-kernel", image.name]
    start = time.perf_counter()
    done = run_to_end(command, limit, cwd=folder)
    seconds = time.perf_counter() - start
    lines = f"{done.stdout}\n{done.stderr}".splitlines()
    if done.returncode or "done" not in lines:
        timed_out = seconds >= limit
        raise ToolError(
            expected=f"the firmware to finish on {board.name} under {EMULATOR}",
            found=_output_tail(done),
            next_step="give a longer --time-limit, or fewer --pictures" if timed_out else "report it",
        )
    try:
        return _parse_run(lines, (folder / "outputs.bin").read_bytes(), len(inputs), seconds)
    except ValueError as error:
        raise ToolError(
            expected=f"the firmware on {board.name} to print a CRC-32 and the results of {len(inputs)} pictures",
            found=str(error),
            next_step="report it",
        ) from error


def _parse_run(lines: Sequence[str], outputs: bytes, count: int, seconds: float) -> Run:
    """The results that the firmware printed and wrote for `count` pictures.

    Raises:
        ValueError: results are missing.
    """
    ticks = [int(line.split()[-1]) for line in lines if line.startswith("picture ")]
    best = tuple(_parse_best(lines))
    if (len(ticks), len(best)) != (count, count):
        raise ValueError(f"run times of {len(ticks)} pictures and classes of {len(best)}")
    (crc,) = [int(line.split()[1], 16) for line in lines if line.startswith("crc32 ")]
    instructions = tuple(count_of_ticks * NANOSECONDS_PER_TICK for count_of_ticks in ticks)
    return Run(crc, np.frombuffer(outputs, np.int8).reshape(count, -1), instructions, best, seconds)


def _parse_best(lines: Sequence[str]) -> Iterator[tuple[Best, ...]]:
    """The best classes of each picture in the firmware's output."""
    found: list[Best] = []
    for line in (*lines, "picture"):
        if line.startswith("picture"):
            if found:
                yield tuple(found)
            found = []
        elif match := _BEST_LINE.fullmatch(line):
            found.append(Best(int(match[1]), int(match[2]), match[3]))


def names_header(name: str, sources: Collection[str]) -> str:
    """The text of a header that gives a model's arrays and functions the same names for every model.

    Args:
        name: the model's file name.
        sources: names of the model's C files.
    """
    c_name = identifier(name)
    prefix = c_name.upper()
    no_labels = 'enum { LABELS_COUNT };\nstatic const char *const labels[] = {""};'
    labels = '#include "labels.h"' if "labels.h" in sources else no_labels
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


def _package_file(file: str) -> str:
    return files(firmware).joinpath(file).read_text(encoding="utf-8")


def _missing(what: str, packages: str) -> ResourceError:
    return ResourceError(
        expected=f"{what}, to build and run firmware",
        found="none on this machine",
        done="nothing was built",
        next_step=f"install it (Debian and Ubuntu: apt-get install {packages})",
    )


def _output_tail(done: subprocess.CompletedProcess[str]) -> str:
    """The end of what a tool printed, for a message."""
    output = " ".join(f"{done.stdout} {done.stderr}".split())
    return output[-_SHOWN:] or f"no output, and exit status {done.returncode}"

"""Evidence for Cortex-M: the standalone runtime as bare-metal code on three emulated boards.

For: a tick on the card, which means that Cortex-M code ran and gave the reference kernels' bytes. Not for: speed; the
emulator counts instructions, not cycles.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from pipeline.cortex_m.firmware import image
from pipeline.cortex_m.firmware.boards import BOARDS, Board
from pipeline.platforms.evidence import Evidence, Subject, bit_exact
from recreate_model.support.errors import ResourceError, ToolError

PICTURES = 3  # on each of three boards; an emulated inference takes about a second
_LIMIT = 600  # seconds for the emulator, on a busy machine
_WHAT = "the standalone C99 runtime as bare-metal code"


def check(subject: Subject, build: Mapping[str, Path]) -> list[Evidence]:
    """Builds and runs an image for every board; returns one row for each.

    Args:
        build: path in the build folder -> path on disk, for every file of the build.
    """
    try:
        image.check_tools()
    except ResourceError as error:
        return [Evidence("Cortex-M", "not run", _WHAT, missing=f"{error.expected}: {error.next_step}")]
    if not any(name.endswith("_run.c") for name in image.sources_of(build)):
        return [Evidence("Cortex-M", "not run", _WHAT, missing="the runtime, which lacks something of this model")]
    return [_board_row(board, subject, build) for board in BOARDS]


def _board_row(board: Board, subject: Subject, build: Mapping[str, Path]) -> Evidence:
    """The evidence of one board; a failure becomes a row, so the other boards still run."""
    try:
        return _run_on_board(board, subject, build)
    except ToolError as error:
        return Evidence("Cortex-M", "not run", f"{_WHAT}: {error.expected}", fault=error.found)


def _run_on_board(board: Board, subject: Subject, build: Mapping[str, Path]) -> Evidence:
    """Builds and runs the image for a board.

    Raises:
        ToolError: the compiler, the emulator or the firmware failed.
    """
    inputs, expected = subject.inputs[:PICTURES], subject.expected[:PICTURES]
    with tempfile.TemporaryDirectory(prefix="recreate_model-") as folder:
        elf = image.build_image(board, image.sources_of(build), subject.name, Path(folder))
        found = image.run_image(board, elf, inputs, _LIMIT)
    damaged = found.crc32 != zlib.crc32(subject.model)
    return Evidence(
        "Cortex-M",
        "ran",
        _WHAT,
        device=f"{board.name} ({board.core}, emulated)",
        tools=image.tool_versions(),
        agreement=bit_exact(found.outputs, expected),
        pictures=len(inputs),
        seconds=round(found.seconds / len(inputs), 3),
        note=f"{max(found.instructions):,} instructions per inference; the time includes starting the emulator",
        fault=f"the array's CRC-32 is {found.crc32:08x} on the board" if damaged else "",
    )

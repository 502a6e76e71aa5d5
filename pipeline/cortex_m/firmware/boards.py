"""The boards that firmware is built for: what QEMU emulates, and what the compiler must know.

Addresses are those of Arm's application notes of the same numbers, as QEMU 7.2 has them. Not for: building (`image`).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from recreate_model.support.errors import UsageError


@dataclass(frozen=True)
class Board:
    """One machine of QEMU.

    Attributes:
        name: as QEMU calls the machine.
        core: the processor, as evidence names it.
        flags: for the compiler.
        model_address: where megabytes of constants lie. Elsewhere some of these boards read garbage without a fault,
            which the CRC-32 of the array notices.
        counter: address of a counter that goes up at 25 MHz.
    """

    name: str
    core: str
    flags: tuple[str, ...]
    model_address: int
    counter: int


BOARDS = (
    Board("mps3-an547", "Cortex-M55", ("-mcpu=cortex-m55", "-mfloat-abi=hard"), 0x60000000, 0x49302018),
    Board("mps2-an500", "Cortex-M7", ("-mcpu=cortex-m7", "-mfloat-abi=soft"), 0x60000000, 0x40028018),
    Board("mps2-an386", "Cortex-M4", ("-mcpu=cortex-m4", "-mfloat-abi=soft"), 0x21000000, 0x40028018),
)
NANOSECONDS_PER_TICK = 40  # of the counter; with `-icount shift=0` an instruction takes one


def board(name: str) -> Board:
    """The board of that name. Raises UsageError for any other."""
    known = {each.name: each for each in BOARDS}
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1) or [BOARDS[0].name]
        boards = ", ".join(f"{each.name} ({each.core})" for each in BOARDS)
        raise UsageError(expected=f"--board to be one of {boards}", found=repr(name), next_step=f"give {nearest[0]}")
    return known[name]

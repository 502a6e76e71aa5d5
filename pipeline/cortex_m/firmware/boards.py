"""The boards that firmware is built for: their QEMU machines, compiler flags and addresses.

Addresses are from Arm's application notes AN547, AN500 and AN386, as QEMU 7.2 implements them. Not for: building
(`image`).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from recreate_model.support.errors import UsageError


@dataclass(frozen=True)
class Board:
    """A board that QEMU emulates.

    Attributes:
        name: of the QEMU machine.
        core: name of the processor, such as `Cortex-M55`.
        flags: compiler options.
        model_address: start of a memory large enough for the model. At other addresses some of these boards read
            garbage without a fault; the CRC-32 of the array detects that.
        counter: address of a counter that runs at 25 MHz.
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
NANOSECONDS_PER_TICK = 40  # of the counter; with `-icount shift=0` an instruction takes one nanosecond


def board(name: str) -> Board:
    """The board with this name.

    Raises:
        UsageError: there is no such board.
    """
    known = {known_board.name: known_board for known_board in BOARDS}
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1) or [BOARDS[0].name]
        boards = ", ".join(f"{known_board.name} ({known_board.core})" for known_board in BOARDS)
        raise UsageError(expected=f"--board to be one of {boards}", found=repr(name), next_step=f"give {nearest[0]}")
    return known[name]

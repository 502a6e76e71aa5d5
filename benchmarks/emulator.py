"""Running Python on another CPU: `qemu-x86_64` emulates the instructions of the one named, not its caches."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

PROGRAM = "qemu-x86_64"


def emulated(python: Path, cpu: str, folder: Path) -> Path:
    """A program in the folder that runs this Python on an emulated CPU, as `qemu-x86_64 -cpu help` names it."""
    emulator = shutil.which(PROGRAM)
    if emulator is None:
        raise SystemExit(
            f"error: expected {PROGRAM}, to emulate other CPUs; found none on the PATH; done: nothing; "
            "next: install it (Debian and Ubuntu: qemu-user)"
        )
    program = folder / f"python-{cpu}"
    program.write_text(
        f'#!/bin/sh\nexec {shlex.quote(emulator)} -cpu {shlex.quote(cpu)} {shlex.quote(str(python))} "$@"\n'
    )
    program.chmod(0o755)
    return program


def environment() -> dict[str, str]:
    """This process's environment, without what it says of this CPU's caches and kernels."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}

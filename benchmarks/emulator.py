"""Runs Python on an emulated CPU: `qemu-x86_64` emulates its instructions, not its caches."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

PROGRAM = "qemu-x86_64"


def emulated(python: Path, cpu: str, folder: Path) -> Path:
    """Writes a script to the folder that runs a Python on an emulated CPU, and returns its path.

    Args:
        cpu: a name from `qemu-x86_64 -cpu help`.
    """
    emulator = shutil.which(PROGRAM)
    if emulator is None:
        raise SystemExit(
            f"error: expected {PROGRAM}, to emulate other CPUs; found none on the PATH; done: nothing was measured; "
            "next: install it (Debian and Ubuntu: qemu-user)"
        )
    program = folder / f"python-{cpu}"
    program.write_text(
        f'#!/bin/sh\nexec {shlex.quote(emulator)} -cpu {shlex.quote(cpu)} {shlex.quote(str(python))} "$@"\n'
    )
    program.chmod(0o755)
    return program


def environment() -> dict[str, str]:
    """This process's environment without the OpenBLAS settings for this CPU."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}

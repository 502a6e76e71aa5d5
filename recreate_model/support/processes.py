"""Child processes that end with their parent, even if the parent is killed and cannot stop them.

Workers and tools need this: they write into folders that the next run will use. Only Linux notifies a process when its
parent ends; on other systems a child runs to completion.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h
# Looked up at import: between fork and exec, a child of a multithreaded process must do as little as possible.
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when the thread that started it ends; kill it now if its parent has ended.

    Args:
        parent: id of the process that started this one.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def run_to_end(
    command: Sequence[Path | str],
    limit: float,
    settings: Mapping[str, str] | None = None,
    stdin: BinaryIO | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to completion and capture its output.

    Args:
        command: the program and its arguments.
        limit: timeout in seconds.
        settings: variables added to the environment.
        stdin: standard input of the program and its children.
        cwd: working directory; by default, that of this process.

    Returns:
        The finished process. If it could not be started or timed out, its exit status is -1 and the reason is in its
        standard error.
    """
    words = [str(word) for word in command]
    try:
        return subprocess.run(
            words,
            stdin=stdin,
            cwd=cwd,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
            env={**os.environ, **(settings or {})},
            check=False,
            preexec_fn=functools.partial(die_with_parent, os.getpid()),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else f"a timeout after {limit:g} s"
        return subprocess.CompletedProcess(words, -1, "", reason or str(error))


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line that a program printed, or its exit status if it printed nothing; for an error message."""
    lines = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {done.returncode} without any output"

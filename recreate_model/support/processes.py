"""Processes that do not outlive the one that started them, even where that one is killed and can stop nothing.

For: workers and tools that write into folders another run will use. Only Linux tells a process of its parent's end;
elsewhere a process goes on until it is done.
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

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h
# Looked up now, since in a process that was forked from one with threads little may be done.
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


def die_with_parent(parent: int) -> None:
    """Has this process killed when the thread that started it ends; at once where that has happened.

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
    """Runs a program to its end; one that cannot be started or takes too long has failed, with the reason as output.

    Args:
        limit: seconds it may take.
        settings: added to the environment.
        stdin: what it and all that it starts inherit as standard input.
        cwd: the folder it runs in; by default this process's.
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
        reason = error.strerror if isinstance(error, OSError) else f"no end after {limit:g} s"
        return subprocess.CompletedProcess(words, -1, "", reason or str(error))


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a program printed last, for an error in one line."""
    lines = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
    return lines[-1] if lines else f"no word, and exit status {done.returncode}"

"""The lock file: one process holds it at a time, and it is free when that process and its children have ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recreate_model.support.exclusive import exclusive
from tests.test_bad_input import ROOT

# Takes the lock at the given path, starts a child that inherits the lock file, and prints the child's id.
HOLDER = """
import subprocess, sys, time
from pathlib import Path
from recreate_model.support.exclusive import exclusive

with exclusive(Path(sys.argv[1]), lambda: None) as held:
    child = subprocess.Popen(["sleep", "60"], stdin=held, stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    time.sleep(60)
"""
# Prints each time that it has to wait for the lock, and again when it holds it.
WAITER = """
import sys
from pathlib import Path
from recreate_model.support.exclusive import exclusive

with exclusive(Path(sys.argv[1]), lambda: print("waits", flush=True)):
    print("holds", flush=True)
"""


def started(script: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_process_reports_once_that_it_waits(tmp_path: Path) -> None:
    """It gets the lock when the first process releases it. The file remains for the next process."""
    path = tmp_path / "lock"
    with exclusive(path, lambda: pytest.fail("no process holds it")):
        waiter = started(WAITER, path)
        assert line(waiter) == "waits"
    assert waiter.communicate(timeout=30)[0].split() == ["holds"]
    with exclusive(path, lambda: pytest.fail("no process holds it now")):
        assert path.is_file()


def test_the_lock_of_a_killed_process_is_free_once_its_children_end(tmp_path: Path) -> None:
    """A child that inherited the file keeps the lock until it ends, because it may still write."""
    path = tmp_path / "lock"
    holder = started(HOLDER, path)
    child = int(line(holder))
    waiter = started(WAITER, path)
    assert line(waiter) == "waits"
    holder.kill()
    holder.wait(timeout=30)
    with pytest.raises(subprocess.TimeoutExpired):
        waiter.wait(timeout=0.5)
    os.kill(child, signal.SIGKILL)
    assert waiter.communicate(timeout=30)[0].split() == ["holds"]


def test_a_missing_folder_is_an_error_of_the_file_system(tmp_path: Path) -> None:
    """Callers turn it into a one-line error of four parts."""
    with pytest.raises(FileNotFoundError), exclusive(tmp_path / "none" / "lock", lambda: None):
        pass

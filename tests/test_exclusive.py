"""The lock file: one holder at a time, and none that outlives its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recreate_model.support.exclusive import exclusive
from tests.test_bad_input import ROOT

# Takes the lock of the path given, starts a child that inherits the lock file, and says the child's id.
HOLDER = """
import subprocess, sys, time
from pathlib import Path
from recreate_model.support.exclusive import exclusive

with exclusive(Path(sys.argv[1]), lambda: None) as held:
    child = subprocess.Popen(["sleep", "60"], stdin=held, stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    time.sleep(60)
"""
# Takes the lock, and says so; before that, each time it is told to wait.
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


def test_a_second_process_says_once_that_it_waits(tmp_path: Path) -> None:
    """It gets the lock when the first lets go, and the file stays for the next."""
    path = tmp_path / "lock"
    with exclusive(path, lambda: pytest.fail("nobody holds it")):
        waiter = started(WAITER, path)
        assert line(waiter) == "waits"
    assert waiter.communicate(timeout=30)[0].split() == ["holds"]
    with exclusive(path, lambda: pytest.fail("nobody holds it any more")):
        assert path.is_file()


def test_a_killed_holder_leaves_no_lock_once_its_children_end(tmp_path: Path) -> None:
    """A child that inherited the file keeps the lock until it ends too: it may still write."""
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


def test_a_folder_that_is_not_there_is_an_error_of_the_file_system(tmp_path: Path) -> None:
    """Callers turn it into one line of four parts."""
    with pytest.raises(FileNotFoundError), exclusive(tmp_path / "none" / "lock", lambda: None):
        pass

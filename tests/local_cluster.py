"""A real Dask cluster on loopback: a scheduler and workers in separate processes, as a user starts them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from calibration.pictures.sources import ProceduralSource
from recreate_model.support.arrays import Array
from recreate_model.support.processes import die_with_parent

Value = TypeVar("Value")
ROOT = Path(__file__).parents[1]


@dataclass
class LocalCluster:
    """A scheduler without any of this project's code, and the workers started so far."""

    folder: Path
    address: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *arguments: str, cwd: Path, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Runs a command of Dask, with its log in the folder."""
        log = (self.folder / f"{len(self.processes)}.log").open("wb")
        command = [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--no-dashboard"]
        plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=plain | (environment or {}),
            stdout=log,
            stderr=log,
            start_new_session=True,
            # Tests that are killed cannot stop their workers, which would run on for days.
            preexec_fn=functools.partial(die_with_parent, os.getpid()),
        )
        self.processes.append(process)
        return process

    def start_worker(
        self, code: Path = ROOT, environment: dict[str, str] | None = None, threads: int = 1, nanny: bool = False
    ) -> subprocess.Popen[bytes]:
        """Starts a worker with the code in this folder; a nanny restarts it. It may not be connected yet on return."""
        arguments = ("worker", self.address, "--nanny" if nanny else "--no-nanny", "--nthreads", str(threads))
        local = ("--local-directory", str(self.folder))
        return self.start(*arguments, *local, cwd=code, environment=environment)

    def wait_for_workers(self, count: int) -> None:
        """Waits until the scheduler has this many workers."""
        import distributed

        with distributed.Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=120)

    def wait_for_tasks(self, there: bool) -> None:
        """Waits until the scheduler has tasks, or none: what a client sends takes a moment to arrive."""
        import distributed

        def look() -> None:
            if bool(client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))) != there:
                raise ValueError(f"expected {'tasks' if there else 'no task'} at {self.address}")

        with distributed.Client(self.address, set_as_default=False) as client:
            when_there(look)


@contextlib.contextmanager
def local_cluster(folder: Path) -> Iterator[LocalCluster]:
    """Starts a scheduler without workers; at the end, stops it and all workers started meanwhile."""
    cluster = LocalCluster(folder)
    scheduler_file = folder / "scheduler.json"
    try:
        cluster.start("scheduler", "--port", "0", "--scheduler-file", str(scheduler_file), cwd=folder)
        cluster.address = when_there(lambda: str(json.loads(scheduler_file.read_text())["address"]))
        yield cluster
    finally:
        for process in cluster.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def when_there(read: Callable[[], Value]) -> Value:
    """The result of `read`, which is repeated until it succeeds: another process writes what it reads."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            return read()
        time.sleep(0.05)
    return read()


@dataclass(frozen=True)
class Stopping(ProceduralSource):
    """Procedural pictures, one of which blocks the first process that reads it, in the middle of its task."""

    at: str = ""
    folder: Path = Path()

    def read(self, picture_id: str) -> tuple[Array, str]:
        if picture_id == self.at and not (self.folder / "stopped").exists():
            (self.folder / "stopped").write_text(str(os.getpid()))
            threading.Event().wait()
        return super().read(picture_id)

    def stopped(self) -> int:
        """Waits until a process is blocked, and returns its id."""
        return when_there(lambda: int((self.folder / "stopped").read_text()))

"""A real Dask cluster on loopback: a scheduler and workers as processes of their own, as a user starts them."""

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
    """A scheduler, which has none of this project's code, and the workers started so far."""

    folder: Path
    address: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *arguments: str, cwd: Path, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Runs a command of Dask; what it logs is kept in the folder."""
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
            # Tests that are killed stop nothing, and workers would go on for days.
            preexec_fn=functools.partial(die_with_parent, os.getpid()),
        )
        self.processes.append(process)
        return process

    def start_worker(
        self, code: Path = ROOT, environment: dict[str, str] | None = None, threads: int = 1, nanny: bool = False
    ) -> subprocess.Popen[bytes]:
        """One worker, with the code in this folder; a nanny starts it again. It may not be there yet on return."""
        arguments = ("worker", self.address, "--nanny" if nanny else "--no-nanny", "--nthreads", str(threads))
        local = ("--local-directory", str(self.folder))
        return self.start(*arguments, *local, cwd=code, environment=environment)

    def wait_for_workers(self, count: int) -> None:
        """Until the scheduler has so many."""
        import distributed

        with distributed.Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=120)

    def wait_for_tasks(self, there: bool) -> None:
        """Until the scheduler knows of tasks, or of none; what a client sends it has to arrive first."""
        import distributed

        def look() -> None:
            if bool(client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))) != there:
                raise ValueError(f"expected {'tasks' if there else 'no task'} at {self.address}")

        with distributed.Client(self.address, set_as_default=False) as client:
            when_there(look)


@contextlib.contextmanager
def local_cluster(folder: Path) -> Iterator[LocalCluster]:
    """A scheduler without workers, and its end with all that were started meanwhile."""
    cluster = LocalCluster(folder)
    told = folder / "scheduler.json"
    try:
        cluster.start("scheduler", "--port", "0", "--scheduler-file", str(told), cwd=folder)
        cluster.address = when_there(lambda: str(json.loads(told.read_text())["address"]))
        yield cluster
    finally:
        for process in cluster.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def when_there(read: Callable[[], Value]) -> Value:
    """What `read` gives, once it does: another process is about to write what it reads."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            return read()
        time.sleep(0.05)
    return read()


@dataclass(frozen=True)
class Stopping(ProceduralSource):
    """Procedural pictures, one of which stops the first process that reads it, in the middle of its task."""

    at: str = ""
    folder: Path = Path()

    def read(self, picture_id: str) -> tuple[Array, str]:
        if picture_id == self.at and not (self.folder / "stopped").exists():
            (self.folder / "stopped").write_text(str(os.getpid()))
            threading.Event().wait()
        return super().read(picture_id)

    def stopped(self) -> int:
        """The process that has stopped, once one has."""
        return when_there(lambda: int((self.folder / "stopped").read_text()))

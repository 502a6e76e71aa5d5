"""Runs tasks in parallel processes, here or on a cluster, with the same results in the same order.

Processes rather than threads: for networks this small, two interpreters with one thread each are faster than one with
two. Processes are spawned rather than forked, since TensorFlow may already run threads in the parent.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from calibration.parallel import cluster
from recreate_model.support.errors import ToolError
from recreate_model.support.processes import die_with_parent

State = TypeVar("State")
Item = TypeVar("Item")
Result = TypeVar("Result")

# What `setup` returned in this worker process.
_state: Any = None


@dataclass(frozen=True)
class Workers:
    """Where tasks run. This does not change any result.

    Attributes:
        jobs: number of processes on this machine; with 1, tasks run in this process.
        cluster: address of a Dask scheduler whose workers run the tasks instead, checked by `cluster.check_address`; or
            empty.
    """

    jobs: int = 1
    cluster: str = ""

    def run(
        self, setup: Callable[[], State], task: Callable[[State, Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        """Yields `task(state, item)` for each item, in order.

        Args:
            setup: called once in each process; returns its state.
            task: like `setup`, items and results, it must support pickling, and must not refer to files that a worker
                cannot read.

        Raises:
            ToolError: a worker died, for example when memory ran out; on a cluster, if all of them died.
            ResourceError: the cluster cannot be used, as in `cluster.run`.
        """
        if self.cluster:
            return cluster.run(setup, task, items, self.cluster)
        if self.jobs > 1:
            return _run_here(setup, task, items, self.jobs)
        state = setup()
        return (task(state, item) for item in items)


def _run_here(
    setup: Callable[[], State], task: Callable[[State, Item], Result], items: Iterable[Item], jobs: int
) -> Iterator[Result]:
    with tempfile.TemporaryDirectory(prefix="recreate_model-") as scratch:
        # The setup holds models and is passed through a file. Passed to the process directly, it would go through a
        # pipe, and if the process ended before reading it, this one would block forever.
        setup_file = Path(scratch) / "setup.pickle"
        setup_file.write_bytes(pickle.dumps(setup))
        executor = ProcessPoolExecutor(
            jobs,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_initialize,
            initargs=(os.getpid(), setup_file),
        )
        try:
            with executor:
                # This call spawns all workers. Signals are deferred for two reasons. The workers inherit the mask and
                # ignore Ctrl-C, so that only the parent handles it. And a signal must not interrupt the call: the
                # executor would wait forever for an item that it has registered but not submitted.
                with _deferred_signals():
                    results = executor.map(_Call(task), items)
                # If the caller stops early, because of an error or Ctrl-C, tasks that have not started are canceled.
                yield from results
        except BrokenProcessPool as error:
            raise ToolError(
                expected=f"{jobs} worker processes to stay alive",
                found="one that ended before its work was done",
                next_step="run again with --jobs 1, or with more memory",
            ) from error


@contextlib.contextmanager
def _deferred_signals() -> Iterator[None]:
    """Defers SIGINT and SIGTERM until the end of the block. Processes started in it inherit the mask of SIGINT."""
    # The mask alone is not enough: another thread may receive the signal, and Python runs its handler in the main one.
    held: list[int] = []
    here = threading.current_thread() is threading.main_thread()
    stops = (signal.SIGINT, signal.SIGTERM) if here else ()
    handlers = {stop: signal.signal(stop, lambda number, frame: held.append(number)) for stop in stops}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for stop, handler in handlers.items():
            signal.signal(stop, handler)
        for number in held[:1]:
            signal.raise_signal(number)


class _Call:
    """A picklable call of the task with the state of the worker that runs it."""

    def __init__(self, task: Callable[[Any, Any], Any]) -> None:
        self._task = task

    def __call__(self, item: Any) -> Any:
        return self._task(_state, item)


def _initialize(parent: int, setup_file: Path) -> None:
    die_with_parent(parent)
    global _state
    _state = pickle.loads(setup_file.read_bytes())()

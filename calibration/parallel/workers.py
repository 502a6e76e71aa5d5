"""Work spread over processes, here or on a cluster: the same results in the same order, wherever they come from.

Processes and not threads: two interpreters of one thread each outrun one of two threads on networks this small. They
are spawned and not forked, since TensorFlow may already run threads in the parent.
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
    """The processes that work. Nothing here changes a byte.

    Attributes:
        jobs: number of processes on this machine; with one everything happens in this process.
        cluster: address of a Dask scheduler, as `cluster.check_address` wants it, whose workers work instead; or empty.
    """

    jobs: int = 1
    cluster: str = ""

    def run(
        self, setup: Callable[[], State], task: Callable[[State, Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        """`task(state, item)` for each item, in order, in processes that each call `setup` once.

        `setup`, `task`, items and results must survive pickling, and name no file that a worker cannot see.

        Raises:
            ToolError: a worker died, as by the kernel when memory ran out; of a cluster: all of them.
            ResourceError: no cluster to work on, as `cluster.run` says.
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
        # Through a file: a setup holds models, and a process that ended before it read them from the pipe it is
        # started through would leave this one writing into it for ever.
        setup_file = Path(scratch) / "setup.pickle"
        setup_file.write_bytes(pickle.dumps(setup))
        executor = ProcessPoolExecutor(
            jobs,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_initialise,
            initargs=(os.getpid(), setup_file),
        )
        try:
            with executor:
                # All workers are spawned by this call. Ctrl-C is for the parent to handle, and a traceback from each
                # worker helps nobody; but one that comes just now must not be lost. Nor may it end this call half-way:
                # the executor would wait for ever for an item that it knows of and has not handed on.
                with _stops_held_back():
                    results = executor.map(_Call(task), items)
                # Leaving this loop early, by an error or Ctrl-C, cancels what has not started.
                yield from results
        except BrokenProcessPool as error:
            raise ToolError(
                expected=f"{jobs} worker processes to stay alive",
                found="one that ended before its work was done",
                next_step="run again with --jobs 1, or with more memory",
            ) from error


@contextlib.contextmanager
def _stops_held_back() -> Iterator[None]:
    """Processes started here never see Ctrl-C, as they inherit the mask; this one sees it, or SIGTERM, a bit later."""
    # The mask alone does not hold it back: another thread takes the signal, and Python hands it to the main one.
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
    """The task, bound to the state of whichever worker runs it."""

    def __init__(self, task: Callable[[Any, Any], Any]) -> None:
        self._task = task

    def __call__(self, item: Any) -> Any:
        return self._task(_state, item)


def _initialise(parent: int, setup_file: Path) -> None:
    die_with_parent(parent)
    global _state
    _state = pickle.loads(setup_file.read_bytes())()

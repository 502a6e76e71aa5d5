"""Work spread over processes: the same results in the same order, whatever the number of processes.

Processes and not threads: two interpreters of one thread each outrun one of two threads on networks this small. They
are spawned and not forked, since TensorFlow may already run threads in the parent.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from recreate_model.errors import ToolError
from recreate_model.processes import die_with_parent

State = TypeVar("State")
Item = TypeVar("Item")
Result = TypeVar("Result")

# What `setup` returned in this worker process.
_state: Any = None


def run(
    setup: Callable[[], State],
    task: Callable[[State, Item], Result],
    items: Iterable[Item],
    jobs: int,
) -> Iterator[Result]:
    """`task(state, item)` for each item, in order, over `jobs` processes that each call `setup` once.

    With one job everything happens in this process. `setup`, `task`, items and results must survive pickling.

    Raises:
        ToolError: a worker died, as by the kernel when memory ran out.
    """
    if jobs == 1:
        state = setup()
        yield from (task(state, item) for item in items)
        return
    executor = ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_initialise,
        initargs=(os.getpid(), setup),
    )
    try:
        with executor:
            # All workers are spawned by this call. Ctrl-C is for the parent to handle, and a traceback from each worker
            # helps nobody; but one that comes just now must not be lost.
            with _ctrl_c_held_back():
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
def _ctrl_c_held_back() -> Iterator[None]:
    """Processes started here never see Ctrl-C, as they inherit the mask; this one sees it a moment later."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Call:
    """The task, bound to the state of whichever worker runs it."""

    def __init__(self, task: Callable[[Any, Any], Any]) -> None:
        self._task = task

    def __call__(self, item: Any) -> Any:
        return self._task(_state, item)


def _initialise(parent: int, setup: Callable[[], Any]) -> None:
    die_with_parent(parent)
    global _state
    _state = setup()

"""A lock file that one process holds at a time; the system releases it when that process ends, however it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def exclusive(path: Path, on_wait: Callable[[], object]) -> Iterator[BinaryIO]:
    """Holds the lock file at `path`, which is made where it does not exist and stays afterwards.

    Yields the open file. A child process that inherits it holds the lock too, even after this process has ended.
    For that we open the file ourselves: `filelock.FileLock` would open one of its own.

    Args:
        on_wait: called once, before waiting, if another process holds the lock.

    Raises:
        OSError: the file cannot be opened for writing, or its file system has no locks.
    """
    # Not at the top: `--help` and `status` need no lock.
    from filelock import lock_descriptor

    with path.open("a+b") as stream:
        if not lock_descriptor(stream.fileno(), blocking=False):
            on_wait()
            lock_descriptor(stream.fileno())
        yield stream

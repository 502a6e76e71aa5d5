"""One process at a time: a lock file that the system lets go of when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def exclusive(path: Path, on_wait: Callable[[], object]) -> Iterator[BinaryIO]:
    """Holds the lock file at `path`; `on_wait` is called once if another process holds it.

    Yields the file: a process that inherits it holds the lock too, and goes on holding it when this one ends.
    """
    with path.open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream

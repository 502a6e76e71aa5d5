"""Capture what tools print: it stays off the terminal and can go into an error message.

C++ code writes to the file descriptors, not to Python's streams, so the descriptors are redirected. They belong to the
whole process: do not use this while another thread prints.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def captured() -> Iterator[Callable[[], str]]:
    """Capture this process's standard output and standard error; yield a function that returns the text so far."""
    for open_stream in filter(None, (sys.stdout, sys.stderr)):  # None if the user closed the descriptor
        open_stream.flush()
    with tempfile.TemporaryFile() as log, open(log.fileno(), "w", errors="replace", closefd=False) as stream:

        def printed() -> str:
            stream.flush()
            return os.pread(log.fileno(), os.fstat(log.fileno()).st_size, 0).decode("utf-8", "replace")

        saved = {number: os.dup(number) for number in (1, 2)}
        try:
            for number in saved:
                os.dup2(log.fileno(), number)
            with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
                yield printed
        finally:
            for number, copy in saved.items():
                os.dup2(copy, number)
                os.close(copy)

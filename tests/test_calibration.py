"""Calibration: the pictures and their order, and ranges that do not depend on how the work is distributed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from calibration.parallel.workers import Workers, _deferred_signals
from calibration.pictures.folder import FolderSource
from calibration.pictures.inputs import CHUNK, Inputs
from calibration.pictures.sources import ProceduralSource
from calibration.ranges.measure import measure
from calibration.selection import select
from recreate_model.quantize import convert
from recreate_model.recipe import Picture, Preprocess
from recreate_model.support.errors import InputError, ToolError

PROCEDURAL = Inputs(ProceduralSource(), Preprocess(), 96)
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model(small_float: bytes) -> bytes:
    """The model that is measured."""
    return small_float


def _measure(model: bytes, root: Path, jobs: int, chosen: list[Picture]) -> tuple[bytes, tuple[Picture, ...]]:
    result = measure(model, Inputs(FolderSource(root), Preprocess(), 96), chosen, Workers(jobs), lambda count: None)
    return result.spans.tobytes(), result.pictures


def test_ranges_do_not_depend_on_processes_or_order(model: bytes, picture_folder: Path) -> None:
    """One process, three processes and the reverse order give the same ranges, bit for bit."""
    chosen = list(select(FolderSource(picture_folder), calib=12, limit=0).calibration)
    alone, manifest = _measure(model, picture_folder, 1, chosen)
    together, manifest_together = _measure(model, picture_folder, 3, chosen)
    backwards, _ = _measure(model, picture_folder, 1, chosen[::-1])
    assert alone == together == backwards
    assert manifest == manifest_together == tuple(chosen)
    assert len(chosen) > CHUNK  # otherwise one process would measure all of them


def test_measured_ranges_cover_every_activation(model: bytes) -> None:
    """There is one row per activation, no minimum is above its maximum, and ReLU6 stays within 0..6."""
    result = measure(model, PROCEDURAL, ProceduralSource().pictures(0, 2), Workers(), lambda count: None)
    names = list(convert.activations(model))
    assert result.spans.shape == (len(names), 2) == (67, 2)
    assert (result.spans[:, 0] <= result.spans[:, 1]).all()
    relu6 = result.spans[[name.endswith("Relu6") for name in names]]
    assert relu6.min() == 0
    assert relu6.max() <= 6
    assert all(picture.sha256 for picture in result.pictures)


def test_a_changed_picture_is_refused(model: bytes, picture_folder: Path) -> None:
    """Its digest when it is read has to be the one taken at selection."""
    (first, *_) = select(FolderSource(picture_folder), calib=1, limit=0).calibration
    with pytest.raises(InputError, match="the picture changed since it was selected"):
        _measure(model, picture_folder, 1, [replace(first, sha256="0" * 64)])


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_in_a_worker_is_raised_unchanged(jobs: int, model: bytes, tmp_path: Path) -> None:
    """A broken picture gives the same message with one process and with several."""
    (tmp_path / "broken.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"expected broken\.jpg to be a complete.*found a file of zero bytes"):
        _measure(model, tmp_path, jobs, [Picture("broken.jpg")])


def _die(state: None, item: int) -> int:
    import os

    os._exit(9)


def _nothing() -> None:
    return None


def _hold(state: None, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.recv(1)


def test_workers_end_when_their_parent_is_killed() -> None:
    """A killed parent cannot stop them. The test sees them end by their connections, which nothing else would close."""
    code = """
import sys
from calibration.parallel.workers import Workers
from tests import test_calibration as tests
list(Workers(2).run(tests._nothing, tests._hold, [int(sys.argv[1])] * 2))
"""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server.settimeout(300)
        port = str(server.getsockname()[1])
        process = stack.enter_context(subprocess.Popen([sys.executable, "-c", code, port], cwd=ROOT))
        connections = [stack.enter_context(server.accept()[0]) for _ in range(2)]
        process.kill()
        for connection in connections:
            connection.settimeout(60)
            assert connection.recv(1) == b""


def test_a_killed_worker_is_a_one_line_error() -> None:
    """A worker may be killed when memory runs out. The error says what to try next."""
    with pytest.raises(ToolError, match=r"expected 2 worker processes to stay alive.*--jobs 1"):
        list(Workers(2).run(_nothing, _die, range(3)))


def test_a_worker_killed_before_its_setup_is_a_one_line_error(tmp_path: Path) -> None:
    """The setup is too large for a pipe. The parent must not wait for a reader that has ended."""
    script = """
import functools
from calibration.parallel.workers import Workers
# A script that starts workers without checking that it is the main module: every worker fails at its start.
list(Workers(2).run(functools.partial(bytes, bytes(1 << 20)), max, range(3)))
"""
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "ToolError: expected 2 worker processes to stay alive" in done.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_never_interrupts_the_start_of_workers(stop: signal.Signals) -> None:
    """Even if another thread receives the signal, it takes effect only after all items are handed over."""
    reached = False
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    other = threading.Thread(target=time.sleep, args=(0.3,))
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt), _deferred_signals():  # noqa: PT012  # code after the signal must run
            os.kill(os.getpid(), stop)
            time.sleep(0.05)
            reached = True
    finally:
        signal.signal(signal.SIGTERM, before)
        other.join()
    assert reached

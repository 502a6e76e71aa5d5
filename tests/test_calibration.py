"""Sources, selection and workers: which pictures, in which order, and the same ranges however they are measured."""

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
    """One process, three processes and the reverse order give the same bits."""
    chosen = list(select(FolderSource(picture_folder), calib=12, limit=0).calibration)
    alone, manifest = _measure(model, picture_folder, 1, chosen)
    together, manifest_together = _measure(model, picture_folder, 3, chosen)
    backwards, _ = _measure(model, picture_folder, 1, chosen[::-1])
    assert alone == together == backwards
    assert manifest == manifest_together == tuple(chosen)
    assert len(chosen) > CHUNK  # else one process would have had it all


def test_measured_ranges_cover_every_activation(model: bytes) -> None:
    """One row for each activation, minimum not above maximum, ReLU6 within 0..6."""
    result = measure(model, PROCEDURAL, ProceduralSource().pictures(0, 2), Workers(), lambda count: None)
    names = list(convert.activations(model))
    assert result.spans.shape == (len(names), 2) == (67, 2)
    assert (result.spans[:, 0] <= result.spans[:, 1]).all()
    relu6 = result.spans[[name.endswith("Relu6") for name in names]]
    assert relu6.min() == 0
    assert relu6.max() <= 6
    assert all(picture.sha256 for picture in result.pictures)


def test_a_picture_that_changed_is_noticed(model: bytes, picture_folder: Path) -> None:
    """The digest taken when the picture was chosen must hold when it is read."""
    (first, *_) = select(FolderSource(picture_folder), calib=1, limit=0).calibration
    with pytest.raises(InputError, match="the picture changed since it was selected"):
        _measure(model, picture_folder, 1, [replace(first, sha256="0" * 64)])


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_in_a_worker_arrives_as_it_was_raised(jobs: int, model: bytes, tmp_path: Path) -> None:
    """A broken picture is named with the same words from one process or from many."""
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


def test_workers_die_with_the_process_that_started_them() -> None:
    """Killed, it cannot stop them; their connections end all the same, as nobody else could end them."""
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


def test_a_worker_that_dies_is_one_error() -> None:
    """A killed worker, as when memory runs out, is reported with what to try next."""
    with pytest.raises(ToolError, match=r"expected 2 worker processes to stay alive.*--jobs 1"):
        list(Workers(2).run(_nothing, _die, range(3)))


def test_a_worker_that_dies_before_it_has_its_setup_is_one_error(tmp_path: Path) -> None:
    """A setup too large for a pipe does not make this process wait for a reader that is gone."""
    script = """
import functools
from calibration.parallel.workers import Workers
# A script that starts workers without asking whether it is the main module: every worker fails as it starts.
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
def test_a_stop_never_ends_the_start_of_workers_half_way(stop: signal.Signals) -> None:
    """Even where another thread takes the signal, it is seen only when all items are handed on."""
    reached = False
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    other = threading.Thread(target=time.sleep, args=(0.3,))
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt), _deferred_signals():  # noqa: PT012  # what follows the stop is the point
            os.kill(os.getpid(), stop)
            time.sleep(0.05)
            reached = True
    finally:
        signal.signal(signal.SIGTERM, before)
        other.join()
    assert reached

"""Work on a real Dask cluster: the same bytes as with local processes, even if workers die, and one-line errors."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from calibration.parallel import cluster as cluster_module
from calibration.parallel import remote
from calibration.parallel.workers import Workers
from calibration.pictures.folder import FolderSource
from calibration.pictures.inputs import Inputs
from calibration.pictures.sources import ProceduralSource, Source
from calibration.ranges.measure import measure
from pipeline.engine.stages import STAGES
from pipeline.request.request import Request
from recreate_model.recipe import Picture, Preprocess
from recreate_model.support.errors import InputError, ResourceError, ToolError, UsageError
from tests.conftest import SMALL_REQUEST, build, contents
from tests.local_cluster import ROOT, LocalCluster, Stopping, local_cluster, when_there

CHUNKED = ProceduralSource().pictures(0, 75)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """A scheduler for one test, without workers."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    with local_cluster(folder) as started:
        yield started


@pytest.fixture(scope="module")
def _shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with local_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
def two_workers(_shared_cluster: LocalCluster) -> LocalCluster:
    """A cluster of two workers. Workers that an earlier test killed are replaced."""
    alive = [process for process in _shared_cluster.processes[1:] if process.poll() is None]
    for _ in range(2 - len(alive)):
        _shared_cluster.start_worker()
    _shared_cluster.wait_for_workers(2)
    return _shared_cluster


def _ranges(model: bytes, source: Source, workers: Workers, pictures: list[Picture] | None = None) -> bytes:
    inputs = Inputs(source, Preprocess(), 96)
    return measure(model, inputs, pictures or CHUNKED, workers, lambda count: None).spans.tobytes()


@pytest.fixture(scope="module")
def alone(small_float: bytes) -> bytes:
    """The ranges that one local process measures."""
    return _ranges(small_float, ProceduralSource(), Workers(1))


def test_two_workers_give_the_ranges_of_one_process(
    two_workers: LocalCluster, small_float: bytes, alone: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """The ranges are equal bit for bit, nothing is printed, and no task remains on the scheduler."""
    assert _ranges(small_float, ProceduralSource(), Workers(cluster=two_workers.address)) == alone
    assert capfd.readouterr() == ("", "")
    two_workers.wait_for_tasks(there=False)


def test_a_worker_killed_halfway_does_not_change_the_result(
    two_workers: LocalCluster, small_float: bytes, alone: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is killed during a task, after the first results. The other worker does its work, and nothing is printed."""
    source = Stopping(at=CHUNKED[45].id, folder=tmp_path)
    done: list[int] = []

    def kill() -> int:
        worker = source.stopped()
        when_there(lambda: done.index(10))
        os.kill(worker, signal.SIGKILL)
        return worker

    with ThreadPoolExecutor(1) as other:
        killed = other.submit(kill)
        inputs = Inputs(source, Preprocess(), 96)
        result = measure(small_float, inputs, CHUNKED, Workers(cluster=two_workers.address), done.append)
    assert result.spans.tobytes() == alone
    assert [picture.id for picture in result.pictures] == [picture.id for picture in CHUNKED]
    assert sum(done) == len(CHUNKED)
    (dead,) = [process for process in two_workers.processes if process.pid == killed.result()]
    assert dead.wait() == -signal.SIGKILL
    assert capfd.readouterr() == ("", "")


def test_a_build_on_a_cluster_equals_a_local_build(
    two_workers: LocalCluster, finished_build: Request, tmp_path: Path
) -> None:
    """Measuring, evaluating and Vela run on the cluster. Every file equals that of the local build."""
    build(replace(SMALL_REQUEST, out=tmp_path, jobs=None, cluster=two_workers.address))
    assert contents(tmp_path) == contents(finished_build.out)
    states = {row.stage: row.state for row in build(replace(finished_build, out=tmp_path))}
    assert set(states.values()) == {"reused"}  # the key of a stage does not depend on the cluster


def _pipeline(*arguments: object) -> list[str]:
    words = ("--model", "0.35_96", "--checkpoint", "seeded", "--limit", "2", *map(str, arguments))
    return [sys.executable, "-m", "pipeline", "calibrate", *words]


@pytest.mark.slow
def test_calibrate_writes_the_same_files_on_a_cluster(
    two_workers: LocalCluster, picture_folder: Path, tmp_path: Path
) -> None:
    """The pictures are given by a relative path. The other build uses `--jobs 1`."""
    pictures = os.path.relpath(picture_folder, ROOT)
    for name, flags in (("here", ("--jobs", "1")), ("there", ("--cluster", two_workers.address))):
        command = _pipeline("--images", pictures, "--calib", 10, "--out", tmp_path / name, "--quiet", *flags)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_an_error_in_a_worker_is_raised_unchanged(
    two_workers: LocalCluster, small_float: bytes, tmp_path: Path
) -> None:
    """A picture that a worker cannot read gives the same error as with local processes."""
    with pytest.raises(InputError, match=r"expected missing\.jpg to be readable in .*; found No such file"):
        _ranges(
            small_float, FolderSource(tmp_path), Workers(cluster=two_workers.address), [Picture("missing.jpg")] * 30
        )
    two_workers.wait_for_tasks(there=False)


def _nothing() -> None:
    return None


def _same(state: None, item: int) -> int:
    return item


def test_results_are_in_order_and_few_items_are_in_flight(two_workers: LocalCluster) -> None:
    """The scheduler gets only a limited number of items at a time."""
    items = iter(range(500))
    results = Workers(cluster=two_workers.address).run(_nothing, _same, items)
    assert next(results) == 0
    assert items.__length_hint__() >= 500 - cluster_module._IN_FLIGHT  # type: ignore[attr-defined]
    assert list(results) == list(range(1, 500))


def test_closing_the_results_cancels_the_remaining_tasks(two_workers: LocalCluster) -> None:
    """No task remains on the scheduler."""
    results = Workers(cluster=two_workers.address).run(_nothing, _same, range(1000))
    next(results)
    results.close()  # type: ignore[attr-defined]
    two_workers.wait_for_tasks(there=False)


@pytest.mark.slow
def test_ctrl_c_leaves_no_task_on_the_scheduler(two_workers: LocalCluster, tmp_path: Path) -> None:
    """The status is 130, with one line of output."""
    command = _pipeline("--images", "procedural", "--calib", 5000, "--out", tmp_path, "--cluster", two_workers.address)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        two_workers.wait_for_tasks(there=True)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, error.splitlines()) == ("", ["stopped: finished stages are kept; run the same command to continue"])
    two_workers.wait_for_tasks(there=False)


def _copy_of_the_code(folder: Path, changed: str) -> Path:
    for package in ("recreate_model", "calibration", "pipeline"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / changed).open("a") as stream:
        stream.write("# another version\n")
    return folder


def test_a_worker_with_other_code_is_refused(cluster: LocalCluster, small_float: bytes, tmp_path: Path) -> None:
    """One line names the worker and the file, before anything is measured."""
    cluster.start_worker()
    cluster.start_worker(_copy_of_the_code(tmp_path / "copy", "calibration/ranges/range_table.py"))
    cluster.wait_for_workers(2)
    words = (
        r"code and tools of this machine \(calibration/ranges/range_table\.py: SHA-256 \w{12}\); "
        r"found tcp://127\S+ with SHA-256"
    )
    with pytest.raises(ResourceError, match=words):
        _ranges(small_float, ProceduralSource(), Workers(cluster=cluster.address))


@pytest.mark.slow
def test_a_worker_with_another_version_of_a_tool_is_refused(
    cluster: LocalCluster, small_float: bytes, tmp_path: Path
) -> None:
    """The worker finds the metadata of another numpy first."""
    about = tmp_path / "numpy-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0\n")
    cluster.start_worker(environment={"PYTHONPATH": str(tmp_path)})
    cluster.wait_for_workers(1)
    with pytest.raises(ResourceError, match=r"\(numpy: \S+\); found tcp://127\S+ with 1\.0; done"):
        _ranges(small_float, ProceduralSource(), Workers(cluster=cluster.address))


@pytest.mark.slow
def test_a_worker_without_our_code_is_refused(cluster: LocalCluster, small_float: bytes) -> None:
    """A worker started in another folder cannot import the project."""
    cluster.start_worker(cluster.folder)
    cluster.wait_for_workers(1)
    with pytest.raises(ResourceError, match=r"found tcp://127\S+, where No module named 'calibration'"):
        _ranges(small_float, ProceduralSource(), Workers(cluster=cluster.address))


@pytest.mark.slow
def test_a_worker_with_another_version_of_dask_is_refused(
    cluster: LocalCluster, small_float: bytes, tmp_path: Path
) -> None:
    """Both ends of a connection need the same version. The error names the worker with an older one."""
    (about,) = Path(importlib.metadata.distribution("distributed").locate_file("")).glob("distributed-*.dist-info")
    older = shutil.copytree(about, tmp_path / "distributed-2020.1.0.dist-info")
    metadata = (older / "METADATA").read_text()
    (older / "METADATA").write_text(re.sub(r"(?m)^Version: .*", "Version: 2020.1.0", metadata))
    cluster.start_worker(environment={"PYTHONPATH": str(tmp_path)})
    cluster.wait_for_workers(1)
    with pytest.raises(ResourceError, match=r"found tcp://127\S+ with Python \S+ and distributed 2020\.1\.0"):
        _ranges(small_float, ProceduralSource(), Workers(cluster=cluster.address))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["other code", "no code", "same code"])
def test_a_worker_that_joins_late_is_checked_too(
    kind: str, cluster: LocalCluster, small_float: bytes, alone: bytes, tmp_path: Path
) -> None:
    """The only worker dies halfway, and another takes over. It is refused unless it has the same code."""
    folders = {"same code": ROOT, "no code": cluster.folder}
    folder = folders.get(kind) or _copy_of_the_code(tmp_path / "copy", "calibration/ranges/range_table.py")
    source = Stopping(at=CHUNKED[45].id, folder=tmp_path)
    first = cluster.start_worker()
    cluster.wait_for_workers(1)

    def take_over() -> None:
        source.stopped()
        cluster.start_worker(folder, {"PYTHONPATH": str(tests_alone)})
        cluster.wait_for_workers(2)
        first.kill()

    # The source of pictures is part of the tests, so the worker gets them and no other code of this project.
    tests_alone = tmp_path / "path"
    tests_alone.mkdir()
    (tests_alone / "tests").symlink_to(ROOT / "tests")
    with ThreadPoolExecutor(1) as other:
        taken_over = other.submit(take_over)
        workers = Workers(cluster=cluster.address)
        if kind == "same code":
            assert _ranges(small_float, source, workers) == alone
        else:
            with pytest.raises(ResourceError, match=r"range_table\.py|No module named 'calibration'"):
                _ranges(small_float, source, workers)
    taken_over.result()


@pytest.mark.slow
def test_a_worker_with_several_threads_gives_the_same_ranges(
    cluster: LocalCluster, small_float: bytes, alone: bytes
) -> None:
    """The tasks take turns, because a worker has one network."""
    cluster.start_worker(threads=4)
    cluster.wait_for_workers(1)
    assert _ranges(small_float, ProceduralSource(), Workers(cluster=cluster.address)) == alone


@pytest.mark.slow
def test_the_death_of_every_worker_is_a_one_line_error(
    cluster: LocalCluster, small_float: bytes, tmp_path: Path
) -> None:
    """No worker returns. After a while the run ends instead of waiting forever."""
    source = Stopping(at=CHUNKED[5].id, folder=tmp_path)
    cluster.start_worker()
    cluster.wait_for_workers(1)
    with ThreadPoolExecutor(1) as other:
        killed = other.submit(lambda: os.kill(source.stopped(), signal.SIGKILL))
        with pytest.raises(ToolError, match="found no worker left"):
            _ranges(small_float, source, Workers(cluster=cluster.address))
        killed.result()


def _die(state: None, item: int) -> None:
    os._exit(9)


@pytest.mark.slow
def test_a_task_that_kills_every_worker_is_a_one_line_error(cluster: LocalCluster) -> None:
    """A picture may need more memory than there is, so that each restarted worker dies again."""
    cluster.start_worker(nanny=True)
    cluster.wait_for_workers(1)
    with pytest.raises(ToolError, match="found a task that several workers died on"):
        list(Workers(cluster=cluster.address).run(_nothing, _die, range(1)))


@pytest.mark.slow
def test_the_death_of_the_scheduler_is_a_one_line_error(
    cluster: LocalCluster, small_float: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The connection is lost. Dask's messages about its attempts to reconnect are not shown."""
    source = Stopping(at=CHUNKED[5].id, folder=tmp_path)
    cluster.start_worker()
    cluster.wait_for_workers(1)
    capfd.readouterr()
    with ThreadPoolExecutor(1) as other:
        killed = other.submit(lambda: source.stopped() and os.kill(cluster.processes[0].pid, signal.SIGKILL))
        with pytest.raises(ToolError, match="found a lost connection"):
            _ranges(small_float, source, Workers(cluster=cluster.address))
        killed.result()
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_cluster_without_workers_is_a_resource_error(cluster: LocalCluster, small_float: bytes) -> None:
    """The run waits for a short time first, because workers may be starting."""
    with pytest.raises(ResourceError, match=rf"expected workers at the scheduler {cluster.address}; found none"):
        _ranges(small_float, ProceduralSource(), Workers(cluster=cluster.address))


@pytest.mark.slow
@pytest.mark.parametrize("listens", [False, True])
def test_an_address_without_a_scheduler_is_a_resource_error(listens: bool, tmp_path: Path) -> None:
    """Nothing listens at the port, or something that is not a scheduler. The status is 4, with a one-line error."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        if listens:
            held.listen()
        address = f"tcp://127.0.0.1:{held.getsockname()[1]}"
        command = _pipeline("--images", "procedural", "--calib", 2, "--out", tmp_path, "--cluster", address)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: expected a Dask scheduler at {address}; found no scheduler that answers (")


@pytest.mark.slow
def test_the_address_of_a_worker_is_a_resource_error(two_workers: LocalCluster) -> None:
    """It is easily confused with that of the scheduler, because the logs show both."""
    import distributed

    with distributed.Client(two_workers.address, set_as_default=False) as client:
        (worker, _) = client.nthreads()
    with pytest.raises(ResourceError, match=rf"expected a Dask scheduler at {worker}; .*a worker is there"):
        list(Workers(cluster=worker).run(_nothing, _same, range(3)))


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:8786", "tcp://", "tcp://host", "tcp://host:0", "tcp://host:65536", "tcp://a b:1", "http://host:1", "x"],
)
def test_an_invalid_address_is_invalid_usage(address: str) -> None:
    """The error comes before anything is built."""
    with pytest.raises(UsageError, match="--cluster to be the address of a Dask scheduler, tcp://HOST:PORT"):
        build(replace(SMALL_REQUEST, jobs=None, cluster=address))


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:8786", "tls://host.example:8786", "tcp://[::1]:8786"])
def test_addresses_in_the_form_that_dask_shows_are_accepted(address: str) -> None:
    """The host is an IPv4 address, a name, or an IPv6 address in brackets."""
    cluster_module.check_address(address)


def test_jobs_and_cluster_exclude_each_other() -> None:
    """The number of processes on a cluster is that of its workers."""
    with pytest.raises(UsageError, match=r"expected --jobs or --cluster.*found both"):
        build(replace(SMALL_REQUEST, cluster="tcp://127.0.0.1:1"))


def test_without_dask_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """runtime.lock does not contain Dask, which only --cluster needs."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ResourceError, match=r"expected the Python package distributed.*`make cluster`"):
        list(Workers(cluster="tcp://127.0.0.1:1").run(_nothing, _same, range(3)))


def test_every_tool_that_affects_a_result_is_compared() -> None:
    """These are the tools in the keys of the stages that use a cluster, except matplotlib: no worker draws the plot."""
    for stage in STAGES:
        if stage.name in ("calibrate", "evaluate", "vela"):
            assert set(stage.tools) - {"matplotlib"} <= set(remote.TOOLS)

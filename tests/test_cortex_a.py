"""Cortex-A: AArch64 code under an emulator, and the setup of its root, which does not change the system.

The tests use the root in the download cache, and create it there if it is missing.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.console import NoBars
from pipeline.engine.work import model_file
from pipeline.platforms import aarch64, aarch64_setup, armnn, cortex_a
from pipeline.platforms.aarch64 import CPUS, Sysroot
from pipeline.platforms.evidence import Evidence, Subject, same_class
from pipeline.platforms.subject import subject as subject_of
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from recreate_model.support import resources
from recreate_model.support.digest import digest_file
from recreate_model.support.errors import ResourceError, ToolError
from recreate_model.tflite.model_view import read_model
from tests.conftest import build
from tests.test_bad_input import ROOT, assert_one_error, run

NOWHERE = "deb [arch=arm64 trusted=yes] http://127.0.0.1:9/debian bookworm main\n"
AARCH64_OF_ELF = 183


@functools.cache
def whole_root() -> Sysroot:
    """The root in the cache. Skips the test on a machine where it cannot be created."""
    try:
        return aarch64_setup.ensure(resources.cache_folder(), print)
    except ResourceError as error:
        pytest.skip(str(error))


@pytest.fixture
def root() -> Sysroot:
    return whole_root()


@pytest.fixture
def own_cache(tmp_path: Path) -> Iterator[Path]:
    """A cache for one test, removed afterwards because a root has 230 MB."""
    yield tmp_path / "cache"
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


@pytest.fixture
def own_root(root: Sysroot, own_cache: Path) -> Path:
    """The folder of a copy of the root, in a cache for one test."""
    folder = aarch64.folder(own_cache)
    folder.parent.mkdir(parents=True)
    subprocess.run(["cp", "-a", root.folder, folder], check=True)  # keeps its hard links
    assert aarch64.find(own_cache) is not None
    return folder


@pytest.fixture(scope="module")
def subject(finished_build: Request) -> Subject:
    """The smallest network with seeded weights, on three procedural pictures."""
    recipe, machine = resolve(finished_build, NoBars(), may_fetch=False)
    model = (finished_build.out / recipe.name / model_file(recipe)).read_bytes()
    return subject_of(recipe, machine, model, 3)


@pytest.fixture
def no_armnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides Arm NN, as on a system without the package."""
    monkeypatch.setattr(armnn, "_SYSTEM_PYTHON", Path("/nonexistent/python3"))


def emulated(rows: list[Evidence]) -> list[Evidence]:
    return [row for row in rows if row.device.startswith("qemu-aarch64") and row.status == "ran"]


def flipped(model: bytes) -> bytes:
    """The model with the highest bit of one weight of its first convolution flipped."""
    view = read_model(model)
    weights = view.tensors[view.operators[0].inputs[1]].data
    assert model.count(weights) == 1
    changed = bytearray(model)
    changed[model.index(weights) + 5] ^= 0x80
    return bytes(changed)


def _picture_count(row: Evidence) -> int:
    assert row.agreement is not None
    return row.agreement.n + row.agreement.undecided


# The content of the rows.


@pytest.mark.slow
def test_the_reference_kernels_are_bit_exact_as_aarch64_code(subject: Subject, root: Sysroot) -> None:
    """XNNPACK gives the same results on both emulated CPUs as here, and every tool has its version."""
    rows = emulated(cortex_a.check(subject, resources.cache_folder()))
    reference, *others = rows
    assert str(reference.agreement) == "3 of 3 bit-exact"
    litert = [row for row in others if "XNNPACK" in row.what]
    assert [(row.holds, _picture_count(row)) for row in litert] == [(True, 3)] * 2
    assert {row.device for row in litert} == {f"qemu-aarch64, {cpu.name} (emulated)" for cpu in CPUS}
    for row in rows:
        assert row.platform == "Cortex-A"
        assert row.seconds is not None
        assert row.seconds > 0
        assert "emulator's" in row.note
        assert {name.split()[0] for name in row.tools} >= {"Python", "numpy", "libc6", "qemu-aarch64"}
        assert all(re.search(r"\d", tool) for tool in row.tools)


@pytest.mark.slow
def test_a_flipped_bit_of_a_weight_is_detected(subject: Subject, root: Sysroot, no_armnn: None) -> None:
    """The reference kernels then give other bytes than expected, both here and emulated."""
    rows = cortex_a.check(replace(subject, model=flipped(subject.model)), resources.cache_folder())
    reference = [row for row in rows if "reference" in row.what]
    assert len(reference) == 2
    assert not any(row.holds for row in reference)


@pytest.mark.slow
def test_wrong_expected_classes_are_detected(subject: Subject, root: Sysroot) -> None:
    """All expected classes are off by one. For a trained network, XNNPACK and Arm NN are compared with them, too."""
    wrong = replace(subject, expected=np.roll(subject.expected, 1, axis=1), trained=True)
    rows = [row for row in cortex_a.check(wrong, resources.cache_folder()) if row.status != "not run"]
    assert len(rows) >= 5
    assert not any(row.holds for row in rows)


@pytest.mark.slow
def test_the_root_contains_aarch64_code(root: Sysroot) -> None:
    """The ELF headers of Python and of every library of LiteRT and numpy say so."""
    libraries = [*(root.site / "ai_edge_litert").rglob("*.so"), *(root.site / "numpy").rglob("*.so")]
    pythons = [root.folder / cpu.name / "usr" / "bin" / f"python{root.python}" for cpu in CPUS]
    assert len(libraries) > 5
    for path in (*libraries, *pythons):
        header = path.read_bytes()[:20]
        assert (path, header[:4], int.from_bytes(header[18:], "little")) == (path, b"\x7fELF", AARCH64_OF_ELF)


def test_a_run_on_this_machine_is_not_a_run_on_cortex_a(subject: Subject, tmp_path: Path, no_armnn: None) -> None:
    """On another CPU its status is `analyzed`, with a note. On an aarch64 machine it is `ran`."""
    rows = [row for row in cortex_a.check(subject, tmp_path) if row.status != "not run"]
    assert len(rows) == 2
    for row in rows:
        assert row.status == ("ran" if aarch64.native() else "analyzed")
        assert ("nothing of a Cortex-A ran" in row.note) is not aarch64.native()
        assert row.device.startswith("this machine (")


def test_an_aarch64_machine_needs_no_emulator(
    subject: Subject, tmp_path: Path, no_armnn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own runs count, and no row asks for `make aarch64`."""
    monkeypatch.setattr(aarch64.platform, "machine", lambda: "aarch64")
    rows = cortex_a.check(subject, tmp_path)
    assert [row.status for row in rows] == ["ran", "ran", "not run"]
    assert not any("make aarch64" in row.missing for row in rows)


def test_classes_of_seeded_weights_are_not_claimed(subject: Subject, tmp_path: Path, no_armnn: None) -> None:
    """They depend on rounding. The row says how many agree, and claims nothing."""
    assert not subject.trained
    (row,) = (row for row in cortex_a.check(subject, tmp_path) if "XNNPACK" in row.what)
    assert row.agreement is None
    assert re.search(r"untrained weights: .* not claimed; \d of 3 have it", row.note)


def test_any_of_several_expected_best_classes_agrees() -> None:
    """Tied expected scores have no order. Tied outputs, however, do not agree with every class."""
    expected = np.array([[1, 5, 5], [1, 5, 5], [1, 5, 5], [1, 2, 9]], np.int8)
    outputs = np.array([[0, 0, 9], [0, 9, 0], [9, 0, 0], [4, 4, 4]], np.int8)
    assert same_class(outputs, expected).hits == 2


# Missing parts.


def test_without_a_root_the_row_names_make_aarch64(subject: Subject, tmp_path: Path, no_armnn: None) -> None:
    """Nothing ran, and the row says how to change that. The row of Arm NN names its packages."""
    if aarch64.emulator() is None:
        pytest.skip("no qemu-aarch64")
    missing = [row.missing for row in cortex_a.check(subject, tmp_path) if row.status == "not run"]
    assert len(missing) == 2
    assert "make aarch64" in missing[0]
    assert f"apt-get install {armnn.PACKAGES}" in missing[1]


def test_without_an_emulator_the_row_names_its_package(
    subject: Subject, tmp_path: Path, no_armnn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names `make aarch64`, too."""
    monkeypatch.setenv("PATH", str(tmp_path))
    row = cortex_a.check(subject, tmp_path)[0]
    assert row.status == "not run"
    assert "apt-get install qemu-user" in row.missing
    assert "make aarch64" in row.missing


@pytest.mark.slow
def test_a_damaged_root_is_not_used(
    subject: Subject, own_root: Path, no_armnn: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A missing, changed or additional file gives a one-line warning, and a row that names `make aarch64`."""
    cache = own_root.parents[1]
    victim, manifest = own_root / "site" / "ai_edge_litert" / "interpreter.py", own_root / "manifest.json"
    code, claims = victim.read_text(), manifest.read_text()
    for damage, repair in (
        (victim.unlink, lambda: victim.write_text(code)),
        (lambda: victim.write_text(code + "\n"), lambda: victim.write_text(code)),
        (victim.with_name("new.py").touch, victim.with_name("new.py").unlink),
        (lambda: manifest.write_text("{"), lambda: manifest.write_text(claims)),
        (lambda: manifest.write_text("[]"), lambda: manifest.write_text(claims)),
    ):
        damage()
        caplog.clear()
        assert aarch64.find(cache) is None
        (record,) = caplog.records
        assert re.search(r"AArch64 root .* is damaged: .*; it is not used", record.getMessage())
        repair()
        assert aarch64.find(cache) is not None
    victim.unlink()
    row = cortex_a.check(subject, cache)[0]
    assert (row.status, "make aarch64" in row.missing) == ("not run", True)


def stand_in(folder: Path, otherwise: str) -> None:
    """A qemu-aarch64 that knows one CPU, answers like the real one, and runs the given script in place of programs."""
    real = shutil.which("qemu-aarch64")
    folder.mkdir()
    program = folder / "qemu-aarch64"
    program.write_text(
        f"#!/bin/sh\ncase \"$*\" in\n  --version) exec {real} --version ;;\n  '-cpu help') echo '  cortex-a53' ;;\n"
        f"  *) {otherwise.format(real=real)} ;;\nesac\n"
    )
    program.chmod(0o755)


@pytest.mark.slow
def test_a_crash_of_the_emulator_is_a_tool_error(
    subject: Subject, root: Sysroot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status is 5, and the error has the last line of its output."""
    stand_in(tmp_path / "bin", "echo 'qemu: uncaught target signal 11 (Segmentation fault)' >&2; exit 139")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(ToolError, match="found qemu: uncaught target signal 11") as caught:
        cortex_a.check(subject, resources.cache_folder())
    assert caught.value.status == 5
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_cpu_that_the_emulator_lacks_is_named(
    subject: Subject, root: Sysroot, tmp_path: Path, no_armnn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model still runs on the other CPU."""
    stand_in(tmp_path / "bin", 'exec {real} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    rows = cortex_a.check(subject, resources.cache_folder())
    assert {row.device for row in emulated(rows)} == {"qemu-aarch64, cortex-a53 (emulated)"}
    assert any(row.status == "not run" and "cortex-a76" in row.what for row in rows)


# The system's Arm NN.


@pytest.mark.slow
def test_the_systems_arm_nn_runs_the_model(subject: Subject, tmp_path: Path) -> None:
    """Its parser accepts the model, and its own kernels run all operators."""
    if armnn.find() is None:
        pytest.skip(f"no Arm NN: apt-get install {armnn.PACKAGES}")
    row = cortex_a.check(subject, tmp_path)[-1]
    assert row.status == ("ran" if aarch64.native() else "analyzed")
    assert "second opinion" in row.note
    assert row.tools[0].startswith("pyarmnn ")
    assert row.seconds is not None


@pytest.mark.slow
def test_a_model_that_arm_nn_cannot_run_is_a_tool_error(subject: Subject, tmp_path: Path) -> None:
    """The error is one line, and there is no row that looks like a result."""
    found = armnn.find()
    if found is None:
        pytest.skip(f"no Arm NN: apt-get install {armnn.PACKAGES}")
    place = cortex_a.PythonHost("the system's Python", (found[0], "-I"), "build the model again")
    with pytest.raises(ToolError, match=r"armnn .* to run the model on the system's Python"):
        cortex_a.run_job(place, "armnn", (found[1],), replace(subject, model=b"no model"))


# Setting up the root.


def test_the_root_has_the_locked_runtime_of_this_program() -> None:
    """Results of another version of LiteRT would be evidence for another program."""
    pattern = re.compile(r"^(ai-edge-litert|numpy)==([\w.]+)", re.MULTILINE)
    locked = dict(pattern.findall(aarch64.LOCK.read_text()))
    runtime = pattern.findall((ROOT / "requirements" / "runtime.lock").read_text())
    assert set(locked) == {"ai-edge-litert", "numpy"}
    assert set(locked.items()) <= set(runtime)
    assert len([name for name, _ in runtime if name == "ai-edge-litert"]) == 1


def needs_programs() -> None:
    if aarch64.native() or not all(map(shutil.which, ("qemu-aarch64", "apt-get", "dpkg"))):
        pytest.skip("no qemu-aarch64, apt-get or dpkg, or no need of them")


def set_up(cache: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs the command as a user would, with the network."""
    command = [sys.executable, "-m", "pipeline", "aarch64", *options]
    environment = {**os.environ, "RECREATE_MODEL_CACHE": str(cache)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False)


def assert_nothing_left(cache: Path) -> None:
    """Requires that the cache has only lock files."""
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def system_state() -> tuple[str, str, list[str]]:
    """Everything in the system that the setup might change and must not."""
    architectures = subprocess.check_output(["dpkg", "--print-foreign-architectures"], text=True)
    status = Path("/var/lib/dpkg/status")
    listed = sorted(path.name for path in Path("/var/lib/apt/lists").glob("*arm64*"))
    return architectures, digest_file(status), listed


@pytest.mark.slow
def test_a_root_is_created_once_without_changing_the_system(own_cache: Path) -> None:
    """Uses real packages. The second call finds the root, and the system gets no architecture and no package."""
    whole_root()
    before = system_state()
    cache = own_cache
    first = set_up(cache)
    assert first.returncode == 0, first.stderr
    assert first.stderr.startswith("creating an AArch64 root in ")
    second = set_up(cache, "--json")
    assert (second.returncode, second.stderr) == (0, "")
    assert '"libc6": ' in second.stdout
    assert system_state() == before
    assert sorted(path.name for path in (cache / "aarch64").iterdir()) == sorted(
        [aarch64.folder(cache).name, aarch64.folder(cache).name + ".lock"]
    )
    found = aarch64.find(cache)
    assert found is not None
    assert found.packages.keys() >= set(aarch64.PACKAGES)


@pytest.mark.slow
def test_make_aarch64_replaces_a_damaged_root(own_root: Path) -> None:
    """The root lacks one file of LiteRT."""
    (own_root / "site" / "ai_edge_litert" / "interpreter.py").unlink()
    cache = own_root.parents[1]
    assert set_up(cache, "--quiet").returncode == 0
    assert aarch64.find(cache) is not None


@pytest.mark.parametrize("program", ["qemu-aarch64", "apt-get"])
def test_a_missing_program_is_named(program: str, tmp_path: Path) -> None:
    """The status is 4, the error names its package, and the cache is empty."""
    if aarch64.native():
        pytest.skip("nothing is set up on an aarch64 machine")
    present = {"qemu-aarch64", "apt-get", "apt-config", "dpkg"} - {program}
    for name in present:
        (tmp_path / name).symlink_to("/bin/true")
    result = run("aarch64", PATH=str(tmp_path), RECREATE_MODEL_CACHE=str(tmp_path / "cache"))
    assert_one_error(result, 4, program, "qemu-user" if program == "qemu-aarch64" else "Debian or Ubuntu")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("sources", "words"),
    [(NOWHERE, "127.0.0.1"), ("no source\n", "sources.list"), ("", "python3")],
    ids=["unreachable", "malformed", "empty"],
)
def test_unavailable_packages_leave_nothing_in_the_cache(sources: str, words: str, tmp_path: Path) -> None:
    """The error is one line with apt's message, and the status is 4."""
    needs_programs()
    named = tmp_path / "sources"
    named.write_text(sources)
    result = run(
        "aarch64", "--quiet", RECREATE_MODEL_CACHE=str(tmp_path / "cache"), RECREATE_MODEL_APT_SOURCES=str(named)
    )
    assert_one_error(result, 4, words)
    assert_nothing_left(tmp_path / "cache")


def test_a_missing_file_of_apt_sources_is_bad_input(tmp_path: Path) -> None:
    """The user named it, so the sources of the system do not replace it."""
    needs_programs()
    result = run(
        "aarch64", "--quiet", RECREATE_MODEL_CACHE=str(tmp_path), RECREATE_MODEL_APT_SOURCES="/nonexistent/sources"
    )
    assert_one_error(result, 3, "RECREATE_MODEL_APT_SOURCES", "No such file")
    assert_nothing_left(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["unreachable", "hash"])
def test_unavailable_wheels_leave_nothing_in_the_cache(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no package index, or a wheel has another hash than the locked one."""
    whole_root()
    if fault == "unreachable":
        settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}
        for name, value in {**settings, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}.items():
            monkeypatch.setenv(name, value)
    else:
        lock = tmp_path / "aarch64.lock"
        lock.write_text(re.sub(r"sha256:\w+", f"sha256:{'0' * 64}", aarch64.LOCK.read_text()))
        for module in (aarch64, aarch64_setup):
            monkeypatch.setattr(module, "LOCK", lock)
    with pytest.raises(ResourceError, match="AArch64 wheels for Python") as caught:
        aarch64_setup.ensure(tmp_path / "cache", print)
    assert "\n" not in str(caught.value)
    assert_nothing_left(tmp_path / "cache")


def setting_up(cache: Path, sources: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "RECREATE_MODEL_CACHE": str(cache), "RECREATE_MODEL_APT_SOURCES": str(sources)}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "aarch64"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_a_setup_stopped_halfway_leaves_no_root(stop: signal.Signals, tmp_path: Path) -> None:
    """It is stopped while apt waits for an answer. apt ends too, and the next run starts from the beginning."""
    needs_programs()
    cache, sources = tmp_path / "cache", tmp_path / "sources"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        port = server.getsockname()[1]
        sources.write_text(NOWHERE.replace(":9/", f":{port}/"))
        with setting_up(cache, sources) as process:
            try:
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(60)
                    assert connection.recv(1 << 16).startswith(b"GET /debian/")
                    process.send_signal(stop)
                    assert connection.recv(1) == b""
            finally:
                process.kill()
        assert aarch64.find(cache) is None
        assert not aarch64.folder(cache).exists()
    sources.write_text(NOWHERE)
    with setting_up(cache, sources) as process:
        assert process.wait(timeout=60) == 4
    assert_nothing_left(cache)


def test_two_setups_at_once_take_turns(tmp_path: Path) -> None:
    """The second one prints that it waits."""
    needs_programs()
    cache, sources = tmp_path / "cache", tmp_path / "sources"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        sources.write_text(NOWHERE.replace(":9/", f":{server.getsockname()[1]}/"))
        with setting_up(cache, sources) as one:
            connection, _ = server.accept()
            with connection, setting_up(cache, sources) as two:
                try:
                    assert two.stderr is not None
                    assert two.stderr.readline().startswith("waiting for another process")
                finally:
                    two.kill()
                    one.kill()


# The trained network.


@pytest.mark.shared
def test_the_trained_network_gives_the_same_results_as_aarch64_code(shared: Path, tmp_path: Path) -> None:
    """On ten photographs, 1.0_224 is bit-exact, and has the same classes under XNNPACK and Arm NN."""
    whole_root()
    request = Request(
        checkpoint=str(shared / "checkpoint" / "mobilenet_v2_1.0_224.tgz"),
        images=str(shared / "imagenet_sample"),
        calib=20,
        out=tmp_path,
    )
    build(request, ("quantize",))
    recipe, machine = resolve(request, NoBars(), may_fetch=False)
    trained = subject_of(recipe, machine, (tmp_path / recipe.name / model_file(recipe)).read_bytes(), 10)
    assert trained.trained
    rows = emulated(cortex_a.check(trained, resources.cache_folder()))
    assert len(rows) >= 3
    for row in rows:
        assert (row.what, row.holds, _picture_count(row)) == (row.what, True, 10)

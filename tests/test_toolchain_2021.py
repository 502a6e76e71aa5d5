"""TensorFlow of 2021 in separate environments: its arithmetic, its bytes, and how the environments are created.

The environments are kept in the download cache, and created there if they are missing.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from recreate_model.compare.verdict import Verdict
from recreate_model.network import seeded
from recreate_model.network.spec import MOBILENET_V2, Model
from recreate_model.prove import toolchain
from recreate_model.prove.channels import FACTOR_ULPS, convolutions
from recreate_model.prove.prove import Checkpoint, Proof, prove
from recreate_model.prove.recover import generation_of, network_operators
from recreate_model.prove.toolchain import TOOLCHAINS, Edits, Job, Toolchain
from recreate_model.quantize.quantizer import Generation, activation_parameters
from recreate_model.support import resources
from recreate_model.support.arrays import Array
from recreate_model.support.errors import InputError, ResourceError, ToolError
from recreate_model.tflite.model_view import read_model
from tests import official_layout
from tests.conftest import SMALL
from tests.published_models import Order, publish
from tests.test_bad_input import ROOT, assert_one_error, run

SETS = (
    "one picture", "black", "white", "nothing", "blocks", "noise", "bell", "ramps", "dim", "shrunk", "vanishing",
    "bright half", "dark half", "dot", "levels", "huge",
)  # fmt: skip
OTHERS = ("one picture", "shrunk", "ramps")
GENERATIONS = {"": Generation.TODAY, "2.6.0": Generation.SCALE_FLOOR, "2.5.0": Generation.SCALE_FLOOR,
               "2.4.4": Generation.DOUBLE}  # fmt: skip


@functools.cache
def python_of(chain: Toolchain) -> Path:
    """The Python of a toolchain's environment; skips the test on a machine that cannot have one."""
    try:
        return toolchain.ensure(chain, resources.cache_folder(), print)
    except ResourceError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def checkpoint(small_weights: dict[str, Array]) -> Checkpoint:
    """The smallest network, with a frozen graph as TF-Slim writes it."""
    return Checkpoint(SMALL, small_weights, official_layout.unfolded_graph(SMALL, small_weights))


def proved(model: bytes, checkpoint: Checkpoint) -> Proof:
    """The result of `prove`, with every toolchain that fits."""
    return prove(model, "the model", checkpoint, None, python_of)


@pytest.mark.slow
@pytest.mark.parametrize("chain", TOOLCHAINS, ids=lambda chain: chain.option)
def test_files_of_every_toolchain_are_proved(chain: Toolchain, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Files calibrated on pictures, black, noise and tiny values are reproduced without a corrected factor."""
    sets = SETS if chain.option in ("2.5.0", "today") else OTHERS
    orders = [Order(name, "int8", chain.quantizer) for name in sets]
    orders += [Order("noise", ends, chain.quantizer) for ends in ("float32", "uint8")]
    assert checkpoint.frozen_graph is not None
    models = publish(checkpoint.frozen_graph, SMALL, orders, tmp_path, python_of(chain))
    for order, model in models.items():
        found = proved(model, checkpoint)
        failures = [str(attempt.failure) for attempt in found.attempts if attempt.failure]
        assert (order, found.verdict, found.refutations, failures) == (order, Verdict.IDENTICAL, (), [])
        assert found.attempts[-1].corrections is None
        # The old quantizers of two versions can give the same bytes, and the first that does is named.
        if chain.quantizer == "new":
            assert found.attempts[-1].toolchain == chain.name


@pytest.mark.slow
@pytest.mark.parametrize("chain", [one for one in TOOLCHAINS if one.quantizer == "old"], ids=lambda one: one.option)
def test_an_empty_input_range_of_the_old_quantizer_is_refused(
    chain: Toolchain, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """The quantizer divides by the input's scale of 0, and writes infinite scales that no runtime can use."""
    order = Order("nothing", "int8", "old")
    assert checkpoint.frozen_graph is not None
    models = publish(checkpoint.frozen_graph, SMALL, [order], tmp_path, python_of(chain))
    with pytest.raises(InputError, match="a scale that is not finite"):
        proved(models[order], checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("calibration", ["one picture", "shrunk"])
def test_a_model_of_full_size_is_proved_on_the_command_line(calibration: str, tmp_path: Path) -> None:
    """1.0_224 from an archive in the official layout, converted by TensorFlow 2.5.0."""
    model, order = Model(), Order(calibration)
    weights = seeded.seeded_weights(model)
    archive = official_layout.write_archive(tmp_path / "mobilenet_v2_1.0_224.tgz", model, weights)
    graph = official_layout.unfolded_graph(model, weights)
    published = publish(graph, model, [order], tmp_path / "work", python_of(Toolchain("2.5.0", "new")))[order]
    path = tmp_path / "published.tflite"
    path.write_bytes(published)
    result = run("prove", path, "--checkpoint", archive, "--accept", "IDENTICAL")
    assert result.returncode == 0, result.stderr
    assert "nothing was corrected" in result.stdout


def special_ranges() -> list[tuple[float, float]]:
    """Ranges that quantizers treat differently, and random ones: across zero, empty, of any size."""
    spans: list[tuple[float, float]] = [
        (0, 0), (0, 1e-10), (-1e-8, 1e-8), (-1e-9, 1e-9), (-2e-9, 1e-9), (0, 9e-7), (0, 1.1e-6), (-5.1e-7, 5.1e-7),
        (1, 2), (-2, -1), (3, 3), (-3, -3), (1e-3, 1e-3), (0, 6), (-1, 1), (0, 1e10), (-1e10, 0), (-1e10, 1e10),
        (-8.180079460144043, 8.180079460144043), (0, 2.54e-4), (0, 2.56e-4), (5e-7, 6e-7), (-1, 2.5e-4), (0.5, 0.50001),
    ]  # fmt: skip
    generator = np.random.default_rng(5)
    for size in 10 ** generator.uniform(-9, 3, 80):
        share = generator.uniform(-0.5, 1.5)
        spans += [(-size * share, size * (1 - share)), (-size, size)]
    return [(float(low), float(high)) for low, high in np.array(spans, np.float32)]


@pytest.mark.slow
@pytest.mark.parametrize("chain", TOOLCHAINS, ids=lambda chain: chain.option)
def test_scales_are_what_the_toolchain_computes(chain: Toolchain, checkpoint: Checkpoint) -> None:
    """For each range, our formula gives the quantizer's scale and zero point to the last bit."""
    spans = special_ranges()
    if chain.quantizer == "old":
        # For an empty range it computes infinite scales.
        spans = [span for span in spans if max(span[1], 0) - min(span[0], 0) > 3e-7]
    # The last activations have no range of their own.
    places = 60
    attempts = []
    for start in range(0, len(spans), places):
        filled = [*spans[start : start + places], *[(-1.0, 1.0)] * 67][:67]
        attempts.append(Edits(np.array(filled, np.float32)))
    assert checkpoint.frozen_graph is not None
    shape = (1, SMALL.resolution, SMALL.resolution, 3)
    job = Job(
        checkpoint.frozen_graph, MOBILENET_V2.input_name, MOBILENET_V2.output_name, shape, "int8", "int8", attempts
    )
    models = toolchain.convert(chain, python_of(chain), job).models
    generation = Generation.STORED if chain.quantizer == "old" else GENERATIONS[chain.version]
    found = []
    for model in models:
        view = read_model(model)
        operators = network_operators(view)
        assert generation_of(view) is generation
        for index in [operators[0].inputs[0], *(one.outputs[0] for one in operators)][:places]:
            quantization = view.tensors[index].quantization
            assert quantization is not None
            found.append((quantization.scales[0], quantization.zero_points[0]))
    expected = [activation_parameters(*span, generation) for span in spans]
    assert list(zip(spans, found[: len(spans)], strict=True)) == list(zip(spans, expected, strict=True))


@pytest.mark.slow
def test_the_error_about_a_graph_that_cannot_be_converted_is_one_line() -> None:
    """It has the toolchain's last line of output and no traceback."""
    chain = Toolchain("2.5.0", "new")
    job = Job(
        b"no graph",
        MOBILENET_V2.input_name,
        MOBILENET_V2.output_name,
        (1, 96, 96, 3),
        "int8",
        "int8",
        [Edits(np.zeros((67, 2)))],
    )
    with pytest.raises(ToolError, match=r"TensorFlow 2\.5\.0 to convert") as caught:
        toolchain.convert(chain, python_of(chain), job)
    assert "\n" not in str(caught.value)


# How an environment is created: with a small package in place of 180 MB, but real pip, hashes and Python 3.8.


QUICK = Toolchain("9.9", "new")


def wheel(folder: Path, code: str) -> Path:
    """Writes a wheel called tensorflow that contains only this code."""
    path = folder / "tensorflow-9.9-py3-none-any.whl"
    info = "tensorflow-9.9.dist-info"
    files = {
        "tensorflow.py": code,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tensorflow\nVersion: 9.9\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of locks with one for a TensorFlow 9.9, which is quick to install."""
    try:
        toolchain.find_python()
    except ResourceError as error:
        pytest.skip(str(error))
    folder = tmp_path / "locks"
    folder.mkdir()
    monkeypatch.setattr(toolchain, "_FOLDER", folder)
    lock(folder, wheel(tmp_path, "version = '9.9'\n"))
    return folder


def lock(folder: Path, package: Path, digest: str = "") -> None:
    """Writes the lock of TensorFlow 9.9."""
    digest = digest or hashlib.sha256(package.read_bytes()).hexdigest()
    (folder / "tensorflow-9.9.lock").write_text(f"tensorflow @ {package.as_uri()} --hash=sha256:{digest}\n")


def environments(cache: Path) -> list[Path]:
    """The environments in a cache, complete or not."""
    return [path for path in (cache / "toolchains").glob("*") if path.is_dir()]


@pytest.mark.slow
def test_an_environment_is_created_once(locks: Path, tmp_path: Path) -> None:
    """From the lock, with Python 3.8. The second call reuses it; another lock gives another environment."""
    said: list[str] = []
    python = toolchain.ensure(QUICK, tmp_path / "cache", said.append)
    code = "import sys, tensorflow; print(sys.version_info[:2] == (3, 8), tensorflow.version)"
    assert subprocess.check_output([python, "-I", "-c", code], text=True) == "True 9.9\n"
    assert len(said) == 1
    assert said[0].startswith("creating an environment for TensorFlow 9.9 in ")
    assert toolchain.ensure(QUICK, tmp_path / "cache", said.append) == python
    assert len(said) == 1
    lock(locks, wheel(tmp_path, "version = '9.9.1'\n"))
    assert toolchain.ensure(QUICK, tmp_path / "cache", said.append) != python
    assert len(environments(tmp_path / "cache")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["hash", "missing", "broken"])
def test_a_package_that_is_not_the_locked_one_leaves_no_environment(
    fault: str, locks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong hash, no package, or one that cannot be imported: a one-line error, and nothing is left."""
    package = wheel(tmp_path, "raise ImportError('no such instruction')\n" if fault == "broken" else "")
    lock(locks, package, "0" * 64 if fault == "hash" else "")
    if fault == "missing":
        package.unlink()
    with pytest.raises(ResourceError, match=r"an environment with TensorFlow 9\.9") as caught:
        toolchain.ensure(QUICK, tmp_path / "cache", print)
    assert "\n" not in str(caught.value)
    assert environments(tmp_path / "cache") == []


SCRIPT = """
import sys
from pathlib import Path
from recreate_model.prove import toolchain
toolchain._FOLDER = Path(sys.argv[1])
say = lambda text: print(text, flush=True)
say(toolchain.ensure(toolchain.Toolchain("9.9", "new"), Path(sys.argv[2]), say))
"""


def creating(locks: Path, cache: Path) -> subprocess.Popen[str]:
    """Starts another process that creates the environment."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(locks), str(cache)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
def test_an_incomplete_environment_is_created_again(locks: Path, tmp_path: Path) -> None:
    """After a kill during the installation it is not taken for a complete one."""
    cache = tmp_path / "cache"
    with creating(locks, cache) as process:
        while not list(cache.glob("toolchains/*/bin/python")):
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    (folder,) = environments(cache)
    assert not (folder / ".complete").exists()
    (folder / "left behind").touch()
    python = toolchain.ensure(QUICK, cache, print)
    assert environments(cache) == [folder]
    assert not (folder / "left behind").exists()
    assert subprocess.run([python, "-I", "-c", "import tensorflow"], check=False).returncode == 0


@pytest.mark.slow
def test_pip_ends_with_the_process_that_runs_it(locks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is killed while pip waits for a server that never answers; pip's connection then closes."""
    for name, value in {"PIP_DEFAULT_TIMEOUT": "600", "PIP_RETRIES": "0", "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(300)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/tensorflow-9.9-py3-none-any.whl"
        (locks / "tensorflow-9.9.lock").write_text(f"tensorflow @ {url} --hash=sha256:{'0' * 64}\n")
        with creating(locks, tmp_path / "cache") as process:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(60)
                assert connection.recv(1 << 16).startswith(b"GET /tensorflow-9.9")
                process.kill()
                assert connection.recv(1) == b""


@pytest.mark.slow
def test_others_wait_for_a_process_that_a_killed_step_has_started(locks: Path, tmp_path: Path) -> None:
    """It is not killed with its parent, and while it runs no other process creates the environment."""
    started, go_on = tmp_path / "started", tmp_path / "go on"
    child = f"""
import os, time
open({str(started)!r}, "w").close()
while not os.path.exists({str(go_on)!r}):
    time.sleep(0.01)
"""
    code = f"""
import os, subprocess, sys
if not os.path.exists({str(started)!r}):
    subprocess.run([sys.executable, "-I", "-c", {child!r}])
"""
    lock(locks, wheel(tmp_path, code))
    with creating(locks, tmp_path / "cache") as one:
        while not started.exists():
            assert one.poll() is None
            time.sleep(0.01)
        one.kill()
    with creating(locks, tmp_path / "cache") as two:
        assert two.stdout is not None
        try:
            assert two.stdout.readline().startswith("waiting for another process")
        finally:
            go_on.touch()
        assert two.stdout.readline().startswith("creating an environment")
        assert Path(two.stdout.readline().strip()).exists()
    assert two.returncode == 0


@pytest.mark.slow
def test_two_processes_create_one_environment(locks: Path, tmp_path: Path) -> None:
    """One creates it; the other waits and then uses it."""
    with creating(locks, tmp_path / "cache") as one, creating(locks, tmp_path / "cache") as two:
        said = [process.communicate(timeout=300)[0].splitlines() for process in (one, two)]
    assert [lines[-1] for lines in said] == [said[0][-1]] * 2
    assert sorted(line.split()[0] for lines in said for line in lines[:-1]) == ["creating", "waiting"]


@pytest.mark.slow
def test_an_environment_whose_python_is_missing_is_created_again(locks: Path, tmp_path: Path) -> None:
    """Its Python is a link to one that the user may remove."""
    python = toolchain.ensure(QUICK, tmp_path / "cache", print)
    python.unlink()
    python.symlink_to("/nonexistent/python3.8")
    assert toolchain.ensure(QUICK, tmp_path / "cache", print) == python
    assert python.exists()


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_a_resource_error(locks: Path, tmp_path: Path) -> None:
    """A file is in place of the folder: the error names the variable to set, and the file is kept."""
    (tmp_path / "cache").write_text("mine")
    with pytest.raises(ResourceError, match="RECREATE_MODEL_CACHE"):
        toolchain.ensure(QUICK, tmp_path / "cache", print)
    assert (tmp_path / "cache").read_text() == "mine"


@pytest.mark.shared
@pytest.mark.parametrize("name", ["calibration-unknown-a.tflite", "calibration-unknown-b.tflite"])
def test_files_of_unknown_calibration_are_proved(name: str, shared: Path, tmp_path: Path) -> None:
    """They have trained weights and were made elsewhere; no factor is moved beyond the tolerance."""
    python_of(Toolchain("2.5.0", "new"))
    archive = shared / "checkpoint" / "mobilenet_v2_1.0_224.tgz"
    published = shared / "published" / name
    result = run("prove", published, "--checkpoint", archive, "--accept", "IDENTICAL")
    assert result.returncode == 0, result.stderr
    assert "IDENTICAL: byte for byte the same." in result.stdout
    moved = re.search(r"by up to (\d+) units? in the last place", result.stdout)
    assert moved is None or int(moved[1]) <= FACTOR_ULPS


@pytest.mark.shared
def test_one_changed_bit_of_a_published_file_is_refuted(shared: Path, tmp_path: Path) -> None:
    """It is the lowest bit of a weight; the error names the tensor."""
    model = (shared / "published" / "calibration-unknown-a.tflite").read_bytes()
    view = read_model(model)
    tensor = view.tensors[convolutions(view)[20].inputs[1]]
    assert model.count(tensor.data) == 1
    changed = bytearray(model)
    changed[model.index(tensor.data) + 100] ^= 1
    path = tmp_path / "published.tflite"
    path.write_bytes(changed)
    archive = shared / "checkpoint" / "mobilenet_v2_1.0_224.tgz"
    result = run("prove", path, "--checkpoint", archive, "--quiet")
    assert_one_error(result, 1, tensor.name.split(";")[0], "refuted by 1 number")

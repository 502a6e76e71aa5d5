"""Bad input on the real command line: a one-line error, the documented status, and no partial file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.engine.store import Store
from recreate_model.network.spec import RESOURCES
from recreate_model.support import resources
from recreate_model.support.arrays import Array
from tests import official_layout, pictures
from tests.conftest import SMALL, contents
from tests.local_server import HTML, serving

ROOT = Path(__file__).parents[1]
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


def run(*arguments: object, prefix: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m pipeline` with an HTTPS proxy that refuses connections, so that it reaches only local servers."""
    surroundings = {
        **os.environ,
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        **environment,
    }
    command = [*prefix, sys.executable, "-m", "pipeline", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=300, check=False)


def assert_one_error(result: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """Requires one line of four parts on standard error, nothing on standard output, and the status."""
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: expected ")
    assert line.index("; found ") < line.index("; done: ") < line.index("; next: ")
    for word in words:
        assert word in line


def assert_nothing_written(out: Path) -> None:
    """Requires that there is no build folder, or one without a single artifact."""
    assert [path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")] == []


def small(command: str, out: Path, **flags: object) -> list[object]:
    """A command on the smallest network. Keyword arguments replace or add flags, and None leaves a flag out."""
    values = {"model": "0.35_96", "checkpoint": "seeded", "images": "procedural", "calib": 4, "limit": 2, "jobs": 1}
    values |= {"out": out, **flags}
    given = {name.replace("_", "-"): value for name, value in values.items() if value is not None}
    return [command, *(part for name, value in given.items() for part in (f"--{name}", value))]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"calib": 0}, ("--calib to be at least 1", "found 0")),
        ({"calib": -3}, ("--calib to be at least 1", "found -3")),
        ({"limit": -1}, ("--limit to be at least 0",)),
        ({"seed": -1}, ("--seed to be at least 0",)),
        ({"labels": "val.txt"}, ("no --labels with procedural pictures", "leave --labels out")),
        ({"label_base": 1}, ("no --label-base with procedural pictures",)),
        ({"ranges": "a.json"}, ("argument --ranges: not allowed with argument --calib",)),
        ({"manifest": "a.json"}, ("argument --manifest: not allowed with argument --calib",)),
        ({"images": ""}, ("--images to name pictures", "found an empty value")),
        ({"cluster": "", "jobs": None}, ("--cluster to be the address of a Dask scheduler",)),
        ({"jobs": 0}, ("--jobs to be at least 1",)),
        ({"model": "1.0_225"}, ("a model of the family", "'1.0_225'")),
        ({"targets": "ethos-u55-127"}, ("ethos-u55-127", "ethos-u55-128")),
        ({"targets": "ethos-u85-256:Ethos_U55_High_End_Embedded:Shared_Sram"}, ("Ethos_U55_High_End_Embedded",)),
        ({"checkpoint": "official"}, ("no pin for mobilenet_v2_0.35_96", "--checkpoint")),
        ({"range-method": "percentile:0"}, ("percentile:P with 0 < P <= 100", "'percentile:0'", "percentile:99.99")),
        ({"range-method": "percentile:101"}, ("'percentile:101'",)),
        ({"range-method": "percentile:x"}, ("'percentile:x', without a valid percentage",)),
        ({"range-method": "minmax"}, ("unknown method 'minmax'", "did you mean min-max?")),
        ({"range-method": "mse", "ranges": "none.json", "calib": None}, ("--range-method or --ranges", "found both")),
    ],
    ids=str,
)
def test_an_impossible_request_is_invalid_usage(
    flags: dict[str, object], words: tuple[str, ...], tmp_path: Path
) -> None:
    """Invalid numbers, names and combinations end with status 2."""
    assert_one_error(run(*small("vela", tmp_path / "out", **flags)), 2, *words)
    assert_nothing_written(tmp_path)


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["all", "--calib", "many"], ["explain", "nothing"], [], ["all", "--no"]]
)
def test_an_unknown_command_or_flag_is_invalid_usage(arguments: list[str]) -> None:
    """An error of the parser is one line of four parts, too, with status 2."""
    assert_one_error(run(*arguments), 2, "--help")


def _bad_archive(kind: str, folder: Path, good: Path, weights: dict[str, Array]) -> Path:
    path = folder / "mobilenet_v2_0.35_96.tgz"
    if kind == "missing":
        return path
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "truncated":
        path.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    elif kind == "HTML":
        path.write_text("<!DOCTYPE html><html><body>404</body></html>")
    elif kind == "no index":
        official_layout.write_archive(path, SMALL, weights, drop=(".index",))
    elif kind == "escaping":
        with tarfile.open(path, "w:gz") as tar:
            tar.addfile(tarfile.TarInfo("../../escaped"))
    elif kind == "NaN":
        name = "MobilenetV2/Conv/BatchNorm/gamma"
        changed = {**weights, name: np.full(16, np.nan, np.float32)}
        official_layout.write_archive(path, SMALL, changed)
    elif kind == "shape":
        broken = {**weights, "MobilenetV2/Conv/BatchNorm/gamma": np.ones(17, np.float32)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(official_layout, "unfolded_graph", lambda model, values: b"")
            official_layout.write_archive(path, SMALL, broken)
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", ("--checkpoint to name an archive", "nothing at")),
        ("folder", ("or a SavedModel folder", "a folder without saved_model.pb")),
        ("empty", ("mobilenet_v2_0.35_96.tgz",)),
        ("truncated", ("mobilenet_v2_0.35_96.tgz",)),
        ("HTML", ("an HTML page",)),
        ("no index", ("mobilenet_v2_0.35_96.ckpt.index",)),
        ("escaping", ("../../escaped",)),
        ("NaN", ("MobilenetV2/Conv/BatchNorm/gamma/ExponentialMovingAverage", "16 of 16")),
        ("shape", ("gamma/ExponentialMovingAverage of shape (16,)", "(17,)")),
    ],
)
def test_a_bad_archive_is_bad_input(
    kind: str, words: tuple[str, ...], tmp_path: Path, small_archive: Path, small_weights: dict[str, Array]
) -> None:
    """The status is 3, and no float model is written."""
    path = _bad_archive(kind, tmp_path, small_archive, small_weights)
    assert_one_error(run(*small("freeze", tmp_path / "out", checkpoint=path)), 3, *words)
    assert not list((tmp_path / "out").rglob("*.tflite"))
    assert not (tmp_path.parent / "escaped").exists()


def test_a_good_archive_is_accepted(tmp_path: Path, small_archive: Path) -> None:
    """The same command succeeds on the archive from which the test above makes the bad ones."""
    assert run(*small("freeze", tmp_path, checkpoint=small_archive), "--quiet").returncode == 0
    (model,) = tmp_path.rglob("*.tflite")
    assert "_ckpt-" in model.name
    assert "seeded" not in model.name


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("empty.JPEG", b"", ("a file of zero bytes",)),
        ("cut.JPEG", pictures.jpeg(1)[:700], ("cut.JPEG",)),
        ("page.jpg", b"<html>", ("page.jpg",)),
        ("cut.png", pictures.png(1)[:300], ("cut.png",)),
    ],
)
def test_a_bad_picture_is_named(name: str, data: bytes, words: tuple[str, ...], tmp_path: Path) -> None:
    """An empty file, a truncated picture or an HTML page gives status 3 and the file's name."""
    folder = pictures.write_folder(tmp_path / "pictures", count=3)
    (folder / "n01440764" / name).write_bytes(data)
    result = run(*small("calibrate", tmp_path / "out", images=folder, limit=0))
    assert_one_error(result, 3, f"n01440764/{name}", "complete JPEG or PNG", *words)
    assert not list((tmp_path / "out").rglob("ranges.json"))


def test_folders_without_enough_pictures_are_bad_input(tmp_path: Path) -> None:
    """A missing folder, an empty one and one with too few pictures have different messages, all with status 3."""
    few = pictures.write_folder(tmp_path / "few", count=3)
    (tmp_path / "none").mkdir()
    for folder, words in (
        (tmp_path / "missing", ("to be a folder of pictures", "No such file or directory")),
        (tmp_path / "none", ("pictures (.jpeg, .jpg, .png)", "none there")),
        (few, ("4 pictures to calibrate on", "found 3", "--calib 3")),
    ):
        assert_one_error(run(*small("calibrate", tmp_path / "out", images=folder)), 3, *words)
    assert_nothing_written(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("other weights", ("for the network mobilenet_v2_0.35_96_seeded", "one for mobilenet_v2_0.35_96")),
        ("missing activation", ("none for MobilenetV2/Conv/Relu6",)),
        ("other graph", ("float graph with SHA-256",)),
        ("other crop", ("for the preprocessing central-crop", "one for squash")),
        ("inverted", ("[6.0, 0.0] for MobilenetV2/Conv/Relu6",)),
        ("beyond float32", ("[0.0, 1e+39] for MobilenetV2/Conv/Relu6",)),
        ("not JSON", ("to be a range table",)),
        ("no file", ("table.json to be a range table", "No such file")),
    ],
)
def test_a_range_table_that_does_not_fit_is_bad_input(
    change: str, words: tuple[str, ...], tmp_path: Path, finished_build: object
) -> None:
    """Another network's table, an incomplete or impossible one, and a missing one give status 3 and the reason."""
    source = next(finished_build.out.rglob("ranges.json"))  # type: ignore[attr-defined]
    document = json.loads(source.read_text())
    rows = document["activations"]
    (relu6,) = (row for row in rows if row["name"] == "MobilenetV2/Conv/Relu6")
    if change == "other weights":
        document["network"] = "mobilenet_v2_0.35_96"
    elif change == "other graph":
        document["graph_sha256"] = "0" * 64
    elif change == "other crop":
        document["preprocess"] = "squash"
    elif change == "beyond float32":
        relu6.update(min=0.0, max=1e39)
    elif change == "missing activation":
        rows.remove(relu6)
    elif change == "inverted":
        relu6.update(min=6.0, max=0.0)
    table = tmp_path / "table.json"
    if change != "no file":
        table.write_text("{" if change == "not JSON" else json.dumps(document))
    assert_one_error(run(*small("calibrate", tmp_path / "out", ranges=table, calib=None)), 3, *words)
    assert not list((tmp_path / "out").rglob("ranges.json"))


def test_only_evaluate_warns_of_too_few_pictures(tmp_path: Path) -> None:
    """Of six pictures, four calibrate, so two of the five requested are left. Other commands do not need them."""
    flags = {"images": pictures.write_folder(tmp_path / "pictures", count=6), "limit": 5}
    warning = "2 pictures are left to evaluate on, of the 5 requested"
    for command, warned in (("calibrate", False), ("quantize", False), ("evaluate", True)):
        result = run(*small(command, tmp_path / "out", **flags))
        assert (result.returncode, warning in result.stderr) == (0, warned), result.stderr


def test_a_manifest_gives_the_same_build_or_names_the_changed_picture(tmp_path: Path) -> None:
    """The manifest that `calibrate` wrote is given with --manifest. The build has the same files."""
    folder = pictures.write_folder(tmp_path / "pictures", count=12)
    first = run(*small("quantize", tmp_path / "first", images=folder, limit=0))
    assert first.returncode == 0, first.stderr
    (manifest,) = (tmp_path / "first").rglob("manifest.json")
    flags = {"images": folder, "limit": 0, "calib": None, "seed": 5, "manifest": manifest}
    again = run(*small("quantize", tmp_path / "again", **flags))
    assert again.returncode == 0, again.stderr
    assert contents(tmp_path / "again") == contents(tmp_path / "first")
    chosen = json.loads(manifest.read_text())["pictures"][2]["id"]
    (folder / chosen).write_bytes(pictures.jpeg(77))
    assert_one_error(run(*small("quantize", tmp_path / "again", **flags)), 3, f"changed: {chosen}")


@pytest.mark.parametrize("fault", ["html", "wrong content"])
def test_a_mirror_with_another_file_is_a_resource_error(fault: str, tmp_path: Path) -> None:
    """An HTML page or an archive with another hash gives status 4, and nothing is stored in the cache."""
    resource = RESOURCES["mobilenet_v2_1.0_224"]
    with serving(HTML if fault == "html" else b"\x1f\x8b" + bytes(resource.size - 2)) as server:
        result = run(
            "fetch", "--checkpoint", "official", "--out", tmp_path / "out",
            RECREATE_MODEL_MIRRORS=server.url, RECREATE_MODEL_CACHE=str(tmp_path / "cache"),
        )  # fmt: skip
    assert_one_error(result, 4, "--checkpoint PATH", "--checkpoint seeded")
    assert not (tmp_path / "out").exists()
    assert resources.cached(resource, tmp_path / "cache") is None


def test_without_a_network_official_fails_and_auto_uses_seeded_weights(tmp_path: Path) -> None:
    """`official` ends with status 4. `auto` warns that it builds from seeded weights, and builds."""
    cache = {"RECREATE_MODEL_CACHE": str(tmp_path / "cache")}
    assert_one_error(run("fetch", "--checkpoint", "official", "--out", tmp_path / "out", **cache), 4, "no response")
    result = run("fetch", "--checkpoint", "auto", "--out", tmp_path / "out", **cache)
    assert result.returncode == 0
    assert "SEEDED" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mobilenet_v2_1.0_224_seeded_INT8"]


def can_mount() -> bool:
    """Whether this process may mount file systems in a namespace of its own."""
    probe = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return (
        shutil.which("unshare") is not None and subprocess.run(probe, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not can_mount(), reason="this machine does not let users mount a file system")
@pytest.mark.parametrize(
    ("options", "words"),
    [("ro", ("Read-only file system", "--out")), ("size=300k", ("No space left on device", "free some space"))],
    ids=["read-only", "full"],
)
def test_a_full_or_read_only_folder_is_a_resource_error(options: str, words: tuple[str, ...], tmp_path: Path) -> None:
    """Both are real file systems. The status is 4, and no partial file remains."""
    out = tmp_path / "out"
    out.mkdir()
    arguments = small("labels" if options == "ro" else "freeze", out)
    # The script lists the models left on the file system. Any such line would be a second line of the error.
    script = (
        f'mount -t tmpfs -o {options} tmpfs {out} && "$@"; status=$?; find {out} -name "*.tflite" >&2; exit $status'
    )
    result = run(*arguments, prefix=(*NAMESPACE, "sh", "-c", script, "sh"))
    assert_one_error(result, 4, *words)


def test_a_limit_on_file_sizes_leaves_no_partial_file(tmp_path: Path) -> None:
    """With files limited to 1 MB, the float model cannot be written. The status is 4."""
    limited = ("sh", "-c", 'ulimit -f 2000; exec "$@"', "sh")
    result = run(*small("freeze", tmp_path), prefix=limited)
    assert_one_error(result, 4, "File too large")
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".tflite", ".pb")]


def test_out_that_names_a_file_is_a_resource_error(tmp_path: Path) -> None:
    """The status is 4, and the file does not change."""
    (tmp_path / "out").write_text("mine")
    assert_one_error(run(*small("labels", tmp_path / "out")), 4, "--out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("wait", [0.1, 0.5, 1.5])
def test_ctrl_c_prints_one_line_and_the_next_run_continues(wait: float, tmp_path: Path) -> None:
    """An interrupt while workers start or work gives status 130, one line that says what is kept, and no traceback."""
    folder = tmp_path / "mobilenet_v2_0.35_96_seeded_INT8"
    command = [sys.executable, "-m", "pipeline", *map(str, small("all", tmp_path, calib=2000, jobs=2))]
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while "freeze" not in Store(folder).records() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(wait)
        # Like a terminal, it signals every process of the group, including the workers.
        os.killpg(process.pid, signal.SIGINT)
        try:
            out, error = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 130
    assert (out, error.splitlines()) == ("", ["stopped: finished stages are kept; run the same command to continue"])
    assert run(*small("freeze", tmp_path), "--json").stdout.count('"reused"') == 2

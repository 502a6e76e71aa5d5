"""The Python API: it returns the bytes that the command line writes, and its documented examples run unchanged."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.request.request import Request
from recreate_model import api
from tests.test_bad_input import run

if TYPE_CHECKING:
    from calibration.ranges.range_table import Ranges

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "api.md"
NAME = "mobilenet_v2_0.35_96_seeded_INT8"


@pytest.fixture(scope="module")
def floats() -> api.FloatNetwork:
    """The smallest network with seeded weights."""
    return api.load_floats("seeded", "0.35_96")


@pytest.fixture(scope="module")
def built(finished_build: Request) -> Path:
    """The folder of a small build, made by the stages."""
    return finished_build.out / NAME


@pytest.fixture(scope="module")
def ranges(floats: api.FloatNetwork, finished_build: Request) -> Ranges:
    """The ranges of the pictures in that build."""
    return api.measure_ranges(floats, "procedural", count=finished_build.calib)


@pytest.fixture(scope="module")
def model(floats: api.FloatNetwork, ranges: Ranges) -> bytes:
    """The INT8 model that the API returns."""
    return api.quantize(floats, ranges)


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_api_returns_the_same_bytes_as_the_command_line(floats: api.FloatNetwork, tmp_path: Path) -> None:
    """This holds for the INT8 model, the float model and the range table."""
    options = ("--model", "0.35_96", "--checkpoint", "seeded", "--images", "procedural", "--calib", 4, "--limit", 2)
    assert run("quantize", *options, "--out", tmp_path, "--quiet").returncode == 0
    ranges = api.measure_ranges(floats, "procedural", count=4)
    folder = tmp_path / NAME
    assert api.quantize(floats, ranges) == (folder / f"{NAME}.tflite").read_bytes()
    assert api.ranges_json(ranges).encode() == (folder / "calibration" / "ranges.json").read_bytes()
    assert floats.model == (folder / "float" / f"{floats.name}_float.tflite").read_bytes()
    assert floats.graph == (folder / "float" / f"{floats.name}_float.pb").read_bytes()


def test_deployables_equal_those_of_the_stages(model: bytes, built: Path, tmp_path: Path) -> None:
    """C arrays, the standalone runtime and every file from Vela are compared byte for byte."""
    path = built / f"{NAME}.tflite"
    assert model == path.read_bytes()
    found = api.c_arrays(path, labels=api.labels())
    assert {name: (built / "cortex_m" / name).read_text(encoding="utf-8") for name in found} == found
    assert api.c_arrays(model, path.name, api.labels()) == found
    standalone = {name: text.encode() for name, text in api.standalone_c(path).items()}
    assert standalone == files(built / "cortex_m" / "standalone")
    (variant,) = api.compile_for_ethos_u(path, tmp_path, "ethos-u55-128")
    assert files(tmp_path) == {f"ethos-u55-128/{k}": v for k, v in files(built / "ethos_u" / "ethos-u55-128").items()}
    assert variant.file == f"{NAME}_vela.tflite"


def test_ranges_can_be_read_from_a_file_or_recovered_from_a_model(
    floats: api.FloatNetwork, ranges: Ranges, model: bytes, built: Path, tmp_path: Path
) -> None:
    """Read ranges equal the measured ones. Recovered ones equal those of `recover`, and give the same model."""
    assert api.read_ranges(built / "calibration" / "ranges.json") == ranges
    path = tmp_path / "published.tflite"
    path.write_bytes(model)
    recovered = api.recover_ranges(path, floats)
    table = tmp_path / "table.json"
    options = ["--model", "0.35_96", "--checkpoint", "seeded", "--output", table, "--out", built.parent, "--quiet"]
    assert run("recover", path, *options).returncode == 0
    assert api.ranges_json(recovered) == table.read_text(encoding="utf-8")
    assert api.quantize(floats, recovered) == model


def test_diff_and_prove_give_the_same_verdicts_as_the_commands(
    floats: api.FloatNetwork, ranges: Ranges, model: bytes, tmp_path: Path
) -> None:
    """The same model is IDENTICAL. A model with other ranges is SAME_WEIGHTS, which does not refute a proof."""
    assert api.diff(model, model).verdict.name == "IDENTICAL"
    assert api.prove(model, floats, toolchains="none").verdict.name == "IDENTICAL"
    wider = {name: (2 * low, 2 * high) for name, (low, high) in ranges.spans.items() if not name.endswith("Relu6")}
    path = tmp_path / "wider.tflite"
    path.write_bytes(api.quantize(floats, replace(ranges, spans={**ranges.spans, **wider})))
    comparison = api.diff(model, path)
    assert comparison.verdict.name == "SAME_WEIGHTS"
    (tmp_path / "model.tflite").write_bytes(model)
    printed = run("diff", tmp_path / "model.tflite", path, "--accept", "DIFFERENT", "--json").stdout
    assert len(json.loads(printed)["differences"]) == len(comparison.differences)


def test_options_of_measure_ranges_take_effect(floats: api.FloatNetwork, picture_folder: Path) -> None:
    """The options are the number of pictures, seed, preprocessing, method and number of processes."""
    options = {"count": 3, "preprocess": "squash", "method": "percentile:99.90"}
    table = api.measure_ranges(floats, picture_folder, jobs=2, **options)
    assert (len(table.pictures), table.preprocess, table.range_method) == (3, "squash", "percentile:99.9")
    assert api.measure_ranges(floats, picture_folder, **options) == table
    assert api.measure_ranges(floats, picture_folder, seed=1, **options).pictures != table.pictures
    with pytest.raises(api.InputError, match="13 pictures to calibrate on"):
        api.measure_ranges(floats, picture_folder, count=13)
    with pytest.raises(api.UsageError, match="--range-method to be min-max"):
        api.measure_ranges(floats, picture_folder, method="max")


def test_a_checkpoint_can_be_given_by_its_path(small_archive: Path, ranges: Ranges) -> None:
    """The name of the network contains the archive's digest, and a range table of other weights is refused."""
    trained = api.load_floats(small_archive, "0.35_96")
    assert trained.name.startswith("mobilenet_v2_0.35_96_ckpt-")
    with pytest.raises(api.InputError, match=f"a range table for the network {trained.name}"):
        api.quantize(trained, ranges)
    model = api.quantize(trained, api.measure_ranges(trained, "procedural", count=2))
    assert api.prove(model, trained, toolchains="none").verdict.name == "IDENTICAL"


def test_errors_have_four_parts(floats: api.FloatNetwork, ranges: Ranges, model: bytes, tmp_path: Path) -> None:
    """Each error says what was expected, what was found, what was done, and what to do next."""
    with pytest.raises(api.InputError, match="a range table for the float graph"):
        api.quantize(floats, replace(ranges, graph_sha256="0" * 64))
    with pytest.raises(api.InputError, match="one range for each of the network's 64 activations"):
        api.quantize(floats, replace(ranges, spans={}))
    with pytest.raises(api.InputError, match=r"expected .*missing\.json to be a range table; found No such file"):
        api.read_ranges(tmp_path / "missing.json")
    with pytest.raises(api.UsageError, match="optimize to be one of speed, size, both; found 'fast'"):
        api.compile_for_ethos_u(model, tmp_path, optimize="fast")
    with pytest.raises(api.UsageError, match="a model of the family"):
        api.load_floats("seeded", "9.9_96")
    with pytest.raises(api.InputError, match="the second model"):
        api.diff(model, b"no model")
    assert not list(tmp_path.iterdir())


def blocks(path: Path) -> list[str]:
    """The Python code blocks of a Markdown file."""
    return re.findall(r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), re.M | re.S)


def assert_prints_its_comments(code: str, folder: Path) -> None:
    """Runs a script in an empty folder. The comment after each `print` has to equal the line that it prints."""
    (folder / "example.py").write_text(code, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = re.findall(r"^ *print\(.*\)  # (.*)$", code, re.M)
    assert len(expected) == len(re.findall(r"^ *print\(", code, re.M))
    assert done.stdout.splitlines() == expected


def test_the_first_example_runs_alone(tmp_path: Path) -> None:
    """It has at most ten lines, and an example of the API in the README has to be the same code."""
    first = blocks(DOCUMENT)[0]
    assert len(first.splitlines()) <= 10
    assert_prints_its_comments(first, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"example.py", "model.tflite", "model.h", "model.c"}
    assert all(block == first for block in blocks(ROOT / "README.md") if "recreate_model" in block)


@pytest.mark.slow
def test_the_examples_of_the_reference_print_their_comments(tmp_path: Path) -> None:
    """The examples run one after the other, as a reader would type them."""
    assert_prints_its_comments("\n".join(blocks(DOCUMENT)), tmp_path)


def test_the_reference_lists_every_function() -> None:
    """Each function of `__all__` is listed with arguments that it has, and has a description."""
    rows = re.findall(r"^\| (`.*?`) \|", DOCUMENT.read_text(encoding="utf-8"), re.M)
    listed = dict(re.findall(r"(\w+)\(([^)]*)\)", " ".join(rows)))
    functions = {name for name in api.__all__ if name[0].islower()}
    assert listed.keys() == functions - {"command_line"}
    for name, arguments in listed.items():
        code = getattr(api, name).__code__
        known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        assert {argument for argument in arguments.split(", ") if argument not in ("", "...")} <= set(known)
    assert all(getattr(api, name).__doc__ for name in api.__all__)


@pytest.mark.slow
def test_the_notebook_reproduces_its_stored_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs from the start in a new kernel. It stores no timing, and nothing that depends on the machine."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "docs" / "quantize.ipynb", as_version=4)
    nbformat.validate(notebook)
    stored = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert all(output.name == "stdout" for outputs in stored for output in outputs)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    client = NotebookClient(
        copy.deepcopy(notebook), timeout=300, record_timing=False, resources={"metadata": {"path": str(tmp_path)}}
    )
    found = [cell.outputs for cell in client.execute().cells if cell.cell_type == "code"]
    assert found == stored

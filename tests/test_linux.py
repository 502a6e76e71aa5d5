"""The programs for Cortex-A and Mali GPUs, run as a user runs them and compared with the pipeline's own runs."""

from __future__ import annotations

import ast
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from calibration.pictures import procedural
from calibration.pictures.preprocess import decode, normalize, quantize_input
from pipeline.console import NoBars
from pipeline.engine.keys import key_parts
from pipeline.engine.stages import STAGES
from pipeline.engine.work import model_file
from pipeline.linux.program import linux_programs
from pipeline.linux.templates import pictures as theirs
from pipeline.platforms import aarch64, mali, vulkan
from pipeline.platforms.evidence import Subject
from pipeline.platforms.jobs import PythonHost, run_job
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from recreate_model.recipe import Preprocess
from recreate_model.support.arrays import Array
from recreate_model.support.resources import cache_folder
from recreate_model.tflite.interpret import Runner
from recreate_model.tflite.model_view import read_model
from tests import edited_models, pictures, vulkan_drivers
from tests.conftest import SMALL_REQUEST, build

CROPS: dict[str, Callable[..., Any]] = {
    "central-crop": theirs.central_crop,
    "inception": theirs.inception,
    "squash": theirs.squash,
}
# On values in -1..1. The largest difference seen is 7e-7 where OpenCV resizes with Intel's library, and 1.2e-5 where it
# uses its own code, which computes positions in float32 (`OPENCV_IPP=disabled`). Another crop gives 0.9.
TOLERANCE = 1e-3
# Only that library's code for AVX2 and AVX-512 gives exactly the levels of `pictures.py`; its code for SSE4.2 differs
# in the last bits, so levels halfway between two values may be one apart.
SAME_LEVELS = cv2.ipp.useIPP() and "AVX" in cv2.ipp.getIppVersion()


@pytest.fixture(scope="module")
def folder(finished_build: Request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user copies to a board: the model, the labels and the two folders, without the rest of the build."""
    recipe, _ = resolve(finished_build, NoBars(), may_fetch=False)
    source, place = finished_build.out / recipe.name, tmp_path_factory.mktemp("board") / "build"
    place.mkdir()
    for name in (model_file(recipe), "labels.txt"):
        shutil.copy(source / name, place)
    for name in ("cortex_a", "mali_gpu"):
        shutil.copytree(source / name, place / name)
    return place


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three pictures as files: JPEG, PNG and gray JPEG."""
    place = tmp_path_factory.mktemp("photographs")
    gray = io.BytesIO()
    Image.open(io.BytesIO(pictures.jpeg(3, (300, 200)))).convert("L").save(gray, "JPEG")
    files = {"one.jpg": pictures.jpeg(1, (500, 375)), "two.png": pictures.png(2), "three.jpg": gray.getvalue()}
    for name, data in files.items():
        (place / name).write_bytes(data)
    return [place / name for name in files]


def model_of(folder: Path) -> Path:
    (path,) = folder.glob("*.tflite")
    return path


def run(program: Path, *arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in its own folder, where the project cannot be imported, with `settings` in the environment."""
    environment = {**os.environ, **settings, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(program), *map(str, arguments)]
    return subprocess.run(
        command, cwd=program.parent, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def assert_refused(result: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """Asserts the status, and that standard error is one line with those words."""
    assert result.returncode == status, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("classify.py: ")
    for word in words:
        assert word in line


def inputs(model: bytes, files: list[Path]) -> Array:
    """Returns the pipeline's own inputs for the pictures, int8 (n, height, width, 3)."""
    view = read_model(model).input
    assert view.quantization is not None
    (scale,), (zero,) = view.quantization.scales, view.quantization.zero_points
    values = [normalize(decode(file.read_bytes(), file.name), Preprocess(), view.shape[1]) for file in files]
    return np.concatenate([quantize_input(value, scale, zero) for value in values])


def expected_rows(outputs: Array, folder: Path) -> list[str]:
    """Returns the five best classes of each picture as the programs print them. `outputs` is int8 (n, classes)."""
    labels = (folder / "labels.txt").read_text().splitlines()
    rows = []
    for scores in outputs.astype(int):
        best = sorted(range(len(scores)), key=lambda number: (-scores[number], number))[:5]
        rows += [f"  {(scores[number] + 128) / 256:.4f}  {number:4}  {labels[number]}" for number in best]
    return rows


def printed_rows(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert (result.returncode, result.stderr) == (0, "")
    return [line for line in result.stdout.splitlines() if line.startswith("  ")]


def xnnpack(model: bytes, values: Array) -> Array:
    runner = Runner(model, "xnnpack")
    return np.concatenate([runner.run(value[np.newaxis])[0] for value in values])


# Cortex-A, on this machine.


@pytest.mark.parametrize("threads", [(), ("--threads", "2")], ids=["one thread", "two threads"])
def test_cortex_a_prints_what_xnnpack_gives(threads: tuple[str, ...], folder: Path, photographs: list[Path]) -> None:
    """Classes, scores and labels equal those of the pipeline's own run on its own inputs."""
    result = run(folder / "cortex_a" / "classify.py", *photographs, *threads)
    model = model_of(folder).read_bytes()
    assert printed_rows(result) == expected_rows(xnnpack(model, inputs(model, photographs)), folder)
    titles = [line for line in result.stdout.splitlines() if not line.startswith("  ")]
    assert titles[1:] == [str(path) for path in photographs]
    assert titles[0] == f"{model_of(folder).name}, XNNPACK on the CPU, threads: {threads[1] if threads else 1}"


def test_scale_and_zero_point_come_from_the_model_file(folder: Path, photographs: list[Path], tmp_path: Path) -> None:
    """A model with another input scale gives the other scores that follow from that scale."""

    def change(tree: Any) -> None:
        source = tree.subgraphs[0].tensors[tree.subgraphs[0].inputs[0]]
        source.quantization.scale, source.quantization.zeroPoint = [0.01], [5]

    model = edited_models.edited(model_of(folder).read_bytes(), change)
    (tmp_path / "other.tflite").write_bytes(model)
    program = folder / "cortex_a" / "classify.py"
    rows = printed_rows(run(program, *photographs, "--model", tmp_path / "other.tflite"))
    assert rows == expected_rows(xnnpack(model, inputs(model, photographs)), folder)
    assert rows != printed_rows(run(program, *photographs))


def test_other_labels_can_be_given(folder: Path, photographs: list[Path], tmp_path: Path) -> None:
    """A file with the same number of rows replaces labels.txt."""
    (tmp_path / "mine.txt").write_text("\n".join(f"class {number}" for number in range(1001)))
    result = run(folder / "cortex_a" / "classify.py", photographs[0], "--labels", tmp_path / "mine.txt")
    assert all(row.split("  ")[-1].startswith("class ") for row in printed_rows(result))


# Bad input.


@pytest.mark.parametrize("platform", ["cortex_a", "mali_gpu"])
def test_a_model_that_does_not_fit_is_refused(platform: str, folder: Path, photographs: list[Path]) -> None:
    """A missing file, a file that is not a model, a float model, and a wrong number of labels."""
    program = folder / platform / "classify.py"
    floats = tiny_float(folder.parent)
    for arguments, words in (
        (("--model", folder / "none.tflite"), ("none.tflite is not a model", "Could not open")),
        (("--model", folder / "labels.txt"), ("labels.txt is not a model",)),
        (("--model", floats), ("int8", "found", "float32", "[[1, 8, 8, 3], [1, 5]]")),
        (("--labels", photographs[0]), ("codec can't decode",)),
        (("--labels", program), ("labels], found",)),
        (("--labels", folder / "none.txt"), ("none.txt", "No such file")),
    ):
        result = run(program, photographs[0], *arguments)
        assert_refused(result, 3, *words)
        assert result.stdout == ""


def tiny_float(place: Path) -> Path:
    from tests.tiny_models import tiny_model

    path = place / "float.tflite"
    path.write_bytes(tiny_model("float"))
    return path


def test_a_file_that_is_not_a_picture_is_refused(folder: Path, tmp_path: Path) -> None:
    """Missing, a folder, empty, truncated, of an unknown format, or too large. No class is printed."""
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    files = {"empty": b"", "cut.jpg": pictures.jpeg(1)[:600], "page.html": b"<html>", "bomb.png": bomb.getvalue()}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for path in (tmp_path / "none.jpg", tmp_path, *(tmp_path / name for name in files)):
        result = run(folder / "cortex_a" / "classify.py", path)
        assert_refused(result, 3, f"{path} cannot be read as a picture")
        assert "  " not in result.stdout


def test_invalid_usage_has_status_2(folder: Path, photographs: list[Path]) -> None:
    """No picture, an unknown option, and a wrong value; a number of threads that LiteRT refuses is status 3."""
    program = folder / "cortex_a" / "classify.py"
    for arguments in ((), (photographs[0], "--thread-count", "2"), (photographs[0], "--threads", "two")):
        result = run(program, *arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert "Traceback" not in result.stderr
    assert_refused(run(program, photographs[0], "--threads", "0"), 3, "num_threads")


@pytest.mark.parametrize("package", ["PIL", "ai_edge_litert"])
def test_a_missing_package_is_named(package: str, folder: Path, photographs: list[Path], tmp_path: Path) -> None:
    """Where a package is not installed, the program names it and exits with status 4."""
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError(\"No module named '{package}'\")\n")
    result = run(folder / "cortex_a" / "classify.py", photographs[0], PYTHONPATH=str(tmp_path))
    assert_refused(result, 4, f"No module named '{package}'")


# Preprocessing.


def encoded(mode: str, form: str, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(procedural.picture(7, sum(size), max(size))).resize(size)
    if mode == "I;16":
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(buffer, form)
    else:
        picture.convert(mode).save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize("crop", Preprocess.CROPS)
@pytest.mark.parametrize(
    ("mode", "form"),
    [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("I;16", "PNG")],
)
@pytest.mark.parametrize("size", [(500, 375), (120, 307), (64, 64), (1280, 720), (5, 400), (2, 3)], ids=str)
def test_inputs_equal_those_of_the_build(
    crop: str, mode: str, form: str, size: tuple[int, int], tmp_path: Path
) -> None:
    """Within the tolerance in float32; equal in int8 where OpenCV resizes with the code named at SAME_LEVELS."""
    data = encoded(mode, form, size)
    (tmp_path / "picture").write_bytes(data)
    assert np.array_equal(theirs.read(tmp_path / "picture"), decode(data, "picture"))
    ours = normalize(decode(data, "picture"), Preprocess(crop), 96)[0]
    found = CROPS[crop](theirs.read(tmp_path / "picture"), 96, 96) / np.float32(127.5) - np.float32(1)
    assert (found.dtype, found.shape) == (np.float32, ours.shape)
    assert np.abs(found - ours).max() <= TOLERANCE
    levels = [quantize_input(value, 1 / 127.5, -1).astype(int) for value in (found, ours)]
    assert np.abs(levels[0] - levels[1]).max() <= 1
    if SAME_LEVELS:
        assert np.array_equal(*levels)


@pytest.mark.parametrize("crop", Preprocess.CROPS)
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)], ids=str)
def test_the_narrowest_pictures_are_within_the_tolerance(crop: str, size: tuple[int, int]) -> None:
    """If a side has one pixel, OpenCV rounds differently, so int8 levels may be one apart."""
    pixels = decode(encoded("RGB", "PNG", size), "narrow")
    found = CROPS[crop](pixels, 96, 96) / np.float32(127.5) - np.float32(1)
    assert np.abs(found - normalize(pixels, Preprocess(crop), 96)[0]).max() <= TOLERANCE


def test_the_tolerance_distinguishes_the_crops() -> None:
    """It is far below the difference between any two crops."""
    pixels = decode(pictures.jpeg(1, (500, 375)), "x")
    results = [function(pixels, 96, 96) / 127.5 for function in CROPS.values()]
    assert min(np.abs(results[0] - results[1]).max(), np.abs(results[1] - results[2]).max()) > 500 * TOLERANCE


@pytest.mark.shared
def test_photographs_give_the_same_bytes(shared: Path) -> None:
    """Real photographs, at the resolution of the full network."""
    files = sorted((shared / "imagenet_sample").rglob("*.JPEG"))[::7]
    assert len(files) > 50
    if not SAME_LEVELS:
        pytest.skip("OpenCV's resizing on this machine differs in the last bits")
    for path in files:
        ours = normalize(decode(path.read_bytes(), path.name), Preprocess(), 224)[0]
        assert np.array_equal(*(quantize_input(v, 1 / 127.5, -1) for v in (theirs.prepare(path, 224, 224), ours))), path


# The sources.


@pytest.mark.parametrize("crop", Preprocess.CROPS)
def test_sources_are_self_contained_and_have_one_crop(crop: str) -> None:
    """They use the syntax of Python 3.9, its library, three packages and each other, and only the crop of the build."""
    files = linux_programs(crop, "some_model.tflite")
    assert set(files) == {f"{folder}/{name}.py" for folder in ("cortex_a", "mali_gpu") for name in CLASSIFY_FILES}
    allowed = {*sys.stdlib_module_names, "numpy", "PIL", "ai_edge_litert", "pictures"}
    for path, text in files.items():
        tree = ast.parse(text, feature_version=(3, 9))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] in allowed
            elif isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if path.endswith("pictures.py"):
            assert defined & {function.__name__ for function in CROPS.values()} == {CROPS[crop].__name__}
        else:
            assert 'BUILD / "some_model.tflite"' in text
            assert path in text  # its docstring says how to run it
        assert "pipeline" not in text


CLASSIFY_FILES = ("classify", "pictures")


def test_the_emitted_pictures_module_applies_the_crop_of_the_build(tmp_path: Path) -> None:
    """The emitted file, imported from its folder, prepares a picture as a build with that crop does."""
    (tmp_path / "x.jpg").write_bytes(pictures.jpeg(1, (300, 200)))
    for crop in Preprocess.CROPS:
        (tmp_path / "pictures.py").write_text(linux_programs(crop, "m.tflite")["cortex_a/pictures.py"])
        code = "import pictures; pictures.np.save('out.npy', pictures.prepare('x.jpg', 96, 96))"
        subprocess.run([sys.executable, "-B", "-c", code], cwd=tmp_path, check=True)
        ours = normalize(decode((tmp_path / "x.jpg").read_bytes(), "x"), Preprocess(crop), 96)[0]
        assert np.abs(np.load(tmp_path / "out.npy") - ours).max() <= TOLERANCE


def test_emitted_sources_are_formatted(tmp_path: Path) -> None:
    """They pass the formatter and the linter, as their templates do."""
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff is None:
        pytest.skip("no ruff here (make lint)")
    for path, text in linux_programs("squash", "mobilenet_v2_1.0_224_INT8.tflite").items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    for arguments in (("format", "--check"), ("check", "--select", "E,F,W,B,UP", "--target-version", "py39")):
        done = subprocess.run(
            [ruff, *arguments, "--isolated", "--line-length", "120", "."], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def test_the_key_includes_the_templates_and_the_crop(finished_build: Request) -> None:
    """So a changed template or another crop makes the stage stale."""
    stage = next(stage for stage in STAGES if stage.name == "linux")
    recipe, _ = resolve(finished_build, NoBars(), may_fetch=False)
    parts = key_parts(stage, recipe, {})
    assert {f"pipeline.linux.templates.{name}" for name in ("classify", "cortex_a", "mali_gpu", "pictures")} <= set(
        parts.code
    )
    other = key_parts(stage, replace(recipe, preprocess=Preprocess("squash")), {})
    assert [change.split(":")[0] for change in other.changes_since(parts)] == ["recipe crop"]


def test_the_card_lists_the_programs(finished_build: Request) -> None:
    """It has both programs."""
    recipe, _ = resolve(finished_build, NoBars(), may_fetch=False)
    card = (finished_build.out / recipe.name / "README.md").read_text()
    assert "cortex_a/classify.py" in card
    assert "mali_gpu/classify.py" in card


def test_a_build_with_squash_has_its_crop_in_the_program(tmp_path: Path) -> None:
    """The crop of the recipe selects the emitted function."""
    request = replace(SMALL_REQUEST, calib=2, limit=1, out=tmp_path, preprocess="squash")
    build(request, ("linux",))
    (text,) = [path.read_text() for path in tmp_path.rglob("cortex_a/pictures.py")]
    assert "return squash(read(path)" in text


# AArch64 code.


@pytest.mark.slow
def test_cortex_a_runs_as_aarch64_code(folder: Path, photographs: list[Path], tmp_path: Path) -> None:
    """On both emulated CPUs it prints the rows that XNNPACK gives there for the pipeline's own inputs."""
    emulator, root = aarch64.emulator(), aarch64.find(cache_folder())
    if emulator is None or root is None:
        pytest.skip("no AArch64 root here (apt-get install qemu-user, then make aarch64)")
    site = pillow_for(root.python, tmp_path)
    model = model_of(folder).read_bytes()
    values = inputs(model, photographs)
    asked = Subject("test", model, values, xnnpack(model, values))
    program = folder / "cortex_a" / "classify.py"
    paths = [str(path) for path in (root.site, site, program.parent)]
    code = f"import runpy, sys; sys.path[:0] = {paths}; del sys.argv[0]; runpy.run_path(sys.argv[0], None, '__main__')"
    for cpu in aarch64.CPUS:
        command = root.command(emulator, cpu)
        result = subprocess.run(
            [*command, "-c", code, program, *photographs], capture_output=True, text=True, timeout=300, check=False
        )
        there = run_job(PythonHost(cpu.name, command, "", (root.site,)), "litert", ("xnnpack",), asked)
        assert there.machine == "aarch64"
        assert printed_rows(result) == expected_rows(there.outputs["xnnpack"], folder)


def pillow_for(python: str, place: Path) -> Path:
    """Installs Pillow's AArch64 wheel and returns its folder; the root has none, as the pipeline needs none there."""
    options = (
        "--platform",
        "manylinux_2_28_aarch64",
        "--python-version",
        python,
        "--only-binary",
        ":all:",
        "--no-deps",
    )
    command = [sys.executable, "-m", "pip", "install", "--quiet", *options, "--target", str(place / "site"), "pillow"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("Pillow's AArch64 wheel cannot be had from the package index")
    return place / "site"


# GPUs.


@pytest.mark.slow
def test_mali_gpu_prints_what_the_delegate_gives(folder: Path, photographs: list[Path]) -> None:
    """On SwiftShader it prints the rows of the pipeline's own run of the delegate, and that the GPU runs all of it."""
    manifest = vulkan_drivers.swiftshader()
    result = run(folder / "mali_gpu" / "classify.py", *photographs, VK_DRIVER_FILES=str(manifest))
    (driver,) = [driver for driver in vulkan.survey().drivers if driver.manifest == manifest]
    model = model_of(folder).read_bytes()
    theirs = mali.delegate(model, inputs(model, photographs), driver)
    assert isinstance(theirs, mali.Run)
    assert printed_rows(result) == expected_rows(theirs.outputs, folder)
    assert "fully accelerated: yes" in result.stdout.splitlines()[0]


@pytest.mark.slow
def test_a_model_that_the_gpu_runs_in_part_is_reported_as_such(
    folder: Path, photographs: list[Path], tmp_path: Path
) -> None:
    """With an option that the delegate does not support, the program runs and says that the CPU runs the rest."""
    manifest = vulkan_drivers.swiftshader()
    (tmp_path / "part.tflite").write_bytes(mali.control_model(model_of(folder).read_bytes()))
    program = folder / "mali_gpu" / "classify.py"
    result = run(program, photographs[0], "--model", tmp_path / "part.tflite", VK_DRIVER_FILES=str(manifest))
    assert len(printed_rows(result)) == 5
    assert "fully accelerated: no, the CPU runs the rest" in result.stdout.splitlines()[0]


def test_a_missing_gpu_is_reported_in_one_line(folder: Path, photographs: list[Path]) -> None:
    """Without a Vulkan driver the status is 4 and no class is printed; with --log LiteRT prints the reason."""
    program, nowhere = folder / "mali_gpu" / "classify.py", {"VK_DRIVER_FILES": "/none", "VK_ICD_FILENAMES": "/none"}
    result = run(program, photographs[0], **nowhere)
    assert_refused(result, 4, "LiteRT found no usable GPU")
    assert result.stdout == ""
    loud = run(program, photographs[0], "--log", **nowhere)
    assert loud.returncode == 4
    assert len(loud.stderr.splitlines()) > 1

"""The files for TensorFlow Lite Micro (TFLM), compiled, linked and run by real tools.

No package contains the sources of TFLM. The example is compiled against `tflm_stub/`, which declares what it uses and
returns the output of the test vector. test_tflm.py tests what TFLM computes, with the distribution `tflite-micro`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from pipeline.c_array import label_sources, model_sources
from pipeline.cortex_m import tflm
from pipeline.cortex_m.arena import arena_header
from pipeline.cortex_m.bundle import tflm_files
from pipeline.cortex_m.resolver import resolver_header
from pipeline.cortex_m.test_vector import golden_vector
from recreate_model.support.errors import InputError
from recreate_model.tflite.model_view import read_model
from tests import edited_models
from tests.test_c_array import WARNINGS, compile_c, run, section, write
from tests.tiny_models import tiny_model

ROOT = Path(__file__).parents[1]
STUB = Path(__file__).with_name("tflm_stub")
C = [("gcc", "-std=c99"), ("gcc", "-std=c11"), ("arm-none-eabi-gcc", "-std=c99")]
CPP = [("g++", "-std=c++17"), ("g++", "-std=c++20")]
CORTEX_M = [("arm-none-eabi-g++", "-std=c++17", "-mthumb", f"-mcpu=cortex-{cpu}") for cpu in ("m55", "m7", "m4")]
LABELS = [f"class {number}" for number in range(5)]
MEASURED = tflm.Measurement("0.0", 4096, 3072, 1024, np.zeros((1, 5), np.int8), 0.1)
# What the stub needs to know about the tiny model, from the headers of the example.
STUB_MACROS = (
    *("-DSTUB_ARENA=4096", "-DSTUB_INPUT=tiny_test_input", "-DSTUB_OUTPUT=tiny_test_output"),
    *(f"-DSTUB_{name}=TINY_{name}" for name in ("INPUT_BYTES", "INPUT_SCALE", "INPUT_ZERO_POINT", "OUTPUT_BYTES")),
)


@pytest.fixture(scope="session")
def model() -> bytes:
    return tiny_model("int8")


@pytest.fixture
def sources(model: bytes, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """All files of the tiny model, with an arena size as if it had been measured."""
    monkeypatch.setattr(tflm, "is_available", lambda: False)
    made = {**model_sources(model, "tiny"), **label_sources(LABELS), **tflm_files(model, "tiny")}
    return made | {"tiny_arena.h": arena_header(MEASURED, "tiny")}


def compile_example(folder: Path, language: tuple[str, ...], error: int = 0) -> None:
    """Compiles `example.cc` to `example.o`, without a warning."""
    macros = [*STUB_MACROS, f"-DSTUB_ERROR={error}"]
    command = [*language, *WARNINGS, *macros, "-isystem", str(STUB), "-c", "example.cc", "-o", "example.o"]
    run(folder, *command)


def example(folder: Path) -> subprocess.CompletedProcess[str]:
    """Links and runs the example."""
    for source in ("tiny", "tiny_test_vector", "labels"):
        compile_c(folder, ("gcc", "-std=c99"), f"{source}.c", output=f"{source}.o")
    run(folder, "g++", "example.o", "tiny.o", "tiny_test_vector.o", "labels.o", "-o", "example")
    return subprocess.run([folder / "example"], capture_output=True, text=True, check=False)


# The test vector


@pytest.mark.parametrize("language", [*C, ("g++", "-x", "c++", "-std=c++17")], ids=" ".join)
def test_the_vector_compiles_and_contains_input_and_output(
    tmp_path: Path, model: bytes, sources: Mapping[str, str], language: tuple[str, ...]
) -> None:
    """They are those of the reference kernels, byte for byte, each aligned to 16 bytes."""
    write(tmp_path, sources)
    compile_c(tmp_path, language, "tiny_test_vector.c")
    content, alignment = section(tmp_path, language[0], ".rodata")
    vector = golden_vector(model, "tiny")
    for values in (vector.input, vector.output):
        assert content.index(values.tobytes()) % 16 == 0
    assert alignment >= 16


def test_the_golden_output_is_that_of_the_reference_kernels(model: bytes) -> None:
    """LiteRT runs the model again with its reference kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    vector = golden_vector(model, "tiny")
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], vector.input[np.newaxis])
    interpreter.invoke()
    output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert np.array_equal(output[0], vector.output)


def test_a_changed_weight_changes_the_golden_output(model: bytes) -> None:
    """The vector therefore detects the change. The input is the same."""

    def flip(tree: object) -> None:
        weights = edited_models.data(tree, edited_models.operand(tree, "CONV_2D", 1))
        weights[0] ^= 0x40

    before, after = (golden_vector(data, "tiny") for data in (model, edited_models.edited(model, flip)))
    assert np.array_equal(before.input, after.input)
    assert not np.array_equal(before.output, after.output)


def test_the_input_has_many_different_values(model: bytes) -> None:
    """A constant input would leave most of a kernel untested."""
    picture = golden_vector(model, "tiny").input
    assert len(np.unique(picture)) > 30


# Operators


def test_the_resolver_has_the_operators_of_the_file(model: bytes) -> None:
    """Each operator is added once, in the order of the names, and the header has their number."""
    view = read_model(model)
    header = resolver_header(view, "tiny")
    added = re.findall(r"resolver\.Add(\w+)\(\)", header)
    assert [name.upper() for name in added] == [name.replace("_", "") for name in view.operator_names]
    assert f"#define TINY_OPERATORS {len(view.operator_names)}\n" in header


def test_another_operator_in_the_file_changes_the_resolver(model: bytes) -> None:
    """The list of operators is read from the file."""

    def relabel(tree: object) -> None:
        edited_models.operator(tree, "SOFTMAX").opcodeIndex = edited_models.code(tree, "LOGISTIC")

    header = resolver_header(read_model(edited_models.edited(model, relabel)), "tiny")
    assert "AddLogistic()" in header
    assert "AddSoftmax()" not in header


# Refusals


def edit_operator(name: str, new: str, custom: bytes | None = None) -> bytes:
    def change(tree: object) -> None:
        edited_models.operator(tree, name).opcodeIndex = edited_models.code(tree, new, custom=custom)

    return edited_models.edited(tiny_model("int8"), change)


def reshaped(shape: list[int]) -> bytes:
    """The tiny model with another shape for its input."""

    def change(tree: object) -> None:
        graph = tree.subgraphs[0]  # type: ignore[attr-defined]
        graph.tensors[graph.inputs[0]].shape = np.array(shape, np.int32)

    return edited_models.edited(tiny_model("int8"), change)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: edit_operator("SOFTMAX", "ATAN2"), "found ATAN2;"),
        (lambda: edit_operator("SOFTMAX", "CUSTOM", b"mine"), "found CUSTOM mine;"),
        (lambda: reshaped([2, 8, 8, 3]), r"found input int8 \(2, 8, 8, 3\)"),
        (lambda: reshaped([1, 8, 6, 3]), "LiteRT to run tiny, for its golden output of shape"),
        (lambda: reshaped([1, -1, -1, 3]), r"found input int8 \(1, -1, -1, 3\)"),
        (lambda: reshaped([1, 8, 8, 4]), "LiteRT to run tiny"),
        (lambda: edit_operator("SOFTMAX", "ADD"), "LiteRT to run tiny"),
        (lambda: tiny_model("float"), "float32"),
        (lambda: tiny_model("int8")[:-2000], "damaged or truncated"),
    ],
    ids=["operator", "custom operator", "batch", "not square", "no size", "four colors", "cannot run", "float", "cut"],
)
def test_a_model_that_cannot_be_expressed_or_run_is_refused(make: object, named: str) -> None:
    """The error names the reason, before any file is generated."""
    with pytest.raises(InputError, match=named):
        tflm_files(make(), "tiny")  # type: ignore[operator]


# The example


@pytest.mark.parametrize("language", [*CPP, *CORTEX_M], ids=" ".join)
def test_the_example_compiles(tmp_path: Path, sources: Mapping[str, str], language: tuple[str, ...]) -> None:
    """It compiles for this machine and for three Cortex-M, against the stub of TFLM."""
    write(tmp_path, sources)
    compile_example(tmp_path, language)


def test_the_example_passes_for_the_golden_output(tmp_path: Path, model: bytes, sources: Mapping[str, str]) -> None:
    """It checks the model, registers the operators, runs, compares, and prints the label of the best class."""
    write(tmp_path, sources)
    compile_example(tmp_path, CPP[0])
    finished = example(tmp_path)
    best = golden_vector(model, "tiny").output.argmax()
    assert finished.returncode == 0, finished.stdout
    assert finished.stdout.startswith(f"class {best}, class {best}, ")
    assert "arena: 4096 of 4096 bytes\n" in finished.stdout
    assert "PASS: all 5 scores" in finished.stdout


def test_the_example_fails_for_one_wrong_score(tmp_path: Path, sources: Mapping[str, str]) -> None:
    """The score differs by one level."""
    write(tmp_path, sources)
    compile_example(tmp_path, CPP[0], error=1)
    finished = example(tmp_path)
    assert finished.returncode == 1
    assert "FAIL: the output is not the golden one" in finished.stdout


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("tiny.h", "TINY_CRC32 0x", "TINY_CRC32 1 + 0x", "the model is not where it was linked to"),
        ("tiny_arena.h", "TINY_ARENA_SIZE 4096", "TINY_ARENA_SIZE 4080", "the arena is too small"),
        ("tiny_ops.h", "TINY_OPERATORS ", "TINY_OPERATORS -1 + ", "an operator could not be registered"),
        ("tiny.h", "TINY_OUTPUT_SCALE 0.00390625F", "TINY_OUTPUT_SCALE 0.5F", "the header belongs to another model"),
    ],
)
def test_the_example_says_what_is_wrong(
    tmp_path: Path, sources: Mapping[str, str], file: str, old: str, new: str, message: str
) -> None:
    """The model is missing at its address, the arena or the resolver is too small, or a header is of another model."""
    assert old in sources[file]
    write(tmp_path, {**sources, file: sources[file].replace(old, new)})
    compile_example(tmp_path, CPP[0])
    finished = example(tmp_path)
    assert finished.returncode == 1
    assert finished.stdout == f"FAIL: {message}\n"


def test_without_a_measured_arena_the_example_names_the_command(tmp_path: Path, sources: Mapping[str, str]) -> None:
    """It does not compile, because a guessed size would be wrong."""
    unmeasured = arena_header(None, "tiny")
    assert "NOT MEASURED" in unmeasured
    assert "ARENA_SIZE" not in unmeasured
    write(tmp_path, {**sources, "tiny_arena.h": unmeasured})
    command = ["g++", "-std=c++17", *STUB_MACROS, "-DSTUB_ERROR=0", "-I", str(STUB), "-c", "example.cc"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode
    assert tflm.INSTALL in finished.stderr


# CMake


def cmake(folder: Path, source: Path, *options: str) -> None:
    """Configures and builds in `folder`."""
    flags = " ".join(WARNINGS)
    run(source, "cmake", "-S", ".", "-B", str(folder), f"-DCMAKE_C_FLAGS={flags}", *options)
    run(source, "cmake", "--build", str(folder))


def test_cmake_builds_the_library_without_tflm(tmp_path: Path, sources: Mapping[str, str]) -> None:
    """A C compiler is enough. The example is not built."""
    write(tmp_path, sources)
    cmake(tmp_path / "build", tmp_path)
    assert (tmp_path / "build" / "libtiny.a").is_file()
    assert not (tmp_path / "build" / "tiny_example").exists()


def test_cmake_builds_and_runs_the_example_in_a_project_with_tflm(tmp_path: Path, sources: Mapping[str, str]) -> None:
    """The folder is a subfolder of a project with a target `tflm`."""
    (tmp_path / "cortex_m").mkdir()
    write(tmp_path / "cortex_m", sources)
    macros = ";".join(macro.removeprefix("-D") for macro in STUB_MACROS)
    (tmp_path / "CMakeLists.txt").write_text(f"""\
cmake_minimum_required(VERSION 3.18)
project(around LANGUAGES C CXX)
add_library(tflm INTERFACE)
target_include_directories(tflm INTERFACE {STUB})
target_compile_definitions(tflm INTERFACE "{macros};STUB_ERROR=0")
add_subdirectory(cortex_m)
""")
    cmake(tmp_path / "build", tmp_path)
    finished = run(tmp_path, str(tmp_path / "build" / "cortex_m" / "tiny_example"))
    assert b"PASS" in finished.stdout


def test_cmake_accepts_a_checkout_of_tflm(tmp_path: Path, sources: Mapping[str, str]) -> None:
    """It uses the headers there, and the library where the makefile of TFLM puts it."""
    write(tmp_path, sources)
    checkout = tmp_path / "tflite-micro"
    checkout.mkdir()
    (checkout / "tensorflow").symlink_to(STUB / "tensorflow")
    library = checkout / "gen" / "some_target" / "lib"
    library.mkdir(parents=True)
    (tmp_path / "empty.c").write_text("extern const int nothing; const int nothing = 0;\n")
    run(tmp_path, "gcc", "-c", "empty.c")
    run(tmp_path, "ar", "rcs", str(library / "libtensorflow-microlite.a"), "empty.o")
    macros = " ".join((*STUB_MACROS, "-DSTUB_ERROR=0"))
    cmake(tmp_path / "build", tmp_path, f"-DTFLM_DIR={checkout}", f"-DCMAKE_CXX_FLAGS={macros}")
    assert b"PASS" in run(tmp_path, str(tmp_path / "build" / "tiny_example")).stdout


def test_cmake_refuses_a_checkout_of_tflm_without_a_library(tmp_path: Path, sources: Mapping[str, str]) -> None:
    """The error names the variable TFLM_LIBRARY."""
    run(tmp_path, "cmake", "--version")
    write(tmp_path, sources)
    command = ["cmake", "-S", ".", "-B", "build", f"-DTFLM_DIR={tmp_path}"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode
    assert "TFLM_LIBRARY" in finished.stderr


# Reproducible text


def test_the_text_depends_only_on_the_model_and_its_name(tmp_path: Path, model: bytes) -> None:
    """Another process, folder, hash seed, locale and time zone give the same text."""
    (tmp_path / "model").write_bytes(model)
    code = (
        "import sys; from pathlib import Path; from pipeline.cortex_m.bundle import tflm_files\n"
        "sys.stdout.buffer.write(repr(tflm_files(Path('model').read_bytes(), 'tiny')).encode())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True).stdout
    assert printed.decode() == repr(tflm_files(model, "tiny"))

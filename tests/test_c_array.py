"""C sources: real compilers accept them as C and as C++ without a warning, and they contain the file byte for byte."""

from __future__ import annotations

import ast
import binascii
import math
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline import c_array
from pipeline.c_array import ByteArray, array_source, identifier, label_sources, model_sources
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import InputError
from recreate_model.tflite.model_view import read_model
from tests.tiny_models import tiny_model

ROOT = Path(__file__).parents[1]
WARNINGS = ("-Wall", "-Wextra", "-pedantic", "-Werror")
C99 = ("gcc", "-std=c99")
CPP17 = ("g++", "-x", "c++", "-std=c++17")
LANGUAGES = [
    *(C99, ("gcc", "-std=c11"), ("gcc", "-std=gnu17"), ("clang", "-std=c99"), ("arm-none-eabi-gcc", "-std=c99")),
    *(CPP17, ("g++", "-x", "c++", "-std=c++20"), ("clang++", "-x", "c++", "-std=c++17")),
]
# Every pair of bytes, among them an escape before a digit. It is longer than any literal that C guarantees.
ALL_PAIRS = bytes(byte for first in range(256) for second in range(256) for byte in (first, second))
HARD_LABELS = ("tench, Tinca tinca", 'a "quoted" one', "back\\slash", "what??/ ??= ??", "é1 日本", "\t\n7", "%s%d", "")
HEADER = """\
#ifdef __cplusplus
extern "C"
#endif
const unsigned char block_data[];
"""
# Writes the array to standard output, and everything else as text to standard error.
PROGRAM = """\
#include "tiny.h"
#include "labels.h"
#include <stdint.h>
#include <stdio.h>

static const int input_shape[TINY_INPUT_RANK] = TINY_INPUT_SHAPE;
static const int output_shape[TINY_OUTPUT_RANK] = TINY_OUTPUT_SHAPE;

int main(void)
{
    size_t label;
    fprintf(stderr, "%lu %d\\n", TINY_SIZE, (int) ((uintptr_t) tiny_data % TINY_ALIGNMENT));
    fprintf(stderr, "%s %d %d %lu %.9g %d\\n", TINY_INPUT_NAME, input_shape[0], input_shape[3], TINY_INPUT_BYTES,
            (double) TINY_INPUT_SCALE, TINY_INPUT_ZERO_POINT);
    fprintf(stderr, "%s %d %lu %.9g %d\\n", TINY_OUTPUT_NAME, output_shape[1], TINY_OUTPUT_BYTES,
            (double) TINY_OUTPUT_SCALE, TINY_OUTPUT_ZERO_POINT);
    for (label = 0; label < LABELS_COUNT; ++label)
        fprintf(stderr, "%s%c", labels[label], '\\0');
    return fwrite(tiny_data, 1, TINY_SIZE, stdout) == TINY_SIZE ? 0 : 1;
}
"""


@pytest.fixture(scope="session")
def model() -> bytes:
    return tiny_model("int8")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a command that must succeed. Skips the test if its program is missing."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    finished = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr.decode()
    return finished


def compile_c(folder: Path, language: tuple[str, ...], *files: str, output: str = "a.o") -> None:
    """Compiles without a warning, and links unless the output is an object file."""
    run(folder, *language, *WARNINGS, *(["-c"] if output.endswith(".o") else []), *files, "-o", output)


def section(folder: Path, compiler: str, name: str) -> tuple[bytes, int]:
    """The content of a section of `a.o`, and its alignment."""
    prefix = "arm-none-eabi-" if compiler.startswith("arm") else ""
    run(folder, f"{prefix}objcopy", "-O", "binary", "-j", name, "a.o", "a.bin")
    headers = run(folder, f"{prefix}objdump", "-h", "a.o").stdout.decode()
    (power,) = re.findall(rf" {re.escape(name)} .*2\*\*(\d+)", headers)
    return (folder / "a.bin").read_bytes(), 2 ** int(power)


def write(folder: Path, sources: Mapping[str, str]) -> None:
    for file, text in sources.items():
        (folder / file).write_text(text)


# Names


@pytest.mark.parametrize(
    ("file_name", "expected"),
    [
        ("mobilenet_v2_1.0_224_INT8.tflite", "mobilenet_v2_1_0_224_INT8"),
        ("mobilenet_v2_1.0_224_INT8", "mobilenet_v2_1_0_224_INT8"),
        ("Model.TFLITE", "Model"),
        ("224.tflite", "model_224"),
        ("__reserved__", "reserved"),
        ("a--b//c", "a_b_c"),
        ("int", "int_model"),
        ("co_await", "co_await_model"),
        ("size_t", "size_t_model"),
        ("modèle", "mod_le"),
        ("日本", "model"),
        ("", "model"),
    ],
)
def test_a_file_name_becomes_an_identifier(file_name: str, expected: str) -> None:
    """Only the extension of a model file is removed. Text after any other dot is part of the name."""
    assert identifier(file_name) == expected


@given(st.text() | st.from_regex(r"[_a-z0-9.]*(int|_t|class|tflite)?", fullmatch=True))
@example("_" * 9)
@example("0_t")
def test_every_identifier_is_valid_and_not_reserved(file_name: str) -> None:
    """It starts with a letter, has letters, digits and single underscores, and is no reserved word of C or C++."""
    name = identifier(file_name)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*", name)
    assert name not in c_array._RESERVED
    assert not name.endswith("_t")
    assert identifier(name) == name


@pytest.mark.parametrize("language", [C99, CPP17, ("g++", "-x", "c++", "-std=gnu++20")], ids=" ".join)
def test_reserved_words_become_valid_identifiers(tmp_path: Path, language: tuple[str, ...]) -> None:
    """A model may be called `class` or `register`."""
    names = sorted({identifier(word) for word in c_array._RESERVED})
    headers = "#include <assert.h>\n#include <errno.h>\n#include <math.h>\n#include <stdio.h>\n"
    (tmp_path / "a.c").write_text(headers + "".join(f"extern const int {name};\n" for name in names))
    compile_c(tmp_path, language, "a.c")


# The model


@pytest.mark.parametrize("language", LANGUAGES, ids=" ".join)
def test_the_object_contains_the_file(tmp_path: Path, model: bytes, language: tuple[str, ...]) -> None:
    """As C, the section is exactly the file. As C++, one zero byte follows. Both are aligned to 16 bytes."""
    write(tmp_path, model_sources(model, "tiny.tflite"))
    compile_c(tmp_path, language, "tiny.c")
    content, alignment = section(tmp_path, language[0], ".rodata")
    assert content == model + (b"\0" if "c++" in language else b"")
    assert alignment >= 16


@pytest.mark.parametrize("language", LANGUAGES, ids=" ".join)
def test_every_pair_of_bytes_is_preserved(tmp_path: Path, language: tuple[str, ...]) -> None:
    """No escape absorbs the digit after it, there is no trigraph, and no literal is too long."""
    write(tmp_path, {"block.h": HEADER, "block.c": array_source("block.h", [ByteArray("block_data", ALL_PAIRS)])})
    compile_c(tmp_path, language, "block.c")
    assert section(tmp_path, language[0], ".rodata")[0][: len(ALL_PAIRS)] == ALL_PAIRS


@pytest.mark.parametrize("language", LANGUAGES, ids=" ".join)
def test_one_source_can_contain_two_signed_arrays(tmp_path: Path, language: tuple[str, ...]) -> None:
    """The second is aligned like the first, and every value keeps its bits."""
    declared = HEADER.replace("unsigned", "signed")
    write(tmp_path, {"block.h": declared + declared.replace("block_data", "more")})
    arrays = [ByteArray(name, bytes(range(256)), "signed char") for name in ("block_data", "more")]
    write(tmp_path, {"block.c": array_source("block.h", arrays, "VECTOR")})
    compile_c(tmp_path, language, "block.c")
    content, alignment = section(tmp_path, language[0], ".rodata")
    first, second = content.index(bytes(range(256))), content.rindex(bytes(range(256)))
    assert first != second
    assert (first % 16, second % 16) == (0, 0)
    assert alignment >= 16


@pytest.mark.parametrize("language", [C99, CPP17], ids=" ".join)
def test_the_array_can_be_placed_in_a_section(tmp_path: Path, model: bytes, language: tuple[str, ...]) -> None:
    """A definition on the command line of the compiler is enough."""
    write(tmp_path, model_sources(model, "tiny"))
    compile_c(tmp_path, language, '-DMODEL_DATA_SECTION=__attribute__((section(".model")))', "tiny.c")
    content, alignment = section(tmp_path, language[0], ".model")
    assert content[: len(model)] == model
    assert alignment >= 16


@pytest.mark.parametrize("arrays", [C99, CPP17], ids=" ".join)
@pytest.mark.parametrize("program", [C99, CPP17], ids=" ".join)
def test_a_program_links_both_arrays(
    tmp_path: Path, model: bytes, arrays: tuple[str, ...], program: tuple[str, ...]
) -> None:
    """C and C++ can be mixed both ways. The program reads the file, its quantization and the labels."""
    write(tmp_path, {**model_sources(model, "tiny"), **label_sources(HARD_LABELS), "main.c": PROGRAM})
    for source, language in (("tiny", arrays), ("labels", arrays), ("main", program)):
        compile_c(tmp_path, language, f"{source}.c", output=f"{source}.o")
    run(tmp_path, "g++", "tiny.o", "labels.o", "main.o", "-o", "program")
    finished = run(tmp_path, str(tmp_path / "program"))
    assert finished.stdout == model
    view = read_model(model)
    assert view.input.quantization
    assert view.output.quantization
    first, second, third, labels = finished.stderr.decode().split("\n", 3)
    scale = f"{view.input.quantization.scales[0]:.9g}"
    assert first == f"{len(model)} 0"
    assert second == f"{view.input.name} 1 3 192 {scale} {view.input.quantization.zero_points[0]}"
    assert third == f"{view.output.name} 5 5 0.00390625 -128"
    assert labels == "".join(f"{label}\0" for label in HARD_LABELS)


def test_the_header_identifies_the_file(model: bytes) -> None:
    """It has the size and digests, to trace a source back to its model, and a CRC-32 that a device can check."""
    header = model_sources(model, "tiny")["tiny.h"]
    checksum = f"TINY_CRC32 0x{binascii.crc32(model):08x}UL\n"
    for fact in (f"{len(model)} bytes", digest_bytes(model), digest_bytes(model, "sha1"), checksum):
        assert fact in header


def test_the_text_depends_only_on_the_model_and_its_name(tmp_path: Path, model: bytes) -> None:
    """Another process, folder, hash seed and time zone give the same text."""
    (tmp_path / "model").write_bytes(model)
    code = "import sys; from pipeline.c_array import *; print(model_sources(open('model', 'rb').read(), 'tiny'))"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PYTHONPATH": str(ROOT)}
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert printed == f"{model_sources(model, 'tiny')}\n"


def test_a_float_model_is_refused() -> None:
    """It has no quantization to declare in the header."""
    with pytest.raises(InputError, match="float32"):
        model_sources(tiny_model("float"), "tiny")


def test_a_file_that_is_not_a_model_is_refused() -> None:
    """The file is parsed before anything is generated."""
    with pytest.raises(InputError, match="TFL3"):
        model_sources(b"not a model at all", "tiny")


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False, width=32))
@example(1.0)
@example(2.0**-149)
@example(0.1)
def test_a_scale_is_read_back_exactly(scale: float) -> None:
    """Nine significant digits identify every float32, and the text is a float constant of C."""
    scale = struct.unpack("f", struct.pack("f", scale))[0]
    text = c_array.float_literal(scale)
    assert re.fullmatch(r"(\d+\.\d*|\d+(?=e)|\d+\.\d+)(e[+-]\d+)?F", text)
    assert struct.pack("f", float(text[:-1])) == struct.pack("f", scale)
    assert math.isfinite(scale)


# The labels


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
@example(["??/", "\\", '"', "é7", "\x7f8"])
def test_every_label_is_read_back_exactly(labels: list[str]) -> None:
    """The literals are plain ASCII without a trigraph, and give the labels in UTF-8."""
    sources = label_sources(labels)
    assert f"#define LABELS_COUNT {len(labels)}\n" in sources["labels.h"]
    rows = sources["labels.c"].split("{\n", 1)[1].removesuffix("\n};\n").split(",\n")
    assert "??" not in sources["labels.c"]
    # Python reads these literals as C does, except for the escaped question mark.
    literals = [re.sub(r"(?<!\\)((?:\\\\)*)\\\?", r"\1?", row.strip()) for row in rows]
    assert [ast.literal_eval(f"b{literal}").decode() for literal in literals] == labels


@pytest.mark.parametrize("language", LANGUAGES, ids=" ".join)
def test_labels_compile(tmp_path: Path, language: tuple[str, ...]) -> None:
    """They compile as C and as C++ without a warning. The test with the linked program reads them back."""
    write(tmp_path, label_sources(HARD_LABELS, "class labels"))
    compile_c(tmp_path, language, "class_labels.c")


@pytest.mark.parametrize("labels", [[], ["a\0b"], ["\ud800"]])
def test_labels_that_c_cannot_represent_are_refused(labels: list[str]) -> None:
    """These are an empty array, a NUL inside a string, and half a surrogate pair."""
    with pytest.raises(InputError, match="at least one label"):
        label_sources(labels)


# A whole model


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("language", LANGUAGES, ids=" ".join)
def test_a_published_model_is_preserved(tmp_path: Path, shared: Path, language: tuple[str, ...]) -> None:
    """Its four megabytes are compared byte for byte."""
    published = (shared / "published" / "calibration-unknown-a.tflite").read_bytes()
    write(tmp_path, model_sources(published, "published"))
    compile_c(tmp_path, language, "published.c")
    assert section(tmp_path, language[0], ".rodata")[0][: len(published)] == published

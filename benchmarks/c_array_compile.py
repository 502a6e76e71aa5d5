"""Measures how long compilers take for a constant array in different source forms, and checks the object file.

    python benchmarks/c_array_compile.py                        a random block of 4,000,000 bytes
    python benchmarks/c_array_compile.py model.tflite           a file
    python benchmarks/c_array_compile.py --compilers gcc,clang  other compilers; those with ++ compile as C++

Prints a row for each form and compiler: source size, shortest time of three, peak memory, and the size of the array in
the object file, with `wrong` if it does not start with the content of the file.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.c_array import ByteArray, array_source

REPEATS = 3
FLAGS = ("-Wall", "-Wextra", "-pedantic", "-Werror", '-DMODEL_DATA_SECTION=__attribute__((section(".model")))')
HEADER = """\
#include <stdint.h>
#define BLOCK_SIZE {size}UL
#define BLOCK_ALIGNMENT 16
#ifdef __cplusplus
extern "C" {{
#endif
extern const {kind} block_data[];
#ifdef __cplusplus
}}
#endif
"""


def list_source(kind: str, values: Iterable[str], per_line: int) -> str:
    """The source of an array as a list of numbers."""
    numbers = list(values)
    lines = "\n".join(",".join(numbers[at : at + per_line]) + "," for at in range(0, len(numbers), per_line))
    return f'#include "block.h"\nMODEL_DATA_SECTION const {kind} block_data[{len(numbers)}] = {{\n{lines}\n}};\n'


def words(data: bytes, bits: int) -> str:
    """The source of an array of words; the last word is padded with zeros."""
    size = bits // 8
    padded = data + bytes(-len(data) % size)
    numbers = struct.unpack(f"<{len(padded) // size}{ {32: 'I', 64: 'Q'}[bits] }", padded)
    return list_source(f"uint{bits}_t", (f"0x{number:x}" for number in numbers), 512 // bits)


# Form -> element type, and a function from the bytes to the source.
FORMS: dict[str, tuple[str, Callable[[bytes], str]]] = {
    "string literal": ("unsigned char", lambda data: array_source("block.h", [ByteArray("block_data", data)])),
    "64-bit words, hexadecimal": ("uint64_t", lambda data: words(data, 64)),
    "32-bit words, hexadecimal": ("uint32_t", lambda data: words(data, 32)),
    "bytes, decimal": ("unsigned char", lambda data: list_source("unsigned char", map(str, data), 32)),
    "bytes, hexadecimal": (
        "unsigned char",
        lambda data: list_source("unsigned char", map("0x{:02x}".format, data), 16),
    ),
}


def compile_once(compiler: str, folder: Path) -> tuple[float, float]:
    """The compile time in seconds, and the peak memory in MiB."""
    language = ("-x", "c++", "-std=c++17") if "++" in compiler else ("-std=c99",)
    start = time.perf_counter()
    process = subprocess.Popen([compiler, *language, *FLAGS, "-c", "block.c", "-o", "block.o"], cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    # os.wait4 collected the status, so Popen does not have it.
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{compiler} failed")
    return seconds, usage.ru_maxrss / 1024


def objcopy_of(compiler: str) -> str:
    """The `objcopy` for a compiler; a cross compiler needs the one with its prefix."""
    return re.sub(r"(gcc|g\+\+)$", "objcopy", compiler) if compiler.endswith(("-gcc", "-g++")) else "objcopy"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--compilers", default="gcc,g++,clang,clang++")
    arguments = parser.parse_args()
    data = arguments.file.read_bytes() if arguments.file else random.Random(0).randbytes(4_000_000)
    compilers = [name for name in arguments.compilers.split(",") if shutil.which(name)]
    print(f"{'form':27}{'compiler':18}{'source MB':>10}{'seconds':>9}{'MiB':>6}{'array bytes':>13}")
    for form, (kind, source) in FORMS.items():
        text = source(data)
        for compiler in compilers:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                (folder / "block.h").write_text(HEADER.format(size=len(data), kind=kind))
                (folder / "block.c").write_text(text)
                runs = [compile_once(compiler, folder) for _ in range(REPEATS)]
                extract = [objcopy_of(compiler), "-O", "binary", "-j", ".model", "block.o", "block.bin"]
                subprocess.run(extract, cwd=folder, check=True)
                array = (folder / "block.bin").read_bytes()
            seconds, memory = min(run[0] for run in runs), max(run[1] for run in runs)
            verdict = "" if array.startswith(data) else " wrong"
            print(
                f"{form:27}{compiler:18}{len(text) / 1e6:10.1f}{seconds:9.2f}{memory:6.0f}{len(array):13,}{verdict}",
                flush=True,
            )


if __name__ == "__main__":
    main()

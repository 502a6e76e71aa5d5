"""The standalone runtime's sources compiled for this machine, and run as a library or as a program."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from recreate_model.support.arrays import Array

STRICT = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror")


def write(sources: Mapping[str, str], folder: Path) -> list[str]:
    """Writes the sources and returns the names of those to compile."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in sources.items():
        (folder / name).write_text(text)
    return sorted(name for name in sources if name.endswith(".c"))


def compile_with(compiler: str, flags: Sequence[str], files: Sequence[str], folder: Path, output: str) -> Path:
    """Compiles with warnings as errors; skips the test if the compiler is missing."""
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    command = [compiler, *STRICT, *flags, *files, "-o", output]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / output


class Library:
    """A runtime compiled as a shared library."""

    def __init__(self, sources: Mapping[str, str], folder: Path, flags: Sequence[str] = ("-O2",)) -> None:
        files = write(sources, folder)
        (header,) = [name for name in sources if name.endswith("_run.h")]
        self.name = header.removesuffix("_run.h")
        # A unique name: a library that is already loaded under the same name would be used again.
        path = compile_with("gcc", (*flags, "-shared", "-fPIC"), files, folder, f"{self.name}{id(self)}.so")
        library = ctypes.CDLL(str(path))
        self._run = library[f"{self.name}_run"]
        self._input, self._output = library[f"{self.name}_input"], library[f"{self.name}_output"]
        self._input.restype = self._output.restype = ctypes.c_void_p
        text = sources[header]
        self.sizes = {
            what: int(text.split(f"_RUN_{what}_BYTES ")[1].split()[0]) for what in ("ARENA", "INPUT", "OUTPUT")
        }

    def run(self, picture: Array) -> Array:
        """Scores, int8 (classes), of one picture of int8."""
        assert picture.nbytes == self.sizes["INPUT"]
        ctypes.memmove(self._input(), np.ascontiguousarray(picture).tobytes(), picture.nbytes)
        self._run()
        return np.frombuffer(ctypes.string_at(self._output(), self.sizes["OUTPUT"]), np.int8)

    def run_all(self, pictures: Array) -> Array:
        """Scores, int8 (n, classes), of pictures, int8 (n, ...)."""
        return np.stack([self.run(picture) for picture in pictures])

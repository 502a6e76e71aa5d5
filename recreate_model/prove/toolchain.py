"""Runs the converters that can have made a published file: three TensorFlow versions of 2021, and the installed one.

Each TensorFlow of 2021 has its own environment in the download cache, created on first use from a hash-locked list with
a Python 3.8 of this machine. A job runs in a subprocess with a time limit and is passed through files; nothing of the
environment is imported here.

Not for: this project's own models (`convert`).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_file
from recreate_model.support.errors import ResourceError, ToolError, UsageError, reason
from recreate_model.support.exclusive import exclusive
from recreate_model.support.processes import last_line, run_to_end

_PYTHON_VARIABLE = "RECREATE_MODEL_PYTHON38"
_FOLDER = Path(__file__).with_name("toolchains")
_SCRIPT = _FOLDER / "convert_job.py"
_COMPLETE = ".complete"
_CONVERT_LIMIT = 300  # seconds; one model takes about one second
_INSTALL_LIMIT = 1800  # seconds; 180 MB are downloaded
# TensorFlow's C++ log would hide the error message.
_SETTINGS = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
_PROBE = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"


@dataclass(frozen=True)
class Toolchain:
    """A converter that can have made a published file.

    Attributes:
        version: of TensorFlow; empty for the installed one.
        quantizer: `new` (MLIR) or `old`. The old one was the default up to 2.4; later versions still include it.
    """

    version: str
    quantizer: str

    @property
    def name(self) -> str:
        """What messages call it."""
        suffix = "" if self.quantizer == "new" else ", old quantizer"
        return f"TensorFlow {self.version or 'of today'}{suffix}"

    @property
    def option(self) -> str:
        """What `--toolchain` calls it."""
        return f"{self.version or 'today'}{'' if self.quantizer == 'new' else '-old'}"


# Most likely first: only the new quantizer of 2.4 to 2.6 gives the input and output names of the published model.
TOOLCHAINS = tuple(
    Toolchain(version, quantizer) for quantizer in ("new", "old") for version in ("2.5.0", "2.6.0", "2.4.4", "")
)


def parse(text: str) -> tuple[Toolchain, ...]:
    """The toolchains that a comma-separated list of options names, or none for `none`.

    Raises:
        UsageError: a name is unknown.
    """
    by_option = {chain.option: chain for chain in TOOLCHAINS}
    names = [] if text == "none" else text.split(",")
    for name in names:
        if name not in by_option:
            raise UsageError(
                expected=f"--toolchain to be none, or one or more of {', '.join(by_option)}",
                found=repr(name),
                next_step="give --toolchain 2.5.0",
            )
    return tuple(by_option[name] for name in names)


def parts(version: str) -> dict[str, str]:
    """The files that a toolchain's environment and results depend on: file name -> SHA-256."""
    return {path.name: digest_file(path) for path in (_lock(version), _SCRIPT)}


def _lock(version: str) -> Path:
    return _FOLDER / f"tensorflow-{version}.lock"


@dataclass(frozen=True, eq=False)
class Edits:
    """What one attempt uses instead of the calibrator's result.

    Attributes:
        spans: minimum and maximum, in real units, of the input and of each operator's output, in order: float32
            (activations, 2).
        constants: weights and bias of every convolution, in order, as flat float32 arrays in TensorFlow Lite's layout;
            None keeps the constants that the converter folds.
    """

    spans: Array
    constants: Sequence[tuple[Array, Array]] | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """One frozen graph to convert.

    Attributes:
        graph: a serialized GraphDef.
        input, output: names of the input and output nodes.
        input_shape: including the batch.
        input_type, output_type: types of the model's input and output: `int8`, `uint8` or `float32`.
        attempts: one model is made for each.
    """

    graph: bytes
    input: str
    output: str
    input_shape: tuple[int, ...]
    input_type: str
    output_type: str
    attempts: Sequence[Edits]


@dataclass(frozen=True, eq=False)
class Converted:
    """The result of a job.

    Attributes:
        models: one `.tflite` file for each attempt.
        constants: the constants that the converter folds on this CPU, as in `Edits`.
    """

    models: tuple[bytes, ...]
    constants: tuple[tuple[Array, Array], ...]


def convert(toolchain: Toolchain, python: Path, job: Job) -> Converted:
    """Runs a job with the toolchain's own `convert()`.

    Args:
        python: the Python interpreter of its environment, from `ensure`.

    Raises:
        ToolError: the converter failed or exceeded the time limit; the error has its last line of output.
    """
    with tempfile.TemporaryDirectory(prefix="recreate_model-") as scratch:
        folder = Path(scratch)
        attempts = [_write_attempt(folder / f"attempt_{index}", edits) for index, edits in enumerate(job.attempts)]
        graph, constants = folder / "graph.pb", folder / "constants.npz"
        graph.write_bytes(job.graph)
        document = {
            "graph": str(graph),
            "input": job.input,
            "output": job.output,
            "input_shape": job.input_shape,
            "input_type": job.input_type,
            "output_type": job.output_type,
            "quantizer": toolchain.quantizer,
            "constants": str(constants),
            "attempts": attempts,
        }
        (folder / "job.json").write_text(json.dumps(document))
        done = run_to_end([python, "-I", _SCRIPT, folder / "job.json"], _CONVERT_LIMIT, _SETTINGS)
        if done.returncode:
            raise ToolError(
                expected=f"{toolchain.name} to convert the checkpoint's frozen graph",
                found=last_line(done),
                next_step="leave this toolchain out with --toolchain, or remove its environment from the cache",
            )
        with np.load(constants) as arrays:
            pairs = tuple((arrays[f"weights_{i}"], arrays[f"bias_{i}"]) for i in range(len(arrays.files) // 2))
        return Converted(tuple(Path(attempt["model"]).read_bytes() for attempt in attempts), pairs)


def _write_attempt(stem: Path, edits: Edits) -> dict[str, str]:
    arrays = {"spans": edits.spans}
    for index, (weights, bias) in enumerate(edits.constants or ()):
        arrays |= {f"weights_{index}": weights, f"bias_{index}": bias}
    paths = {"edits": str(stem.with_suffix(".npz")), "model": str(stem.with_suffix(".tflite"))}
    np.savez(paths["edits"], **arrays)  # type: ignore[arg-type]  # numpy's stub matches the mapping with `allow_pickle`
    return paths


def ensure(toolchain: Toolchain, cache: Path, announce: Callable[[str], object]) -> Path:
    """The Python interpreter of the toolchain's environment, which is created on first use.

    Args:
        cache: the folder that holds the environments.
        announce: called with a message before a step that takes minutes.

    Raises:
        ResourceError: there are no wheels for this machine, no Python 3.8, no package index, or no disk space.
    """
    if not toolchain.version:
        return Path(sys.executable)
    lock = _lock(toolchain.version)
    folder = cache / "toolchains" / f"tensorflow-{toolchain.version}-{digest_file(lock)[:12]}"
    python = folder / "bin" / "python"
    if _whole(folder):
        return python
    _check_platform(toolchain)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        wait = f"waiting for another process that creates the environment for TensorFlow {toolchain.version}"
        with exclusive(folder.with_name(folder.name + ".lock"), lambda: announce(wait)) as held:
            if not _whole(folder):
                base = find_python()
                announce(f"creating an environment for TensorFlow {toolchain.version} in {folder} (800 MB, only once)")
                _make(toolchain, base, folder, lock, held)
    except OSError as error:
        raise ResourceError(
            expected=f"disk space and write permission for an environment in {folder}",
            found=reason(error),
            next_step="free some space, or set RECREATE_MODEL_CACHE to a writable folder",
        ) from error
    return python


def _whole(folder: Path) -> bool:
    # If the Python it was created with has been removed, bin/python is a dangling link.
    return (folder / _COMPLETE).is_file() and (folder / "bin" / "python").is_file()


def _make(toolchain: Toolchain, base: Path, folder: Path, lock: Path, held: BinaryIO) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    python = folder / "bin" / "python"
    pip = (python, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    steps: tuple[tuple[Path | str, ...], ...] = (
        (base, "-I", "-m", "venv", folder),
        (*pip, "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", lock),
        (python, "-I", "-c", "import tensorflow"),
    )
    for step in steps:
        # A child process (venv runs pip) may briefly outlive a killed parent. It inherits the lock, so that no other
        # process uses the folder until it ends.
        done = run_to_end(step, _INSTALL_LIMIT, _SETTINGS, held)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            raise ResourceError(
                expected=f"an environment with TensorFlow {toolchain.version}, from {lock.name}",
                found=last_line(done),
                next_step="make a package index reachable and run again, or leave this toolchain out with --toolchain",
            )
    (folder / _COMPLETE).touch()


def _check_platform(toolchain: Toolchain) -> None:
    here = f"{platform.machine()} {sys.platform}"
    if here != "x86_64 linux":
        raise ResourceError(
            expected=f"x86-64 Linux, the only platform with pinned wheels of TensorFlow {toolchain.version}",
            found=here,
            next_step="run on x86-64 Linux, or leave this toolchain out with --toolchain",
        )


def find_python() -> Path:
    """A Python 3.8 that can create environments: RECREATE_MODEL_PYTHON38 if set, else from the PATH, pyenv or uv.

    Raises:
        ResourceError: there is none, or RECREATE_MODEL_PYTHON38 does not name one.
    """
    named = os.environ.get(_PYTHON_VARIABLE)
    candidates = iter([Path(named).expanduser()]) if named else _pythons()
    for candidate in candidates:
        done = run_to_end((candidate, "-I", "-c", _PROBE), 60)
        if done.returncode == 0 and done.stdout.strip() == "3.8":
            return candidate
    raise ResourceError(
        expected="a Python 3.8 with venv and pip, which TensorFlow of 2021 needs",
        found=f"{_PYTHON_VARIABLE}={named}, which is not one" if named else "none on the PATH or from pyenv or uv",
        next_step=f"run `uv python install 3.8` or `pyenv install 3.8`, or set {_PYTHON_VARIABLE} to its path",
    )


def _pythons() -> Iterator[Path]:
    if found := shutil.which("python3.8"):
        yield Path(found)
    # pyenv keeps its versions side by side: the user's, and those beside the Python that runs this program.
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for versions in dict.fromkeys((root / "versions", Path(sys.base_prefix).parent)):
        yield from sorted(versions.glob("*3.8*/bin/python3.8"), reverse=True)
    if uv := shutil.which("uv"):
        done = run_to_end((uv, "python", "find", "3.8"), 60)
        if done.returncode == 0:
            yield Path(done.stdout.strip())

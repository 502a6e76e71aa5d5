"""TensorFlow of 2021, each version in an environment of its own, and today's: what a published file can be made with.

For: having a converter make its own bytes again. An environment is made once, from a hash-locked list, with a Python
3.8 of this machine, and kept in the download cache. The parent talks to it through files and a subprocess with a time
limit; nothing of it is imported here.

Not for: our own bytes, which `convert` makes.
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
from recreate_model.support.errors import ResourceError, ToolError, UsageError
from recreate_model.support.exclusive import exclusive
from recreate_model.support.processes import last_line, run_to_end

_PYTHON_VARIABLE = "RECREATE_MODEL_PYTHON38"
_FOLDER = Path(__file__).with_name("toolchains")
_SCRIPT = _FOLDER / "convert_job.py"
_COMPLETE = ".complete"
_CONVERT_LIMIT = 300  # seconds; a model takes about one
_INSTALL_LIMIT = 1800  # seconds; over a slow line 180 MB take a while
# TensorFlow's C++ log would drown its last words.
_SETTINGS = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
_PROBE = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"


@dataclass(frozen=True)
class Toolchain:
    """A converter that can have made a published file.

    Attributes:
        version: of TensorFlow; empty for the one this program runs with.
        quantizer: `new` (MLIR), or `old`, which was the default up to 2.4 and which later ones still have.
    """

    version: str
    quantizer: str

    @property
    def name(self) -> str:
        suffix = "" if self.quantizer == "new" else ", old quantizer"
        return f"TensorFlow {self.version or 'of today'}{suffix}"

    @property
    def option(self) -> str:
        """As the command line calls it."""
        return f"{self.version or 'today'}{'' if self.quantizer == 'new' else '-old'}"


# The most likely ones first: only the new quantizer of 2.4 to 2.6 gives both published tensor names.
TOOLCHAINS = tuple(
    Toolchain(version, quantizer) for quantizer in ("new", "old") for version in ("2.5.0", "2.6.0", "2.4.4", "")
)


def parse(text: str) -> tuple[Toolchain, ...]:
    """Toolchains by their options, divided by commas; `none` for none of them.

    Raises:
        UsageError: a name that is none.
    """
    by_option = {chain.option: chain for chain in TOOLCHAINS}
    names = [] if text == "none" else text.split(",")
    for name in names:
        if name not in by_option:
            raise UsageError(
                expected=f"--toolchain to name some of {', '.join(by_option)}, or none",
                found=repr(name),
                next_step="give --toolchain 2.5.0",
            )
    return tuple(by_option[name] for name in names)


def parts(version: str) -> dict[str, str]:
    """What a toolchain's environment and its work depend on: file name -> SHA-256."""
    return {path.name: digest_file(path) for path in (_lock(version), _SCRIPT)}


def _lock(version: str) -> Path:
    return _FOLDER / f"tensorflow-{version}.lock"


@dataclass(frozen=True, eq=False)
class Edits:
    """What one attempt puts in the place of the calibrator's answer.

    Attributes:
        spans: float32 (activations, 2), minimum and maximum of the input and of each operator's output, in order.
        constants: for every convolution in order, weights and bias as flat float32 arrays in TensorFlow Lite's layout;
            None leaves what the converter itself folded.
    """

    spans: Array
    constants: Sequence[tuple[Array, Array]] | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """One frozen graph to convert.

    Attributes:
        graph: a serialised GraphDef.
        input, output: names of its nodes.
        input_shape: with the batch.
        input_type, output_type: of the model: `int8`, `uint8` or `float32`.
        attempts: a model is made for each.
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
    """The models of a job's attempts, and the constants the converter folded by itself, as in `Edits`."""

    models: tuple[bytes, ...]
    constants: tuple[tuple[Array, Array], ...]


def convert(toolchain: Toolchain, python: Path, job: Job) -> Converted:
    """Runs the job with the toolchain's own `convert()`.

    Args:
        python: of its environment, from `ensure`.

    Raises:
        ToolError: it failed or took too long; its last words are in the message.
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
                next_step="leave it out with --toolchain, or remove its environment from the cache",
            )
        with np.load(constants) as arrays:
            pairs = tuple((arrays[f"weights_{i}"], arrays[f"bias_{i}"]) for i in range(len(arrays.files) // 2))
        return Converted(tuple(Path(attempt["model"]).read_bytes() for attempt in attempts), pairs)


def _write_attempt(stem: Path, edits: Edits) -> dict[str, str]:
    arrays = {"spans": edits.spans}
    for index, (weights, bias) in enumerate(edits.constants or ()):
        arrays |= {f"weights_{index}": weights, f"bias_{index}": bias}
    paths = {"edits": str(stem.with_suffix(".npz")), "model": str(stem.with_suffix(".tflite"))}
    np.savez(paths["edits"], **arrays)  # type: ignore[arg-type]  # numpy's stub takes the mapping for its flag
    return paths


def ensure(toolchain: Toolchain, cache: Path, announce: Callable[[str], object]) -> Path:
    """The Python of the toolchain's environment, which is made on first use.

    Args:
        cache: folder below which environments are kept.
        announce: called with a sentence before something that takes minutes.

    Raises:
        ResourceError: no wheels for this machine, no Python 3.8, no package index, or no room.
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
        wait = f"waiting for another process that makes the environment of TensorFlow {toolchain.version}"
        with exclusive(folder.with_name(folder.name + ".lock"), lambda: announce(wait)) as held:
            if not _whole(folder):
                base = find_python()
                announce(f"making an environment for TensorFlow {toolchain.version} in {folder}, once (800 MB)")
                _make(toolchain, base, folder, lock, held)
    except OSError as error:
        raise ResourceError(
            expected=f"room and permission for an environment in {folder}",
            found=error.strerror or str(error),
            next_step="free some space, or set RECREATE_MODEL_CACHE to a folder that can be written",
        ) from error
    return python


def _whole(folder: Path) -> bool:
    # The Python it was made with may have been removed since; then its link leads nowhere.
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
        # What a step starts outlives a killed parent for a moment (venv runs pip), and holds the folder so long.
        done = run_to_end(step, _INSTALL_LIMIT, _SETTINGS, held)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            raise ResourceError(
                expected=f"an environment with TensorFlow {toolchain.version}, from {lock.name}",
                found=last_line(done),
                next_step="make a package index reachable and run again, or leave it out with --toolchain",
            )
    (folder / _COMPLETE).touch()


def _check_platform(toolchain: Toolchain) -> None:
    here = f"{platform.machine()} {sys.platform}"
    if here != "x86_64 linux":
        raise ResourceError(
            expected=f"an x86-64 Linux machine, as there are wheels of TensorFlow {toolchain.version} for no other",
            found=here,
            next_step="run on x86-64 Linux, or leave it out with --toolchain",
        )


def find_python() -> Path:
    """A Python 3.8 that can make environments: the one RECREATE_MODEL_PYTHON38 names, else of the system, pyenv or uv.

    Raises:
        ResourceError: there is none, or the one named is none.
    """
    named = os.environ.get(_PYTHON_VARIABLE)
    candidates = iter([Path(named).expanduser()]) if named else _pythons()
    for candidate in candidates:
        done = run_to_end((candidate, "-I", "-c", _PROBE), 60)
        if done.returncode == 0 and done.stdout.strip() == "3.8":
            return candidate
    raise ResourceError(
        expected="a Python 3.8 with venv and pip, as TensorFlow of 2021 runs on no newer one",
        found=f"{_PYTHON_VARIABLE}={named}, which is none" if named else "none on the PATH, under pyenv or uv",
        next_step=f"`uv python install 3.8` or `pyenv install 3.8`, or name one in {_PYTHON_VARIABLE}",
    )


def _pythons() -> Iterator[Path]:
    if found := shutil.which("python3.8"):
        yield Path(found)
    # Under pyenv, as the user's or as the one this program itself runs from, versions lie side by side.
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for versions in dict.fromkeys((root / "versions", Path(sys.base_prefix).parent)):
        yield from sorted(versions.glob("*3.8*/bin/python3.8"), reverse=True)
    if uv := shutil.which("uv"):
        done = run_to_end((uv, "python", "find", "3.8"), 60)
        if done.returncode == 0:
            yield Path(done.stdout.strip())

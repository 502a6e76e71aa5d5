"""The three published files, from the cache and its mirrors or from a folder laid out as the ML-zoo's, as bytes.

A missing file is reported, and what needs it is not checked. A file with other content (a Git LFS pointer, a truncated
vector, another shape) is an error. Nothing is unpickled.
"""

from __future__ import annotations

import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from pipeline.progress import Progress
from recreate_model.network.spec import MOBILENET_V2, RESOURCES
from recreate_model.support import resources
from recreate_model.support.archive import placeholder
from recreate_model.support.arrays import Array
from recreate_model.support.errors import InputError, ResourceError, reason
from recreate_model.support.resources import Resource
from recreate_model.tflite.model_view import read_file

_LARGEST = 64 << 20  # bytes; the model has 4 million
_MODEL, _INPUT, _OUTPUT = "published-model", "published-input", "published-output"
# Where the vectors lie beside the model in the ML-zoo.
_INPUT_PATH = f"testing_input/{MOBILENET_V2.int8_input_name}/0.npy"
_OUTPUT_PATH = f"testing_output/{MOBILENET_V2.int8_output_name}/0.npy"


@dataclass(frozen=True)
class File:
    """One of the published files.

    Attributes:
        data: its bytes; None if it is not available.
        where: its path; empty if it is not available.
        missing: the error to raise, if it is not available and should be.
    """

    resource: Resource
    data: bytes | None
    where: str
    missing: ResourceError | None = None

    @property
    def what(self) -> str:
        return self.resource.name.replace("-", " ")

    @property
    def why(self) -> str:
        """Why it is not available."""
        return self.missing.found if self.missing else "a single model was given, without its test vectors"


@dataclass(frozen=True)
class Files:
    """The model, its test input, and the expected output."""

    model: File
    input: File
    output: File

    def missing(self) -> Iterator[ResourceError]:
        """The errors of the files that should be available and are not."""
        for field in fields(self):
            if error := getattr(self, field.name).missing:
                yield error


def fetched(cache: Path, progress: Progress) -> Files:
    """The pinned files, from the cache or a mirror."""
    return Files(_fetched(RESOURCES[_MODEL], cache, progress), *vector_fetched(cache, progress))


def vector_fetched(cache: Path, progress: Progress) -> tuple[File, File]:
    """The pinned test input and output alone, from the cache or a mirror."""
    return _fetched(RESOURCES[_INPUT], cache, progress), _fetched(RESOURCES[_OUTPUT], cache, progress)


def model(path: Path | None, progress: Progress) -> tuple[bytes, Path]:
    """The model that the user names, or the pinned one if none is named, and its path.

    Raises:
        InputError, ResourceError: it cannot be read, or is not available.
    """
    if path is None:
        file = _fetched(RESOURCES[_MODEL], resources.cache_folder(), progress)
        if file.missing:
            raise file.missing
        path = Path(file.where)
    return read_file(path), path


def _fetched(resource: Resource, cache: Path, progress: Progress) -> File:
    try:
        with progress.bar(f"fetching {resource.file_name}"):
            path = resources.fetch(resource, cache)
    except ResourceError as error:
        return File(resource, None, "", error)
    return File(resource, path.read_bytes(), str(path))


def vector_beside(folder: Path) -> tuple[File, File]:
    """The test input and output of a folder in the layout of the ML-zoo, as far as they exist.

    Raises:
        InputError: a file that cannot be read.
    """
    return _beside(folder, RESOURCES[_INPUT], _INPUT_PATH), _beside(folder, RESOURCES[_OUTPUT], _OUTPUT_PATH)


def given(path: Path) -> Files:
    """The files of a folder, or a model alone.

    Raises:
        InputError: no such path, no model there, or a file that cannot be read.
    """
    model = RESOURCES[_MODEL]
    if path.is_dir():
        return Files(File(model, *_read(_only_model(path))), *vector_beside(path))
    alone = (File(RESOURCES[name], None, "") for name in (_INPUT, _OUTPUT))
    return Files(File(model, *_read(path)), *alone)


def pinned_array(file: File) -> Array:
    """The array of a test vector that is available and has the pinned digest."""
    assert file.data is not None
    return _parse(file.data)


def read_vector(file: File, shape: tuple[int, ...]) -> Array | None:
    """A test vector: int8 of `shape`, or int64 (classes,) for scores; None if it is not available.

    Raises:
        InputError: the file is not a .npy of that shape and type, or its size contradicts its header.
    """
    if file.data is None:
        return None
    try:
        vector = _parse(file.data)
    except (ValueError, EOFError, SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError) as error:
        message = " ".join(str(error).split())[:100]
        raise _unusable(file, shape, f"another file ({message})") from error
    if vector.dtype != np.int8 or vector.shape != shape:
        raise _unusable(file, shape, f"{vector.dtype} {vector.shape}")
    return vector.reshape(-1).astype(np.int64) if len(shape) == 2 else vector


def _parse(data: bytes) -> Array:
    stream = io.BytesIO(data)
    major, _ = np.lib.format.read_magic(stream)
    if major > 2:
        raise ValueError(f"version {major} of the format")
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if dtype.hasobject:
        raise ValueError("pickled objects")
    # Checked before an array of that size is allocated: the header may state anything.
    stated, there = dtype.itemsize * int(np.prod(shape, dtype=object)), len(data) - stream.tell()
    if stated != there:
        raise ValueError(f"{there} bytes of data where its header says {stated}")
    array: Array = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _unusable(file: File, shape: tuple[int, ...], found: str) -> InputError:
    return InputError(
        expected=f"{file.where} to be a NumPy array of int8 {shape}",
        found=found,
        done="it was not used",
        next_step=f"get it from {file.resource.urls[0]}",
    )


def _only_model(folder: Path) -> Path:
    named = folder / RESOURCES[_MODEL].file_name
    if named.exists():
        return named
    models = sorted(folder.glob("*.tflite"))
    if len(models) != 1:
        raise InputError(
            expected=f"{folder} to hold {named.name}, or one .tflite and no other",
            found=f"{len(models)} of them",
            next_step="give the model's own path",
        )
    return models[0]


def _beside(folder: Path, resource: Resource, where: str) -> File:
    path = folder / where
    if path.exists():
        return File(resource, *_read(path))
    missing = ResourceError(
        expected=f"the {resource.name.replace('-', ' ')} at {path}",
        found="nothing there",
        done="the rest was checked",
        next_step=f"get it from {resource.urls[0]}, or give the path of the model alone",
    )
    return File(resource, None, "", missing)


def _read(path: Path) -> tuple[bytes, str]:
    try:
        if not path.is_file():
            found = (
                "a folder" if path.is_dir() else "something that is not a file" if path.exists() else "nothing there"
            )
        else:
            with path.open("rb") as stream:
                data = stream.read(_LARGEST + 1)
            found = placeholder(data[:512]) or (f"more than {_LARGEST:,} bytes" if len(data) > _LARGEST else "")
            if not found:
                return data, str(path)
    except OSError as error:
        found = reason(error)
    raise InputError(
        expected=f"--published {path} to be the published file",
        found=found,
        done="nothing was checked",
        next_step="give the file itself (git lfs pull), or leave PATH out to fetch it",
    )

"""The forms that float weights come in: which one a file has, told by its content, and the weights in it.

For: `--checkpoint PATH`. What a file is that has none of them is said in one line. Not for: reading one form, each of
which has its module.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from recreate_model.floats import checkpoint, float_tflite, frozen_graph, keras_file, saved_model
from recreate_model.floats.background import CLASSES_READ, with_background
from recreate_model.floats.checkpoint import FloatWeights
from recreate_model.network import architecture
from recreate_model.network.spec import MOBILENET_V2, Model
from recreate_model.recipe import ARCHIVE, FROZEN_GRAPH, KERAS_FILE, SAVED_MODEL, TFLITE
from recreate_model.support.archive import placeholder
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_file
from recreate_model.support.errors import InputError

_READ = "an archive (.tgz), a frozen graph (.pb), a float .tflite, a Keras file (.h5, .keras) or a SavedModel folder"
_HEAD = 4096
_HDF5 = b"\x89HDF\r\n\x1a\n"
_TABLE = bytes.fromhex("57fb808b247547db")  # the end of a checkpoint's .index
_OTHERS = (
    (b"\x80\x02", "a pickle, as old PyTorch files are"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\x08\x01\x12", "the saved_model.pb of a SavedModel, whose weights lie beside it: give its folder"),
)


def form_of(path: Path) -> str:
    """Which form a file or folder has, by what its first bytes are.

    Raises:
        InputError: none; what it is instead.
    """
    if path.is_dir():
        if (path / saved_model.FILE).is_file():
            return SAVED_MODEL
        raise _none(path, _folder(path))
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - len(_TABLE)))
            tail = stream.read(len(_TABLE))
    except OSError as error:
        raise InputError(
            expected=f"to read {path}", found=error.strerror or str(error), next_step="make it readable"
        ) from error
    if head.startswith(b"\x1f\x8b"):
        return ARCHIVE
    if head[4:8] == b"TFL3":
        return TFLITE
    if head.startswith(_HDF5):
        return KERAS_FILE
    if head.startswith(b"PK\x03\x04"):
        names = _zip_names(path)
        if keras_file.WEIGHTS_MEMBER in names:
            return KERAS_FILE
        raise _none(path, _zip(names))
    if _begins_with_a_node(head):
        return FROZEN_GRAPH
    raise _none(path, _otherwise(head, tail))


def digest_of(path: Path) -> str:
    """SHA-256 of a file, or of what decides the weights in a SavedModel folder."""
    return saved_model.digest_saved_model(path) if path.is_dir() else digest_file(path)


def size_of(path: Path) -> int:
    """Bytes of what `digest_of` is of."""
    return saved_model.size_of(path) if path.is_dir() else path.stat().st_size


def read_weights(path: Path, model: Model) -> FloatWeights:
    """The float weights of a network, whichever form they come in.

    Raises:
        InputError: another file, a damaged one, another model's, or weights that are missing or not finite.
    """
    form, source = form_of(path), str(path)
    if form == ARCHIVE:
        return checkpoint.read_archive(path, model)
    if form == KERAS_FILE:
        return _checked(keras_file.read_keras(path, model, source), model, source)
    if form == TFLITE:
        return _checked(float_tflite.read_float_tflite(path.read_bytes(), model, source), model, source)
    graph = saved_model.freeze(path) if form == SAVED_MODEL else path.read_bytes()
    values = frozen_graph.as_values(frozen_graph.read_layers(graph, model, source, CLASSES_READ))
    # A toolchain converts the file that was given, between the two nodes that it knows.
    known = form == FROZEN_GRAPH and {MOBILENET_V2.input_name, MOBILENET_V2.output_name} <= frozen_graph.names(graph)
    return _checked(values, model, source, graph if known else None)


def _checked(values: Mapping[str, Array], model: Model, source: str, graph: bytes | None = None) -> FloatWeights:
    """The weights with the background filled in where it is missing."""
    values = dict(values)
    for name, value in values.items():
        if not np.isfinite(value).all() or (name.endswith("/moving_variance") and (value < 0).any()):
            raise InputError(
                expected=f"{source} to hold finite numbers in {name}, and variances that are not negative",
                found="some that are not",
                next_step="fetch it again, or give another --checkpoint",
            )
    classifier = architecture.layers(model)[-1]
    names = classifier.weights_name, f"{classifier.name}/biases"
    weights, bias = (values[name] for name in names)
    if len(bias) == MOBILENET_V2.classes:
        return FloatWeights(values, graph)
    values |= zip(names, with_background(weights, bias), strict=True)
    return FloatWeights(values, background=False)


def _begins_with_a_node(head: bytes) -> bool:
    """Whether a GraphDef's first field, a node that begins with its name and its operator, stands at the start."""
    # Both are fields of a length: the tag 0x0a, the length in groups of seven bits, the bytes; the operator has 0x12.
    length, start = _length(head, 0, 0x0A)
    name, inner = _length(head, start, 0x0A)
    operator, end = _length(head, inner + name, 0x12)
    text = head[inner : inner + name] + head[end : end + operator]
    return bool(length and name and operator) and text.isascii() and text.decode("ascii").isprintable()


def _length(data: bytes, at: int, tag: int) -> tuple[int, int]:
    """The length of a field with this tag, and where its bytes begin; a length of 0 where there is no such field."""
    if data[at : at + 1] != bytes([tag]):
        return 0, at
    value = 0
    for shift, byte in enumerate(data[at + 1 : at + 6]):
        value |= (byte & 127) << 7 * shift
        if byte < 128:
            return value, at + 2 + shift
    return 0, at


def _folder(path: Path) -> str:
    if any(path.glob("*.index")):
        return "a folder with a TensorFlow checkpoint: give the archive it came in"
    return f"a folder without {saved_model.FILE}"


def _zip_names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as opened:
            return opened.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []


def _zip(names: list[str]) -> str:
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch file"
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy arrays (.npz)"
    if not names:
        return "a damaged zip"
    return f"a zip without {keras_file.WEIGHTS_MEMBER}, with {names[0][:60]}"


def _otherwise(head: bytes, tail: bytes) -> str:
    if not head:
        return "an empty file"
    if stand_in := placeholder(head):
        return f"{stand_in}: the file itself was not downloaded"
    for mark, kind in _OTHERS:
        if head.startswith(mark):
            return kind
    if tail == _TABLE:
        return "the .index of a TensorFlow checkpoint: give the archive it came in"
    if head[0] == 8 and 2 < head[1:2][0] < 64 and head[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42"):
        return "an ONNX file"
    if head[8:10] == b'{"':
        return "a safetensors file"
    text = head.lstrip()
    if text.startswith((b"node {", b"node{")):
        return "a graph as text: give the binary one"
    try:
        head[:-4].decode()
    except UnicodeDecodeError:
        return "a file of no form that is known here"
    return "a file of no form that is known here" if b"\0" in head else "text"


def _none(path: Path, found: str) -> InputError:
    return InputError(expected=f"--checkpoint {path} to be {_READ}", found=found, next_step="give one of these")

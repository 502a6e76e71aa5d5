"""The formats of float weights: detect the format of a file by its content, and read the weights.

This serves `--checkpoint PATH`. A file of another format is rejected with an error that says what it is. Each format
has a module of its own that reads it.
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
from recreate_model.network import architecture, seeded
from recreate_model.network.spec import MOBILENET_V2, Model
from recreate_model.recipe import ARCHIVE, FROZEN_GRAPH, KERAS_FILE, SAVED_MODEL, TFLITE
from recreate_model.support.archive import placeholder
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_file
from recreate_model.support.errors import InputError, reason

_SUPPORTED = (
    "an archive (.tgz), a frozen graph (.pb), a float .tflite, a Keras file (.h5, .keras) or a SavedModel folder"
)
_HEAD = 4096  # bytes read to detect the format
_HDF5 = b"\x89HDF\r\n\x1a\n"
_INDEX_MAGIC = bytes.fromhex("57fb808b247547db")  # the last bytes of a checkpoint's .index
_UNKNOWN = "a file of unknown format"
_UNSUPPORTED = (
    (b"\x80\x02", "a pickle, the format of old PyTorch files"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\x08\x01\x12", "the saved_model.pb of a SavedModel, without its weights: give the whole folder"),
)


def form_of(path: Path) -> str:
    """Detect the format of a file or folder by its content.

    Returns:
        ARCHIVE or one of FORMS of `recipe`.

    Raises:
        InputError: the file is unreadable, or has no supported format; the message says what it is.
    """
    if path.is_dir():
        if (path / saved_model.FILE).is_file():
            return SAVED_MODEL
        raise _unsupported(path, _describe_folder(path))
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - len(_INDEX_MAGIC)))
            tail = stream.read(len(_INDEX_MAGIC))
    except OSError as error:
        raise InputError(
            expected=f"{path} to be readable", found=reason(error), next_step="make it readable"
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
        raise _unsupported(path, _describe_zip(names))
    if _starts_with_node(head):
        return FROZEN_GRAPH
    raise _unsupported(path, _describe(head, tail))


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of the files in a SavedModel folder that determine the weights."""
    return saved_model.digest_saved_model(path) if path.is_dir() else digest_file(path)


def size_of(path: Path) -> int:
    """Return the size in bytes of the files that `digest_of` covers."""
    return saved_model.size_of(path) if path.is_dir() else path.stat().st_size


def read_weights(path: Path, model: Model) -> FloatWeights:
    """Read the float weights of a network from a file or folder of any supported format.

    Raises:
        InputError: the format is unsupported, the file is damaged or of another model, or weights are missing or not
            finite.
    """
    form, source = form_of(path), str(path)
    if form == ARCHIVE:
        return checkpoint.read_archive(path, model)
    if form == KERAS_FILE:
        return _checked_weights(keras_file.read_keras(path, model, source), model, source)
    if form == TFLITE:
        return _checked_weights(float_tflite.read_float_tflite(path.read_bytes(), model, source), model, source)
    graph = saved_model.freeze(path) if form == SAVED_MODEL else path.read_bytes()
    values = frozen_graph.as_values(frozen_graph.read_layers(graph, model, source, CLASSES_READ))
    # A toolchain can convert a frozen graph directly if its input and output have the official names.
    official = {MOBILENET_V2.input_name, MOBILENET_V2.output_name}
    convertible = form == FROZEN_GRAPH and official <= frozen_graph.names(graph)
    return _checked_weights(values, model, source, graph if convertible else None)


def load_weights(path: Path | None, model: Model, seed: int) -> FloatWeights:
    """Read the float weights at a path, or make the seeded ones if there is none. Raises as `read_weights`."""
    return FloatWeights(seeded.seeded_weights(model, seed)) if path is None else read_weights(path, model)


def _checked_weights(
    values: Mapping[str, Array], model: Model, source: str, graph: bytes | None = None
) -> FloatWeights:
    """Check that the values are finite and the variances not negative, and add the background class if missing."""
    values = dict(values)
    for name, value in values.items():
        bad = value.size - int(np.isfinite(value).sum())
        if name.endswith("/moving_variance"):
            bad += int((value < 0).sum())
        if bad:
            raise InputError(
                expected=f"{source} to hold finite values in {name}, and no negative variance",
                found=f"{bad} of {value.size} values that are not",
                next_step="get the checkpoint again, or give another --checkpoint",
            )
    classifier = architecture.layers(model)[-1]
    names = classifier.weights_name, f"{classifier.name}/biases"
    weights, bias = (values[name] for name in names)
    if len(bias) == MOBILENET_V2.classes:
        return FloatWeights(values, graph)
    values |= zip(names, with_background(weights, bias), strict=True)
    return FloatWeights(values, background=False)


def _starts_with_node(head: bytes) -> bool:
    """Return whether the data starts as a GraphDef does: with a node, which starts with its name and its operator."""
    # All three are length-delimited protobuf fields: a tag, the length as a varint, then the content.
    length, start = _field(head, 0, 0x0A)
    name, name_start = _field(head, start, 0x0A)
    operator, operator_start = _field(head, name_start + name, 0x12)
    text = head[name_start : name_start + name] + head[operator_start : operator_start + operator]
    return bool(length and name and operator) and text.isascii() and text.decode("ascii").isprintable()


def _field(data: bytes, position: int, tag: int) -> tuple[int, int]:
    """Return the length and the start of a protobuf field's content; a length of 0 if the field has another tag."""
    if data[position : position + 1] != bytes([tag]):
        return 0, position
    value = 0
    for index, byte in enumerate(data[position + 1 : position + 6]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, position + 2 + index
    return 0, position


def _describe_folder(path: Path) -> str:
    if any(path.glob("*.index")):
        return "a folder with a TensorFlow checkpoint: give the archive it came in"
    return f"a folder without {saved_model.FILE}"


def _zip_names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as opened:
            return opened.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []


def _describe_zip(names: list[str]) -> str:
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch file"
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy arrays (.npz)"
    if not names:
        return "a damaged zip"
    return f"a zip without {keras_file.WEIGHTS_MEMBER}, with {names[0][:60]}"


def _describe(head: bytes, tail: bytes) -> str:
    """Say what an unsupported file is, given its first and last bytes."""
    if not head:
        return "an empty file"
    if stand_in := placeholder(head):
        return f"{stand_in}: the file itself was not downloaded"
    for magic, kind in _UNSUPPORTED:
        if head.startswith(magic):
            return kind
    if tail == _INDEX_MAGIC:
        return "the .index of a TensorFlow checkpoint: give the archive it came in"
    if head[0] == 8 and 2 < head[1:2][0] < 64 and head[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42"):
        return "an ONNX file"
    if head[8:10] == b'{"':
        return "a safetensors file"
    text = head.lstrip()
    if text.startswith((b"node {", b"node{")):
        return "a graph in text format: give the binary one"
    try:
        head[:-4].decode()  # a multibyte character may be cut at the end
    except UnicodeDecodeError:
        return _UNKNOWN
    return _UNKNOWN if b"\0" in head else "text"


def _unsupported(path: Path, found: str) -> InputError:
    return InputError(
        expected=f"--checkpoint {path} to be {_SUPPORTED}", found=found, next_step="give a file of one of these formats"
    )

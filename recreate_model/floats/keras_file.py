"""The weights in a file of keras.applications' MobileNetV2: `.h5`, `.weights.h5` or `.keras`, read without Keras.

Layers are matched by their order in the file, not by name, as Keras itself does. If the file also describes its layers,
the description is checked, because a network with other strides or another epsilon has weights of the same shapes.

Files without the classifier (`include_top=False`) and files of other networks are rejected.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from recreate_model.floats.background import CLASSES_READ
from recreate_model.network import architecture
from recreate_model.network.layer import EPSILON, Layer
from recreate_model.network.spec import Model
from recreate_model.support.archive import MAX_BYTES
from recreate_model.support.arrays import Array
from recreate_model.support.digest import Json
from recreate_model.support.errors import InputError

WEIGHTS_MEMBER = "model.weights.h5"  # in a .keras file
_CONFIG_MEMBER = "config.json"
_PARTS = ("gamma", "beta", "moving_mean", "moving_variance")  # as Keras orders them


def read_keras(path: Path, model: Model, source: str) -> dict[str, Array]:
    """Read every variable.

    Args:
        path: an HDF5 file, or a zip that contains one.
        model: the expected member of the family.
        source: name of the file in error messages.

    Returns:
        TF-Slim's variable name -> float32 array. The classifier has 1000 classes if the file lacks the background.

    Raises:
        InputError: the file is damaged, of another network or member of the family, or without weights.
    """
    import h5py

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as opened:
                config = json.loads(_member(opened, _CONFIG_MEMBER, source))
                stream = io.BytesIO(_member(opened, WEIGHTS_MEMBER, source))
            with h5py.File(stream, "r") as file:
                return _read(file, config, model, source)
        with h5py.File(path, "r") as file:
            config = json.loads(file.attrs["model_config"]) if "model_config" in file.attrs else None
            return _read(file, config, model, source)
    # h5py raises any of these for a damaged file.
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _mismatch(source, "the content of a readable Keras file", reason) from error


def _member(opened: zipfile.ZipFile, name: str, source: str) -> bytes:
    if name not in opened.namelist():
        raise _mismatch(source, f"the member {name}", ", ".join(opened.namelist()[:5]))
    if opened.getinfo(name).file_size > MAX_BYTES:
        raise _mismatch(source, f"at most {MAX_BYTES:,} bytes in {name}", f"{opened.getinfo(name).file_size:,}")
    return opened.read(name)


def _read(file: Any, config: Json, model: Model, source: str) -> dict[str, Array]:
    if config is not None:
        _check_layers(config, model, source)
    layers = list(_layers_in_order(file))
    depthwise = (datasets for datasets in layers if len(datasets) == 1 and _is_depthwise(datasets[0]))
    convolutions = (datasets for datasets in layers if len(datasets) == 1 and not _is_depthwise(datasets[0]))
    norms = (datasets for datasets in layers if len(datasets) == 4)
    values: dict[str, Array] = {}
    *body, classifier = architecture.layers(model)
    for layer in body:
        kernel, norm = next(depthwise if layer.depthwise else convolutions, None), next(norms, None)
        if kernel is None or norm is None:
            found = f"{len(layers)} layers with weights"
            raise _mismatch(source, f"the weights of {2 * len(body) + 1} layers, including {layer.name}", found)
        values[layer.weights_name] = _value(kernel[0], (layer.weights_shape,), layer, source)
        for part, stored in zip(_PARTS, norm, strict=True):
            values[f"{layer.name}/BatchNorm/{part}"] = _value(stored, ((layer.outputs,),), layer, source)
    heads = [datasets for datasets in layers if len(datasets) == 2]
    if len(heads) != 1 or next(convolutions, None) or next(depthwise, None) or next(norms, None):
        expected = f"{len(body)} convolutions with BatchNorm and one classifier (include_top=True)"
        raise _mismatch(source, expected, f"{len(heads)} dense layers among {len(layers)} layers with weights")
    weights = _value(heads[0][0], tuple((classifier.inputs, classes) for classes in CLASSES_READ), classifier, source)
    values[classifier.weights_name] = weights.reshape(1, 1, *weights.shape)
    values[f"{classifier.name}/biases"] = _value(heads[0][1], ((weights.shape[1],),), classifier, source)
    return values


def _layers_in_order(file: Any) -> Iterator[list[Any]]:
    """Yield the HDF5 datasets of each layer with weights, in file order, from either of Keras's two layouts."""
    root = _entry(file, "model_weights") if "model_weights" in file else file
    if "layer_names" in root.attrs:
        for name in map(_text, root.attrs["layer_names"]):
            layer = _entry(root, name)
            if names := [_text(weight) for weight in layer.attrs["weight_names"]]:
                yield [_dataset(layer, weight) for weight in names]
        return
    layers = _entry(file, "layers")
    # Layers are named by kind and number, the first without a number: conv2d, conv2d_1, ... conv2d_10.
    for name in sorted(layers, key=_natural):
        layer = _entry(layers, name)
        stored = _entry(layer, "vars") if "vars" in layer else ()
        if len(stored):
            yield [_dataset(stored, weight) for weight in sorted(stored, key=_natural)]


def _natural(name: str) -> list[str | int]:
    """Return the sort key of natural order, in which `conv2d_2` comes before `conv2d_10`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _dataset(group: Any, name: str) -> Any:
    """Return a dataset stored in the file itself, not in an external file."""
    import h5py

    found = _entry(group, name)
    if not isinstance(found, h5py.Dataset) or found.external:
        raise KeyError(f"no dataset {name} in {group.name}")
    return found


def _entry(group: Any, name: str) -> Any:
    """Return the object at a path below a group. Soft and external links are rejected: they may lead to other files."""
    import h5py

    for part in name.split("/"):
        if not isinstance(group, h5py.Group) or not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise KeyError(f"no {part} in {group.name}")
        group = group[part]
    return group


def _is_depthwise(stored: Any) -> bool:
    return len(stored.shape) == 4 and stored.shape[0] > 1 and stored.shape[3] == 1


def _value(stored: Any, shapes: tuple[tuple[int, ...], ...], layer: Layer, source: str) -> Array:
    """Return the content of a dataset, which must be float32 and of one of the given shapes."""
    if stored.shape not in shapes or stored.dtype != np.float32:
        expected = f"float32 {' or '.join(map(str, shapes))} for {layer.name}"
        raise _mismatch(source, expected, f"{stored.dtype} {stored.shape} in {stored.name}")
    return np.asarray(stored[()], np.float32)


def _check_layers(config: Json, model: Model, source: str) -> None:
    """Check what the description adds to the weights: stride, bias, epsilon, activation, padding and input shape."""
    strides = iter([layer.stride for layer in architecture.layers(model)[:-1]])
    for layer in config["config"]["layers"]:
        kind, options = layer["class_name"], layer["config"]
        name = options.get("name", kind)
        if kind in ("Conv2D", "DepthwiseConv2D"):
            _check(source, f"the strides of {name}", [next(strides, None)] * 2, list(options["strides"]))
            _check(source, f"use_bias of {name}", False, options["use_bias"])
        elif kind == "BatchNormalization":
            _check(source, f"the epsilon of {name}", EPSILON, float(np.float32(options["epsilon"])))
        elif kind == "ReLU":
            _check(source, f"max_value of {name}", 6.0, options["max_value"])
        elif kind == "ZeroPadding2D":
            _check(source, f"the padding of {name}", [[0, 1], [0, 1]], [list(side) for side in options["padding"]])
        elif kind == "InputLayer":
            shape = options.get("batch_shape") or options.get("batch_input_shape")
            _check(source, f"the input shape of {name}", [model.resolution, model.resolution, 3], list(shape[1:]))


def _check(source: str, what: str, expected: object, found: object) -> None:
    if found != expected:
        raise _mismatch(source, f"{what} equal to {expected}, as in MobileNetV2", str(found))


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _mismatch(source: str, expected: str, found: str) -> InputError:
    return InputError(
        expected=f"{source} to have {expected}",
        found=found,
        next_step="give --model the name of its network, or another --checkpoint",
    )

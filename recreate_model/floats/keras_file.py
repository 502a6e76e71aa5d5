"""The weights in a file of keras.applications' MobileNetV2: `.h5`, `.weights.h5` or `.keras`, read without Keras.

The layers stand in the order of the network. Of the file, Keras itself goes by that order and not by names. Where the
file describes its layers, they are checked: a network of other strides or another epsilon has the same weights.

Not for: files without the classifier (`include_top=False`), or of other networks.
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

WEIGHTS_MEMBER = "model.weights.h5"  # of a .keras file
_CONFIG_MEMBER = "config.json"
_PARTS = ("gamma", "beta", "moving_mean", "moving_variance")  # as Keras orders them


def read_keras(path: Path, model: Model, source: str) -> dict[str, Array]:
    """Every variable by TF-Slim's names, float32; of a classifier without the background the 1000 classes.

    Args:
        path: an HDF5 file, or a zip with one in it.
        source: what to call the file in an error.

    Raises:
        InputError: a damaged file, one of another network or another member of the family, or one without weights.
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
    # Of a damaged file h5py reports what the HDF5 library does, with whichever of these it finds fitting.
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, zipfile.BadZipFile) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _refused(source, "a readable Keras file", said) from error


def _member(opened: zipfile.ZipFile, name: str, source: str) -> bytes:
    if name not in opened.namelist():
        raise _refused(source, f"the member {name}", ", ".join(opened.namelist()[:5]))
    if opened.getinfo(name).file_size > MAX_BYTES:
        raise _refused(source, f"at most {MAX_BYTES:,} bytes in {name}", f"{opened.getinfo(name).file_size:,}")
    return opened.read(name)


def _read(file: Any, config: Json, model: Model, source: str) -> dict[str, Array]:
    if config is not None:
        _check_layers(config, model, source)
    layers = list(_layers_in_order(file))
    depthwise = (each for each in layers if len(each) == 1 and _is_depthwise(each[0]))
    others = (each for each in layers if len(each) == 1 and not _is_depthwise(each[0]))
    norms = (each for each in layers if len(each) == 4)
    values: dict[str, Array] = {}
    *body, classifier = architecture.layers(model)
    for layer in body:
        kernel, norm = next(depthwise if layer.depthwise else others, None), next(norms, None)
        if kernel is None or norm is None:
            found = f"{len(layers)} layers with weights"
            raise _refused(source, f"the weights of {2 * len(body) + 1} layers, {layer.name} among them", found)
        values[layer.weights_name] = _value(kernel[0], (layer.weights_shape,), layer, source)
        for part, stored in zip(_PARTS, norm, strict=True):
            values[f"{layer.name}/BatchNorm/{part}"] = _value(stored, ((layer.outputs,),), layer, source)
    heads = [each for each in layers if len(each) == 2]
    if len(heads) != 1 or next(others, None) or next(depthwise, None) or next(norms, None):
        raise _refused(
            source, "one classifier behind the convolutions (include_top=True)", f"{len(heads)} dense layers"
        )
    weights = _value(heads[0][0], tuple((classifier.inputs, classes) for classes in CLASSES_READ), classifier, source)
    values[classifier.weights_name] = weights.reshape(1, 1, *weights.shape)
    values[f"{classifier.name}/biases"] = _value(heads[0][1], ((weights.shape[1],),), classifier, source)
    return values


def _layers_in_order(file: Any) -> Iterator[list[Any]]:
    """The data sets of each layer that has any, in both layouts of Keras."""
    root = _entry(file, "model_weights") if "model_weights" in file else file
    if "layer_names" in root.attrs:
        for name in map(_text, root.attrs["layer_names"]):
            layer = _entry(root, name)
            if names := [_text(each) for each in layer.attrs["weight_names"]]:
                yield [_dataset(layer, each) for each in names]
        return
    layers = _entry(file, "layers")
    # Named by their kind and a number, of which the first has none: conv2d, conv2d_1, ... conv2d_10.
    for name in sorted(layers, key=_natural):
        layer = _entry(layers, name)
        stored = _entry(layer, "vars") if "vars" in layer else ()
        if len(stored):
            yield [_dataset(stored, each) for each in sorted(stored, key=_natural)]


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _dataset(group: Any, name: str) -> Any:
    """A data set of the file itself."""
    import h5py

    found = _entry(group, name)
    if not isinstance(found, h5py.Dataset) or found.external:
        raise KeyError(f"no numbers in {name}")
    return found


def _entry(group: Any, name: str) -> Any:
    """What lies below a group under a name; not through a link, which may lead to other files of this machine."""
    import h5py

    for part in name.split("/"):
        if not isinstance(group, h5py.Group) or not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise KeyError(f"no {part} in {group.name}")
        group = group[part]
    return group


def _is_depthwise(stored: Any) -> bool:
    return len(stored.shape) == 4 and stored.shape[0] > 1 and stored.shape[3] == 1


def _value(stored: Any, shapes: tuple[tuple[int, ...], ...], layer: Layer, source: str) -> Array:
    if stored.shape not in shapes or stored.dtype != np.float32:
        expected = f"float32 {' or '.join(map(str, shapes))} for {layer.name}"
        raise _refused(source, expected, f"{stored.dtype} {stored.shape} in {stored.name}")
    return np.asarray(stored[()], np.float32)


def _check_layers(config: Json, model: Model, source: str) -> None:
    """What a description of the layers says beside the weights: strides, padding, epsilon, activation, input."""
    strides = iter([layer.stride for layer in architecture.layers(model)[:-1]])
    for each in config["config"]["layers"]:
        kind, its = each["class_name"], each["config"]
        name = its.get("name", kind)
        if kind in ("Conv2D", "DepthwiseConv2D"):
            _check(source, f"the stride of {name}", [next(strides, None)] * 2, list(its["strides"]))
            _check(source, f"the bias of {name}", False, its["use_bias"])
        elif kind == "BatchNormalization":
            _check(source, f"the epsilon of {name}", EPSILON, float(np.float32(its["epsilon"])))
        elif kind == "ReLU":
            _check(source, f"the largest value of {name}", 6.0, its["max_value"])
        elif kind == "ZeroPadding2D":
            _check(source, f"the padding of {name}", [[0, 1], [0, 1]], [list(side) for side in its["padding"]])
        elif kind == "InputLayer":
            shape = its.get("batch_shape") or its.get("batch_input_shape")
            _check(source, f"the input of {name}", [model.resolution, model.resolution, 3], list(shape[1:]))


def _check(source: str, what: str, expected: object, found: object) -> None:
    if found != expected:
        raise _refused(source, f"{what} as MobileNetV2 has it, {expected}", str(found))


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _refused(source: str, expected: str, found: str) -> InputError:
    return InputError(
        expected=f"{source} to have {expected}",
        found=found,
        next_step="give --model the name of its network, or another --checkpoint",
    )

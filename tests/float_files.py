"""Float weights in the formats of other programs, each written by that program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from recreate_model.network import architecture
from recreate_model.network.spec import MOBILENET_V2, Model
from recreate_model.quantize import convert
from recreate_model.support.arrays import Array
from tests.official_layout import official_form_graph, unfolded_graph

KERAS = ("model.keras", "model.h5", "model.weights.h5", "keras_2.h5", "keras_saved_model", "keras.tflite")
SLIM = ("folded.pb", "unfolded.pb", "official.pb", "slim.tflite", "converter_folded.tflite", "slim_saved_model")


def keras_model(model: Model, values: Mapping[str, Array]) -> object:
    """The network of keras.applications with these weights, without class 0, which it does not have."""
    import keras

    size = (model.resolution, model.resolution, 3)
    built = keras.applications.MobileNetV2(input_shape=size, alpha=float(model.width), weights=None)
    weights = []
    for layer in architecture.layers(model):
        for name in layer.variables:
            value = values[name] if layer.batch_norm else values[name][..., 1:]
            weights.append(value if layer.batch_norm else value.reshape(value.shape[-2:] if value.ndim == 4 else -1))
    built.set_weights(weights)
    return built


def write_keras(folder: Path, model: Model, values: Mapping[str, Array]) -> object:
    """Writes all of KERAS into a folder and returns the network."""
    import tensorflow as tf

    built: object = keras_model(model, values)
    built.save(folder / "model.keras")  # type: ignore[attr-defined]
    built.save(folder / "model.h5")  # type: ignore[attr-defined]
    built.save_weights(folder / "model.weights.h5")  # type: ignore[attr-defined]
    _write_keras_2(folder / "keras_2.h5", built)
    built.export(folder / "keras_saved_model", verbose=False)  # type: ignore[attr-defined]
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "keras_saved_model"))
    (folder / "keras.tflite").write_bytes(converter.convert())
    return built


def _write_keras_2(path: Path, built: object) -> None:
    """Writes weights in the layout used before Keras 3, as keras.applications downloads them."""
    import h5py

    with h5py.File(path, "w") as file:
        layers = built.layers  # type: ignore[attr-defined]
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        file.attrs["backend"] = b"tensorflow"
        for layer in layers:
            group = file.create_group(layer.name)
            leaves = {"kernel": "depthwise_kernel"} if "Depthwise" in type(layer).__name__ else {}
            names = [f"{layer.name}/{leaves.get(weight.name, weight.name)}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group[name] = np.asarray(weight)


def write_slim(folder: Path, model: Model, values: Mapping[str, Array]) -> None:
    """Writes all of SLIM into a folder."""
    import tensorflow as tf

    graphs = {
        "folded.pb": architecture.frozen_graph(model, values),
        "unfolded.pb": unfolded_graph(model, values),
        "official.pb": official_form_graph(model, values),
    }
    for name, graph in graphs.items():
        (folder / name).write_bytes(graph)
    (folder / "slim.tflite").write_bytes(convert.convert_float(graphs["folded.pb"]))
    (folder / "converter_folded.tflite").write_bytes(folded_by_the_converter(graphs["unfolded.pb"], model))
    definition = tf.compat.v1.GraphDef.FromString(graphs["unfolded.pb"])
    imported = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    served = imported.prune(f"{MOBILENET_V2.input_name}:0", f"{MOBILENET_V2.output_name}:0")
    tf.saved_model.save(tf.Module(), str(folder / "slim_saved_model"), signatures=served)


def folded_by_the_converter(graph: bytes, model: Model) -> bytes:
    """A graph with BatchNorm in it, folded by TensorFlow's converter."""
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef.FromString(graph)
    with tf.Graph().as_default() as loaded, tf.compat.v1.Session(graph=loaded) as session:
        tf.import_graph_def(definition, name="")
        ends = [
            [loaded.get_tensor_by_name(f"{name}:0")] for name in (MOBILENET_V2.input_name, MOBILENET_V2.output_name)
        ]
        ends[0][0].set_shape((1, model.resolution, model.resolution, 3))
        data: bytes = tf.compat.v1.lite.TFLiteConverter.from_session(session, *ends).convert()
        return data


def keras_scores(built: object, pictures: Array) -> Array:
    """The softmax of Keras' own network."""
    return np.asarray(built(pictures, training=False))  # type: ignore[operator]

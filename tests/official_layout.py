"""Archives in the layout of the official ones, made with TensorFlow as those were: checkpoint, averages, frozen graph.

The frozen graph here contains TensorFlow's own BatchNorm, so tests can check ours, into which it is folded.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from recreate_model.network.architecture import layers
from recreate_model.network.layer import Layer, fold
from recreate_model.network.mobilenet_v2 import final_size
from recreate_model.network.spec import MOBILENET_V2, Model
from recreate_model.support.arrays import Array

AVERAGED = True  # whether the checkpoint holds averages beside the raw variables
RAW_OFF_BY = np.float32(1.02)


def write_archive(
    path: Path, model: Model, values: Mapping[str, Array], drop: tuple[str, ...] = (), graph: bytes | None = None
) -> Path:
    """Writes an archive whose averages are `values`; members whose names end in one of `drop` are left out.

    Args:
        graph: the frozen graph; None for that of `unfolded_graph`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_checkpoint(folder / f"{model.name}.ckpt", values)
        (folder / f"{model.name}_frozen.pb").write_bytes(unfolded_graph(model, values) if graph is None else graph)
        (folder / f"{model.name}_info.txt").write_text(f"Model: {model.name}\n")
        with tarfile.open(path, "w:gz", compresslevel=1) as tar:
            for file in sorted(folder.iterdir()):
                if not file.name.endswith(drop or ("\0",)):
                    tar.add(file, f"./{file.name}")
    return path


def _write_checkpoint(prefix: Path, values: Mapping[str, Array]) -> None:
    import tensorflow as tf

    names, tensors = [], []
    for name, value in values.items():
        averaged = AVERAGED and "moving_" not in name
        names += [name, f"{name}/ExponentialMovingAverage"] if averaged else [name]
        tensors += [value * RAW_OFF_BY, value] if averaged else [value]
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors)


def unfolded_graph(model: Model, values: Mapping[str, Array]) -> bytes:
    """The network as TF-Slim writes it, with FusedBatchNorm operators; input `input`, output `.../Reshape_1`."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        tensor = v1.placeholder(tf.float32, (None, model.resolution, model.resolution, 3), "input")
        block_input = tensor
        *body, classifier = layers(model)
        for layer in body:
            if layer.block_start:
                block_input = tensor
            tensor = _layer(layer, tensor, values)
            if layer.residual:
                tensor = tf.add(tensor, block_input, name=layer.residual)
        tensor = tf.nn.avg_pool2d(tensor, final_size(model), 1, "VALID")
        tensor = tf.nn.conv2d(tensor, _constant(classifier.weights_name, values), 1, "SAME")
        tensor = tf.nn.bias_add(tensor, _constant(f"{classifier.name}/biases", values))
        tf.nn.softmax(tf.squeeze(tensor, [1, 2]), name="MobilenetV2/Predictions/Reshape_1")
        data: bytes = graph.as_graph_def().SerializeToString(deterministic=True)
        return data


def official_form_graph(model: Model, values: Mapping[str, Array]) -> bytes:
    """The network as in the official archive, after inference transforms; input and output as in `unfolded_graph`.

    BatchNorm is folded into each Conv2D, but not into depthwise convolutions. No constant except the folded biases
    has a descriptive name.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        tensor = v1.placeholder(tf.float32, (None, model.resolution, model.resolution, 3), "input")
        block_input = tensor
        *body, classifier = layers(model)
        for layer in body:
            if layer.block_start:
                block_input = tensor
            norm = f"{layer.name}/BatchNorm/FusedBatchNorm"
            strides = [1, layer.stride, layer.stride, 1]
            if layer.depthwise:
                weights, *parts = (tf.constant(values[name]) for name in layer.variables)
                tensor = tf.raw_ops.DepthwiseConv2dNative(
                    input=tensor, filter=weights, strides=strides, padding="SAME", name=f"{layer.name}/depthwise"
                )
                tensor, *_ = tf.raw_ops.FusedBatchNorm(
                    x=tensor, scale=parts[0], offset=parts[1], mean=parts[2], variance=parts[3], epsilon=0.001,
                    is_training=False, name=norm,
                )  # fmt: skip
            else:
                folded = fold(layer, values)
                name = f"{layer.name}/Conv2D"
                tensor = tf.nn.conv2d(tensor, tf.constant(folded.weights), strides, "SAME", name=name)
                tensor = tf.nn.bias_add(tensor, tf.constant(folded.bias, name=f"{name}_bn_offset"), name=norm)
            if layer.relu6:
                tensor = tf.nn.relu6(tensor, name=f"{layer.name}/Relu6")
            if layer.residual:
                tensor = tf.raw_ops.Add(x=tensor, y=block_input, name=layer.residual)
        tensor = tf.nn.avg_pool2d(tensor, final_size(model), 1, "VALID", name="MobilenetV2/Logits/AvgPool")
        tensor = tf.nn.conv2d(tensor, tf.constant(values[classifier.weights_name]), 1, "SAME")
        tensor = tf.nn.bias_add(tensor, tf.constant(values[f"{classifier.name}/biases"]))
        tensor = tf.reshape(
            tf.squeeze(tensor, [1, 2]), [-1, MOBILENET_V2.classes], name="MobilenetV2/Predictions/Reshape"
        )
        softmax = tf.nn.softmax(tensor, name="MobilenetV2/Predictions/Softmax")
        tf.reshape(softmax, tf.shape(tensor), name="MobilenetV2/Predictions/Reshape_1")
        data: bytes = graph.as_graph_def().SerializeToString(deterministic=True)
        return data


def _layer(layer: Layer, tensor: object, values: Mapping[str, Array]) -> object:
    import tensorflow as tf

    weights = _constant(layer.weights_name, values)
    strides = [1, layer.stride, layer.stride, 1]
    convolve = tf.nn.depthwise_conv2d if layer.depthwise else tf.nn.conv2d
    tensor = convolve(tensor, weights, strides, "SAME")
    parts = {part: _constant(f"{layer.name}/BatchNorm/{part}", values) for part in ("gamma", "beta")}
    mean, variance = (_constant(f"{layer.name}/BatchNorm/moving_{part}", values) for part in ("mean", "variance"))
    tensor, *_ = tf.compat.v1.nn.fused_batch_norm(
        tensor, parts["gamma"], parts["beta"], mean, variance, epsilon=0.001, is_training=False
    )
    return tf.nn.relu6(tensor) if layer.relu6 else tensor


def _constant(name: str, values: Mapping[str, Array]) -> object:
    import tensorflow as tf

    return tf.constant(values[name], name=name)


def run_graph(graph: bytes, value: Array) -> Array:
    """Runs a serialized graph in TensorFlow: the softmax for one input."""
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(graph)
    with tf.Graph().as_default() as loaded, tf.compat.v1.Session() as session:
        tf.import_graph_def(definition, name="")
        output = loaded.get_tensor_by_name("MobilenetV2/Predictions/Reshape_1:0")
        return np.asarray(session.run(output, {"input:0": value}))

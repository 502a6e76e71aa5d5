"""INT8 models with many forms of the six operators, made by TensorFlow's converter once in each process.

Random weights with a fixed seed; each model ends in a softmax, and none recognizes anything.
"""

from __future__ import annotations

import functools
from typing import Any

from tests.edited_models import edited

KINDS = {
    "valid": "odd sizes, VALID padding, windows that leave rows unread, RELU",
    "dilated": "dilated windows, plain and depthwise, and a window of 5 x 5",
    "strides": "other strides down than across, windows higher than wide",
    "pools": "averages that overlap the border, and a RESHAPE that changes the rows",
    "residual": "ADD of two branches, of one tensor with itself, and with a fused activation",
    "leftovers": "a window that leaves most rows of a wide layer unread",
    "rows": "a softmax over several rows and columns, and a RESHAPE at the end",
    "unread": "a branch whose result is not used",
    "alone": "a softmax and nothing else",
}


@functools.cache
def operator_model(kind: str) -> bytes:
    """Bytes of a `.tflite` file of one of KINDS."""
    import numpy as np
    import tensorflow as tf

    random = np.random.default_rng(1)

    def weights(*shape: int) -> Any:
        return tf.constant(random.normal(size=shape) / np.sqrt(np.prod(shape[:-1])), tf.float32)

    def bias(value: Any) -> Any:
        return value + tf.constant(random.normal(size=value.shape[-1]), tf.float32)

    def conv(value: Any, channels: int, size: Any = (3, 3), **options: Any) -> Any:
        given = {"strides": 1, "padding": "SAME", **options}
        return bias(tf.nn.conv2d(value, weights(*size, value.shape[-1], channels), **given))

    def depthwise(
        value: Any, size: Any = (3, 3), strides: Any = (1, 1), padding: str = "SAME", dilations: Any = None
    ) -> Any:
        step = (1, *strides, 1)
        return bias(
            tf.nn.depthwise_conv2d(value, weights(*size, value.shape[-1], 1), step, padding, dilations=dilations)
        )

    def scores(value: Any) -> Any:
        value = tf.nn.avg_pool2d(value, value.shape[1:3], 1, "VALID")
        return tf.nn.softmax(tf.reshape(conv(value, 7, (1, 1)), (1, 7)))

    def valid(x: Any) -> Any:
        x = tf.nn.relu(conv(x, 6, (3, 3), strides=2, padding="VALID"))
        return scores(conv(tf.nn.relu6(depthwise(x, padding="VALID", strides=(2, 2))), 5, (1, 1)))

    def dilated(x: Any) -> Any:
        x = tf.nn.relu6(conv(x, 8, dilations=2))
        x = tf.nn.relu6(depthwise(x, (5, 5)))
        return scores(conv(depthwise(x, dilations=(2, 2)), 9, (2, 2), dilations=(1, 3)))

    def strides(x: Any) -> Any:
        x = tf.nn.relu6(conv(x, 6, (5, 2), strides=(1, 2)))
        return scores(conv(tf.nn.relu6(depthwise(x, (3, 3), (2, 2))), 11, (3, 1), strides=(2, 1)))

    def pools(x: Any) -> Any:
        x = tf.nn.avg_pool2d(conv(x, 4), 3, 2, "SAME")
        x = tf.reshape(x, (1, x.shape[2] // 2, x.shape[1] * 2, 4))
        return scores(conv(tf.nn.relu6(x), 6))

    def residual(x: Any) -> Any:
        x = conv(x, 6)
        x = tf.nn.relu(x + conv(tf.nn.relu6(depthwise(tf.nn.relu6(conv(x, 12, (1, 1))))), 6, (1, 1)))
        y = conv(tf.nn.relu6(depthwise(x)), 6, (1, 1)) + x
        return scores(conv(y + x, 5, (1, 1)))

    def leftovers(x: Any) -> Any:
        x = tf.nn.relu6(conv(x, 32, (1, 1)))
        return scores(conv(x, 4, (1, 1), strides=8, padding="VALID"))

    def rows(x: Any) -> Any:
        x = tf.nn.softmax(conv(tf.nn.relu6(depthwise(x, strides=(2, 2))), 7))
        return tf.reshape(x, (1, x.shape[1] * x.shape[2], 7))

    def unread(x: Any) -> Any:
        x = conv(x, 6)
        # Two outputs, one of which `_with_one_output` removes.
        return scores(tf.nn.relu6(conv(x, 5, (1, 1)))), conv(x, 40)

    def alone(x: Any) -> Any:
        return tf.nn.softmax(x)

    network = {
        "valid": valid, "dilated": dilated, "strides": strides, "pools": pools, "residual": residual,
        "leftovers": leftovers, "rows": rows, "unread": unread, "alone": alone,
    }[kind]  # fmt: skip
    shape = (1, 50) if kind == "alone" else (1, 24, 20, 3)
    pictures = [[random.uniform(-3, 3, size=shape).astype(np.float32)] for _ in range(8)]
    function = tf.function(network, input_signature=[tf.TensorSpec(shape, tf.float32, name="picture")])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: iter(pictures)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    model: bytes = converter.convert()
    return edited(model, _with_one_output) if kind == "unread" else model


def _with_one_output(tree: Any) -> None:
    graph = tree.subgraphs[0]
    graph.outputs = [index for index in graph.outputs if len(graph.tensors[index].shape) == 2]
    tree.signatureDefs = None

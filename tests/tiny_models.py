"""Tiny models for tests, made on the spot by TensorFlow's converter in about two seconds, once in a process.

One convolution, a matrix multiplication and a softmax over pictures of 8x8x3; random weights with a fixed seed.
"""

from __future__ import annotations

import functools


@functools.cache
def tiny_model(kind: str) -> bytes:
    """Bytes of a `.tflite` file.

    Args:
        kind: `int8`; `float`; `gather`, which is int8 with an operator that the Ethos-U55 cannot run; `only gather`,
            which has no other; `batch`, which is int8 for two pictures at a time.
    """
    import numpy as np
    import tensorflow as tf

    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(3, 3, 3, 8)).astype(np.float32)
    matrix = generator.normal(size=(4 * 4 * 8, 5)).astype(np.float32)
    shape = (2 if kind == "batch" else 1, 8, 8, 3)
    pictures = [[generator.uniform(-1, 1, size=shape).astype(np.float32)] for _ in range(4)]

    def network(picture: tf.Tensor) -> tf.Tensor:
        if kind == "only gather":
            return tf.gather(picture, [3, 1, 2, 0], axis=1)
        features = tf.nn.relu6(tf.nn.conv2d(picture, kernel, 2, "SAME"))
        if kind == "gather":
            features = tf.gather(features, [3, 1, 2, 0], axis=1)
        return tf.nn.softmax(tf.reshape(features, (shape[0], -1)) @ matrix)

    function = tf.function(network, input_signature=[tf.TensorSpec(shape, tf.float32, name="picture")])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    if kind != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: iter(pictures)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    model: bytes = converter.convert()
    return model

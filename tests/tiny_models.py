"""Tiny models for tests, made by TensorFlow's converter in about two seconds, once in each process.

One convolution, a matrix multiplication and a softmax over pictures of 8x8x3; random weights with a fixed seed.
"""

from __future__ import annotations

import functools


@functools.cache
def tiny_model(kind: str, classes: int = 5) -> bytes:
    """Bytes of a `.tflite` file.

    Args:
        kind: `int8`; `float`; `gather`, which is int8 with an operator that the Ethos-U55 cannot run; `only gather`,
            which has no other operator; `batch`, which is int8 for two pictures at a time; `16x8`, of int16
            activations; `weights`, of which only the weights are int8; `ends`, with float32 input and output; `two`,
            with two inputs and two outputs; and `noise`, whose input is no picture.
    """
    import numpy as np
    import tensorflow as tf

    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(3, 3, 3, 8)).astype(np.float32)
    matrix = generator.normal(size=(4 * 4 * 8, classes)).astype(np.float32)
    shape = {"batch": (2, 8, 8, 3), "noise": (1, 8, 8, 2)}.get(kind, (1, 8, 8, 3))
    kernel = kernel[:, :, : shape[3]]
    ends = 2 if kind == "two" else 1
    pictures = [[generator.uniform(-1, 1, size=shape).astype(np.float32)] * ends for _ in range(4)]

    def network(*inputs: tf.Tensor) -> tuple[tf.Tensor, ...]:
        (picture, *others) = inputs
        if kind == "only gather":
            return (tf.gather(picture, [3, 1, 2, 0], axis=1),)
        features = tf.nn.relu6(tf.nn.conv2d(picture, kernel, 2, "SAME"))
        if kind == "gather":
            features = tf.gather(features, [3, 1, 2, 0], axis=1)
        scores = tf.nn.softmax(tf.reshape(features, (shape[0], -1)) @ matrix)
        return (scores, *(tf.nn.relu6(tf.nn.conv2d(other, kernel, 2, "SAME")) for other in others))

    signature = [
        tf.TensorSpec(shape, tf.float32, name=f"picture_{number}" if number else "picture") for number in range(ends)
    ]
    function = tf.function(network, input_signature=signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    if kind != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind not in ("float", "weights"):
        converter.representative_dataset = lambda: iter(pictures)
        wide = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [wide if kind == "16x8" else tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if kind != "ends":
            whole = tf.int16 if kind == "16x8" else tf.int8
            converter.inference_input_type = converter.inference_output_type = whole
    model: bytes = converter.convert()
    return model

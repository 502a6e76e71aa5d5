"""Converts a frozen graph to an INT8 model with an unmodified TFLiteConverter of TensorFlow 2021 or the current one.

Needs only that TensorFlow and numpy, and runs on Python 3.8; `stand_ins.py` starts it.

    python plain_convert.py '{"graph": ..., "out": ..., ...}'

The converter calibrates itself, on a representative dataset of random blocks.
"""

import json
import sys

import numpy as np
import tensorflow as tf


def pictures(shape, seed, count):
    """Pictures of square blocks in random colors: float32 (1, height, width, channels), -1 to 1."""
    generator = np.random.RandomState(seed)
    for _ in range(count):
        blocks = generator.randint(2, 10)
        colors = generator.uniform(-1, 1, (1, blocks, blocks, shape[3])).astype(np.float32)
        size = -(-shape[1] // blocks)
        yield [colors.repeat(size, axis=1).repeat(size, axis=2)[:, : shape[1], : shape[2]]]


def main(job):
    """Converts the graph and writes the model.

    Args:
        job: `graph` and `out` are paths; the other keys are the arguments of the converter.
    """
    shape = job["input_shape"]
    converter = tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(
        job["graph"], [job["input"]], [job["output"]], input_shapes={job["input"]: shape}
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: pictures(shape, job["seed"], job["pictures"])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = getattr(tf, job["io_type"])
    # TensorFlow 2.4 accepts only the private name, later versions only the public name.
    name = "experimental_new_quantizer"
    setattr(converter, name if hasattr(converter, name) else "_" + name, job["quantizer"] == "new")
    with open(job["out"], "wb") as stream:
        stream.write(converter.convert())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

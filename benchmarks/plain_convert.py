"""Runs inside a TensorFlow of 2021 (or today's): a frozen graph -> an INT8 model, as anybody publishes one.

Needs nothing but that TensorFlow and numpy, and runs on Python 3.8; `stand_ins.py` starts it.

    python plain_convert.py '{"graph": ..., "out": ..., ...}'

Nothing stands in the converter's way: it calibrates by itself, on pictures of random blocks.
"""

import json
import sys

import numpy as np
import tensorflow as tf


def pictures(shape, seed, count):
    """Blocks of 25 to 112 pixels in random colours, -1 to 1."""
    generator = np.random.RandomState(seed)
    for _ in range(count):
        blocks = generator.randint(2, 10)
        colours = generator.uniform(-1, 1, (1, blocks, blocks, shape[3])).astype(np.float32)
        size = -(-shape[1] // blocks)
        yield [colours.repeat(size, axis=1).repeat(size, axis=2)[:, : shape[1], : shape[2]]]


def main(job):
    """Converts and writes."""
    shape = job["input_shape"]
    converter = tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(
        job["graph"], [job["input"]], [job["output"]], input_shapes={job["input"]: shape}
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: pictures(shape, job["seed"], job["pictures"])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = getattr(tf, job["ends"])
    # TensorFlow 2.4 refuses the public name, and later ones the private.
    name = "experimental_new_quantizer"
    setattr(converter, name if hasattr(converter, name) else "_" + name, job["quantizer"] == "new")
    with open(job["out"], "wb") as stream:
        stream.write(converter.convert())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

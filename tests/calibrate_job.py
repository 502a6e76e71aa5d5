"""Runs inside a TensorFlow of 2021 (or today's): a frozen graph -> INT8 models calibrated on real inputs.

Nothing in TensorFlow is patched, so the models are those that a publisher would have made. The script needs only
TensorFlow and numpy, and runs on Python 3.8.

    python calibrate_job.py JOB.json
"""

import json
import sys

import numpy as np


def inputs(name, resolution):
    """The calibration set of this name: a list of inputs of shape (1, resolution, resolution, 3)."""
    generator = np.random.RandomState(sum(name.encode()))
    shape = (1, resolution, resolution, 3)
    ramp = np.linspace(-1, 1, resolution)[:, None, None] * np.ones(shape)
    cells = [generator.uniform(-1, 1, (1, resolution // 8, resolution // 8, 3)) for _ in range(3)]
    blocks = [cell.repeat(8, axis=1).repeat(8, axis=2) for cell in cells]
    dot = np.zeros(shape)
    dot[0, 5, 7, 1] = 1
    sets = {
        "one picture": blocks[:1],
        "black": [-np.ones(shape)] * 3,
        "white": [np.ones(shape)],
        "nothing": [np.zeros(shape)],
        "blocks": blocks,
        "noise": [generator.uniform(-1, 1, shape) for _ in range(2)],
        "bell": [np.clip(generator.normal(0, 0.3, shape), -1, 1) for _ in range(2)],
        "ramps": [ramp, -ramp, ramp.transpose(0, 2, 1, 3)],
        "dim": [block * 0.01 - 0.9 for block in blocks],
        "shrunk": [block * 1e-5 for block in blocks],
        "vanishing": [block * 1e-9 for block in blocks],
        "bright half": [np.abs(block) for block in blocks],
        "dark half": [-np.abs(block) for block in blocks],
        "dot": [dot],
        "levels": [(value * 255).round() for value in np.abs(blocks)],
        "huge": [block * 1e6 for block in blocks],
    }
    return [value.astype(np.float32) for value in sets[name]]


def main(job_file):
    """Writes one model for each of the job's orders."""
    with open(job_file) as stream:
        job = json.load(stream)
    import tensorflow as tf

    for order in job["orders"]:
        converter = tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(
            job["graph"], [job["input"]], [job["output"]], input_shapes={job["input"]: job["shape"]}
        )
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        values = inputs(order["calibration"], job["shape"][1])
        converter.representative_dataset = lambda values=values: ([value] for value in values)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = getattr(tf, order["input_type"])
        converter.inference_output_type = getattr(tf, order["output_type"])
        # TensorFlow 2.4 accepts only the private name, later versions only the public one.
        name = "experimental_new_quantizer"
        setattr(converter, name if hasattr(converter, name) else "_" + name, order["quantizer"] == "new")
        with open(order["model"], "wb") as stream:
            stream.write(converter.convert())


if __name__ == "__main__":
    main(sys.argv[1])

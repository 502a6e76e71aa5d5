"""Converts a frozen graph to INT8 models with the `convert()` of the TensorFlow it runs in, of 2021 or today's.

    python convert_job.py JOB.json

`recreate_model.prove.toolchain` starts this script in the toolchain's environment. It needs only TensorFlow and numpy,
runs on Python 3.8, and exchanges files with the parent process.

Only the result of the calibrator is replaced: by a model with the given activation ranges and, if an attempt has them,
the given weights and biases.
"""

import json
import sys

import numpy as np

_WEIGHTED = ("Conv2DOptions", "DepthwiseConv2DOptions")


class _NoPictures:
    """Replaces TensorFlow's calibration wrapper: it ignores its inputs and returns the edited model."""

    def __init__(self, wrapper, model):
        self._wrapper, self._model = wrapper, model

    def Prepare(self, *shapes):
        """Does nothing, as nothing is run."""

    def FeedTensor(self, *tensors):
        """Ignores a picture, which would widen the ranges."""

    def Calibrate(self):
        """The model that the new quantizer quantizes."""
        return self._model

    def QuantizeModel(self, *arguments):
        """Runs the old quantizer on the model that the wrapper was created with."""
        return self._wrapper.QuantizeModel(*arguments)


def main(job_file):
    """Runs the attempts of one job: writes one model for each, and the constants that TensorFlow folds."""
    with open(job_file) as stream:
        job = json.load(stream)
    import tensorflow as tf
    from tensorflow.lite.python.optimize import calibrator

    original = calibrator.Calibrator.__init__
    for number, attempt in enumerate(job["attempts"]):
        edits = np.load(attempt["edits"])

        def edited(self, model_content, *arguments, number=number, edits=edits, **keywords):
            tree = _parsed(model_content)
            if not number:  # the folded constants are the same for every attempt
                _save_constants(tree, job["constants"])
            model = _edited(tree, edits)
            original(self, model, *arguments, **keywords)
            self._calibrator = _NoPictures(self._calibrator, model)

        calibrator.Calibrator.__init__ = edited
        with open(attempt["model"], "wb") as stream:
            stream.write(_convert(tf, job))


def _convert(tf, job):
    shape = job["input_shape"]
    converter = tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(
        job["graph"], [job["input"]], [job["output"]], input_shapes={job["input"]: shape}
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: iter([[np.zeros(shape, np.float32)]])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = getattr(tf, job["input_type"])
    converter.inference_output_type = getattr(tf, job["output_type"])
    # TensorFlow 2.4 accepts only the private name, later versions only the public one.
    name = "experimental_new_quantizer"
    setattr(converter, name if hasattr(converter, name) else "_" + name, job["quantizer"] == "new")
    return converter.convert()


def _schema():
    from tensorflow.lite.python import schema_py_generated

    return schema_py_generated


def _parsed(data):
    schema = _schema()
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(data), 0))


def _weighted(model):
    """The buffers of weights and bias of every convolution, in the order of the operators."""
    graph = model.subgraphs[0]
    for operator in graph.operators:
        if type(operator.builtinOptions).__name__.rstrip("T") in _WEIGHTED:
            yield tuple(model.buffers[graph.tensors[index].buffer] for index in operator.inputs[1:3])


def _save_constants(model, path):
    arrays = {
        f"{what}_{index}": np.frombuffer(bytes(bytearray(buffer.data)), np.float32)
        for index, pair in enumerate(_weighted(model))
        for what, buffer in zip(("weights", "bias"), pair)
    }
    np.savez(path, **arrays)


def _edited(model, edits):
    """The bytes of the model after `edits` were applied to its object tree."""
    import flatbuffers

    graph = model.subgraphs[0]
    activations = list(graph.inputs) + [index for operator in graph.operators for index in operator.outputs]
    spans = edits["spans"]
    if len(spans) != len(activations):
        raise ValueError(f"{len(spans)} ranges for {len(activations)} activations")
    for index, span in zip(activations, spans):
        parameters = _schema().QuantizationParametersT()
        parameters.min, parameters.max = [span[0]], [span[1]]
        graph.tensors[index].quantization = parameters
    if "weights_0" in edits:
        for index, (weights, bias) in enumerate(_weighted(model)):
            for buffer, what in ((weights, "weights"), (bias, "bias")):
                buffer.data = np.frombuffer(edits[f"{what}_{index}"].tobytes(), np.uint8)
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


if __name__ == "__main__":
    main(sys.argv[1])

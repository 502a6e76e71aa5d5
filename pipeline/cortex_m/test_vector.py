"""A test vector of a model, an input and its golden output, as C arrays.

For: checking on a device that the output is bit-exact. The input is a procedural picture, so no one's photograph is
redistributed. It is generated at the model's input size, without resizing, and the output comes from the reference
kernels, so the bytes are the same on every CPU. Not for: accuracy, which one synthetic picture cannot measure.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np

from calibration.pictures import procedural
from calibration.pictures.preprocess import normalize, quantize_input
from pipeline.c_array import ALIGNMENT, ByteArray, array_source, identifier
from recreate_model.recipe import Preprocess
from recreate_model.support.arrays import Array
from recreate_model.support.errors import InputError
from recreate_model.tflite.full_integer import picture_size
from recreate_model.tflite.interpret import Runner
from recreate_model.tflite.model_view import ModelView, read_model

_SEED, _NUMBER = 0, 0
_NOISE = f"noise {_NUMBER} made from seed {_SEED}"


@dataclass(frozen=True, eq=False)
class TestVector:
    """An input and its golden output.

    Attributes:
        input: int8 (height, width, 3); another shape if the model does not take pictures.
        output: int8 (classes,), computed by LiteRT's reference kernels.
        origin: what the input was generated from.
    """

    __test__ = False  # pytest would collect it as a test class by its name

    input: Array = field(repr=False)
    output: Array = field(repr=False)
    origin: str = f"picture {_NUMBER} made from seed {_SEED}"


def golden_vector(model: bytes, name: str) -> TestVector:
    """The test vector of a model with one int8 input (1, ...) and one int8 output (1, classes).

    Raises:
        InputError: the input or output has another type or shape, or LiteRT cannot run the model.
    """
    view = read_model(model, name)
    value = input_value(view, name)
    try:
        (output,) = Runner(model, "reference").run(value)
    except RuntimeError as error:
        raise InputError(
            expected=f"LiteRT to run {name}, for its golden output", found=str(error), next_step="give another model"
        ) from error
    if output.shape != view.output.shape:
        raise InputError(
            expected=f"LiteRT to run {name}, for its golden output of shape {view.output.shape}",
            found=f"one of shape {output.shape}",
            next_step="give another model",
        )
    return TestVector(value[0], output[0]) if picture_size(view) else TestVector(value[0], output[0], _NOISE)


def input_value(view: ModelView, name: str) -> Array:
    """The test vector's input, int8 (1, ...): a procedural picture if the model takes pictures, else noise.

    Raises:
        InputError: the model does not have one int8 input (1, ...) and one int8 output (1, classes).
    """
    shape, scores, quantization = view.input.shape, view.output.shape, view.input.quantization
    # A batch larger than 1 does not fit the array of one input, even if a runtime accepts it.
    single = len(view.inputs) == len(view.outputs) == 1 and len(shape) > 1 and shape[0] == 1 and min(shape) > 0
    one_row = len(scores) == 2 and scores[0] == 1
    if not (single and one_row and view.input.dtype == view.output.dtype == "int8" and quantization):
        raise InputError(
            expected=f"{name} to have one input, int8 (1, ...), and one output, int8 (1, classes)",
            found=f"input {view.input.dtype} {shape} and output {view.output.dtype} {scores}",
            next_step="give an INT8 model with a batch of 1, or build one with `python -m pipeline quantize`",
        )
    if not picture_size(view):
        return noise(view, _NUMBER)
    pixels = procedural.picture(_SEED, _NUMBER, size=shape[1])
    value = normalize(pixels, Preprocess("squash"), shape[1])
    return quantize_input(value, quantization.scales[0], quantization.zero_points[0])


def noise(view: ModelView, number: int) -> Array:
    """Pseudorandom input for a model that takes no pictures: int8, in the input's shape, different for each number."""
    shape = view.input.shape
    # An extendable-output hash: the same bytes on every machine and with every library version.
    data = hashlib.shake_256(f"input {number} of seed {_SEED}".encode()).digest(math.prod(shape))
    return np.frombuffer(data, np.int8).reshape(shape)


def vector_sources(vector: TestVector, name: str) -> dict[str, str]:
    """`<id>_test_vector.h` and `.c`: the arrays `<id>_test_input` and `<id>_test_output`, of `signed char`.

    Define `TEST_VECTOR_SECTION` when compiling the source to place the arrays in a section.
    """
    c_name = identifier(name)
    prefix, header_name = c_name.upper(), f"{c_name}_test_vector.h"
    header = f"""\
/*
 * {c_name}: a test vector.
 *
 * input   {vector.origin}, {" x ".join(map(str, vector.input.shape))}, quantized
 * output  of LiteRT's reference kernels, the same on every CPU
 *
 * Optimized kernels need not be bit-exact with these; their output may differ by a few levels.
 *
 * Generated from the model: do not edit.
 */
#ifndef {prefix}_TEST_VECTOR_H
#define {prefix}_TEST_VECTOR_H

#ifdef __cplusplus
extern "C" {{
#endif

/* {vector.input.size} and {vector.output.size} bytes, aligned to {ALIGNMENT}. */
extern const signed char {c_name}_test_input[];
extern const signed char {c_name}_test_output[];

#ifdef __cplusplus
}}
#endif

#endif
"""
    arrays = [
        ByteArray(f"{c_name}_test_{what}", np.ascontiguousarray(values).tobytes(), "signed char")
        for what, values in (("input", vector.input), ("output", vector.output))
    ]
    return {header_name: header, f"{c_name}_test_vector.c": array_source(header_name, arrays, "TEST_VECTOR")}

"""Our ranges compared with those of TensorFlow's calibrator, value by value, for tests and a benchmark.

The two run different kernels, which add in different orders. So their values differ in the last bits, and a value near
a boundary between two rounded values may be rounded to either of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from calibration.ranges.range_table import round_mantissa
from recreate_model.quantize import convert
from recreate_model.support.arrays import Array
from recreate_model.tflite.model_view import read_model

MANTISSA_BITS = 10
# Relative distance to a boundary within which the last bits may decide: kernels were seen to differ by 1.1e-5, and 98
# of 100 values are farther from a boundary. Leaving out a picture changes ranges by 0.02 and more.
BOUNDARY = 2e-5
# A softmax is the exponential of its input, so an absolute error of the input becomes a relative error of the softmax.
# Inputs of up to 30 were seen to differ by 3e-6 of their value, and the softmax by 9e-5.
SOFTMAX_BOUNDARY = 2e-4


@dataclass(frozen=True)
class Agreement:
    """Two values, minimum and maximum, of each activation: ours against the calibrator's.

    Attributes:
        values: how many there are.
        same_bits: how many are equal before they are rounded.
        near: those within `BOUNDARY` of a rounding boundary (of the softmax, `SOFTMAX_BOUNDARY`).
        near_and_different: those of them that are rounded to different values.
        different: all others that differ once rounded; each is named with both values.
        widened: residual inputs, whose range the calibrator joins with that of the sum, that become wider by it.
        widest: the largest factor by which one of them becomes wider.
    """

    values: int
    same_bits: int
    near: tuple[str, ...]
    near_and_different: tuple[str, ...]
    different: tuple[str, ...]
    widened: int
    widest: float


def calibrated(float_model: bytes, inputs: Iterable[Array]) -> Array:
    """What TensorFlow's calibrator measures, float32 (activations, 2), in the order of `convert.activations`."""
    from ai_edge_litert import schema_py_generated as schema
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    model = Calibrator(float_model).calibrate(lambda: ([value] for value in inputs))
    tensors = schema.ModelT.InitFromPackedBuf(model, 0).subgraphs[0].tensors
    found = (tensors[index].quantization for index in convert.activations(float_model).values())
    return np.array([(span.min[0], span.max[0]) for span in found], np.float32)


def residual_inputs(float_model: bytes) -> dict[int, int]:
    """Of each residual addition, the row of its first input and that of its sum."""
    view = read_model(float_model)
    rows = {index: row for row, index in enumerate(convert.activations(float_model).values())}
    return {rows[op.inputs[0]]: rows[op.outputs[0]] for op in view.operators if op.name == "ADD"}


def as_tensorflow_reports(float_model: bytes, spans: Array) -> Array:
    """True ranges as the calibrator reports them: it reads a residual input again when the sum has overwritten it."""
    reported = spans.copy()
    for residual, total in residual_inputs(float_model).items():
        reported[residual, 0] = spans[[residual, total], 0].min()
        reported[residual, 1] = spans[[residual, total], 1].max()
    return reported


def compare(float_model: bytes, ours: Array, theirs: Array) -> Agreement:
    """Compares true ranges with the calibrator's, both float32 (activations, 2) and not rounded."""
    reported = as_tensorflow_reports(float_model, ours)
    view = read_model(float_model)
    softmax = {index for op in view.operators if op.name == "SOFTMAX" for index in op.outputs}
    near, near_and_different, different = [], [], []
    for row, (name, index) in enumerate(convert.activations(float_model).items()):
        bound = SOFTMAX_BOUNDARY if index in softmax else BOUNDARY
        for column, which in enumerate(("minimum", "maximum")):
            our, their = reported[row, column], theirs[row, column]
            said = f"{which} of {name}: {our} here, {their} there"
            equal = round_mantissa(our, MANTISSA_BITS) == round_mantissa(their, MANTISSA_BITS)
            if _to_boundary(our) <= bound:
                near.append(said)
                if not equal:
                    near_and_different.append(said)
            elif not equal:
                different.append(said)
    rows = list(residual_inputs(float_model))
    wider = np.ptp(theirs[rows], axis=1) / np.ptp(ours[rows], axis=1)
    return Agreement(
        values=ours.size,
        same_bits=int((reported == theirs).sum()),
        near=tuple(near),
        near_and_different=tuple(near_and_different),
        different=tuple(different),
        widened=int((wider > 1 + BOUNDARY).sum()),
        widest=float(wider.max()),
    )


def _to_boundary(value: np.float32) -> float:
    """Relative distance of a value to the nearest rounding boundary; 1 for zero, which is far from all."""
    mantissa = abs(float(np.frexp(value)[0])) * 2**MANTISSA_BITS
    return abs(mantissa % 1 - 0.5) / mantissa if mantissa else 1.0

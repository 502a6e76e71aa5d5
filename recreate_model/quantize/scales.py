"""Output scales and zero points that calibration does not determine.

The kernel of such an operator has a fixed output scale, or requires the output scale to equal the input scale. With
another scale the kernel rejects the model or computes something else. The operators are those of TensorFlow Lite's
8-bit quantization specification.
"""

from __future__ import annotations

from recreate_model.tflite.model_view import ModelView, Operator, Quantization

_OMITTED = -1  # index of an optional tensor that is omitted
# Operators with a fixed output scale, such as 1/256 for SOFTMAX and LOGISTIC.
_FIXED = ("L2_NORMALIZATION", "LOGISTIC", "LOG_SOFTMAX", "SOFTMAX", "TANH")
# Operators that copy, select or average values -> position of the input whose scale their output has.
_SAME_AS_INPUT = {
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), 0),
    **dict.fromkeys(("BATCH_TO_SPACE_ND", "DEPTH_TO_SPACE", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH"), 0),
    **dict.fromkeys(("EXPAND_DIMS", "RESHAPE", "SQUEEZE", "TRANSPOSE", "TILE"), 0),
    **dict.fromkeys(("GATHER", "MIRROR_PAD", "PAD", "SLICE", "SPLIT_V", "STRIDED_SLICE", "UNPACK"), 0),
    "SPLIT": 1,
}


def prescribed_difference(one: tuple[ModelView, Operator], two: tuple[ModelView, Operator]) -> str:
    """Return how two operators of one kind differ in a prescribed output scale or zero point; empty if they agree."""
    name = one[1].name
    outputs = [_quantizations(view, operator.outputs) for view, operator in (one, two)]
    if name in _FIXED and outputs[0] != outputs[1]:
        return f"scale and zero point of its output, which {name} fixes"
    if name in _SAME_AS_INPUT:
        position = _SAME_AS_INPUT[name]
        inputs = [_quantizations(view, operator.inputs[position:][:1]) for view, operator in (one, two)]
        # If both outputs equal their inputs, any difference is one of the inputs' ranges.
        equal = all(set(after) <= set(before) for before, after in zip(inputs, outputs, strict=True))
        if not equal and (inputs[0], outputs[0]) != (inputs[1], outputs[1]):
            return f"scale and zero point of its output, which {name} takes from its input"
    return ""


def _quantizations(view: ModelView, indices: tuple[int, ...]) -> tuple[Quantization | None, ...]:
    return tuple(view.tensors[index].quantization for index in indices if index != _OMITTED)

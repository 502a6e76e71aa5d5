"""Quantisation that an operator does not leave to calibration: its kernel has it built in, or takes that of the input.

Another scale there is no other range: the kernel refuses the model, or computes something else. The operators are those
of TensorFlow Lite's 8-bit quantisation specification. Not for: whether the scale is the right one.
"""

from __future__ import annotations

from recreate_model.tflite.model_view import ModelView, Operator, Quantisation

_LEFT_OUT = -1
# Operators with a scale of their own: 1/256 for SOFTMAX and LOGISTIC, for instance.
_FIXED = ("L2_NORMALIZATION", "LOGISTIC", "LOG_SOFTMAX", "SOFTMAX", "TANH")
# Operators that only move numbers, or pick or average them -> position of the operand whose scale they keep.
_KEPT = {
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), 0),
    **dict.fromkeys(("BATCH_TO_SPACE_ND", "DEPTH_TO_SPACE", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH"), 0),
    **dict.fromkeys(("EXPAND_DIMS", "RESHAPE", "SQUEEZE", "TRANSPOSE", "TILE"), 0),
    **dict.fromkeys(("GATHER", "MIRROR_PAD", "PAD", "SLICE", "SPLIT_V", "STRIDED_SLICE", "UNPACK"), 0),
    "SPLIT": 1,
}


def bound(one: tuple[ModelView, Operator], two: tuple[ModelView, Operator]) -> str:
    """What two operators of one kind do not agree in, of the scales that are not theirs to choose; empty if nothing."""
    name = one[1].name
    outputs = [_all(view, operator.outputs) for view, operator in (one, two)]
    if name in _FIXED and outputs[0] != outputs[1]:
        return f"scale and zero point of its output, which {name} fixes"
    if name in _KEPT:
        inputs = [_all(view, operator.inputs[_KEPT[name] :][:1]) for view, operator in (one, two)]
        # Where both outputs have what their inputs have, a difference is one of the input's range.
        kept = all(set(behind) <= set(before) for before, behind in zip(inputs, outputs, strict=True))
        if not kept and (inputs[0], outputs[0]) != (inputs[1], outputs[1]):
            return f"scale and zero point of its output, which {name} takes from its input"
    return ""


def _all(view: ModelView, indices: tuple[int, ...]) -> tuple[Quantisation | None, ...]:
    return tuple(view.tensors[index].quantisation for index in indices if index != _LEFT_OUT)

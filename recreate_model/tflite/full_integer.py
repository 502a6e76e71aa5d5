"""Whether an INT8 model computes in whole numbers from its input to its output, as every deployable here needs it.

For: saying in one line what else a file is. Not for: whether a runtime has the operators; each says that itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from recreate_model.support.errors import InputError
from recreate_model.tflite.model_view import ModelView, Tensor

# How far the ends of an input's range may be off -1 and 1. Ranges of pictures that were cut at their outliers, or whose
# levels are rounded, are within a few hundredths; 0..1 and 0..255, the other usual ones, are off by one or more.
_OFF = 0.1
_NEXT = "give a full-integer INT8 model, or make one with `python -m pipeline all`"


def check_full_integer(view: ModelView, source: str) -> None:
    """Refuses a model that is not full-integer INT8.

    Args:
        source: what to call the file in the error.

    Raises:
        InputError: a float, dynamic-range, uint8 or 16x8 model, one with an end that has no scale, or with none.
    """
    if found := _otherwise(view):
        raise InputError(
            expected=f"{source} to be a full-integer INT8 model", found=found, done="it was not used", next_step=_NEXT
        )


def _otherwise(view: ModelView) -> str:
    """What the model is, where it is something else; empty where it is full-integer INT8."""
    ends = [view.tensors[index] for index in (*view.inputs, *view.outputs)]
    if not view.inputs or not view.outputs:
        return "a model without an input or an output"
    produced = {index for operator in view.operators for index in operator.outputs}
    computed = [view.tensors[index] for index in sorted({*view.inputs, *produced} - {-1})]
    if wide := _first(computed, "int16"):
        return f"a 16x8 model: int16 in tensor {wide.name!r}"
    if unsigned := _first([*ends, *view.tensors], "uint8"):
        return f"a uint8 model, as TensorFlow quantised per tensor before 2020: uint8 in tensor {unsigned.name!r}"
    floating = next((tensor for tensor in computed if tensor.dtype.startswith(("float", "bfloat"))), None)
    if floating:
        whole = [tensor for tensor in view.tensors if tensor.dtype == "int8"]
        kind = "a float model"
        if any(tensor in whole for tensor in computed):
            kind = "an INT8 model with float32 ends or operators"
        elif whole:
            kind = "a dynamic-range model, of which only the weights are int8"
        return f"{kind}: {floating.dtype} in tensor {floating.name!r}"
    for tensor in ends:
        scaled = tensor.quantisation
        if tensor.dtype != "int8" or scaled is None or len(scaled.scales) != 1:
            scales = len(scaled.scales) if scaled else 0
            return f"{tensor.dtype} with {scales} scales in tensor {tensor.name!r}, which is an input or an output"
    return ""


def _first(tensors: list[Tensor], dtype: str) -> Tensor | None:
    return next((tensor for tensor in tensors if tensor.dtype == dtype), None)


def picture_size(view: ModelView) -> int:
    """Height and width in pixels of a model's input, (1, size, size, 3); 0 where it takes something else."""
    shape = view.input.shape
    square = len(view.inputs) == 1 and len(shape) == 4 and shape == (1, shape[1], shape[1], 3)
    return max(0, shape[1]) if square else 0


def picture_fault(view: ModelView) -> str:
    """Why a model's input is not a picture as this program prepares one: square, RGB, scaled to -1..1; or empty."""
    quantisation = view.input.quantisation
    if not picture_size(view) or quantisation is None:
        return described(view, view.inputs)
    (scale,), (zero_point,) = quantisation.scales, quantisation.zero_points
    low, high = (scale * (level - zero_point) for level in (-128, 127))
    if max(abs(low + 1), abs(high - 1)) > _OFF:
        return f"one of {low:.3g} to {high:.3g}"
    return ""


def described(view: ModelView, indices: Sequence[int]) -> str:
    """Type and shape of each of a model's inputs or outputs."""
    return ", ".join(f"{view.tensors[index].dtype} {view.tensors[index].shape}" for index in indices)

"""Check that a model is full-integer INT8, from input to output, as all generated deployables require.

The error says what else the file is. Whether a runtime supports the operators is not checked here; each platform does.
"""

from __future__ import annotations

from collections.abc import Sequence

from recreate_model.support.errors import InputError
from recreate_model.tflite.model_view import ModelView, Tensor

# Tolerance for an input range of -1..1. Clipped outliers or rounded levels change it by a few hundredths; the other
# usual ranges, 0..1 and 0..255, differ by 1 or more.
_TOLERANCE = 0.1
_NEXT = "give a full-integer INT8 model, or make one with `python -m pipeline all`"


def check_full_integer(view: ModelView, source: str) -> None:
    """Check that a model is full-integer INT8.

    Args:
        view: the model.
        source: name of the file in the error message.

    Raises:
        InputError: the model is float, dynamic-range, uint8 or 16x8, it has no input or no output, or an input or
            output without a scale.
    """
    if found := _other_kind(view):
        raise InputError(
            expected=f"{source} to be a full-integer INT8 model", found=found, done="it was not used", next_step=_NEXT
        )


def _other_kind(view: ModelView) -> str:
    """Return what kind of model it is; empty if it is full-integer INT8."""
    inputs_and_outputs = [view.tensors[index] for index in (*view.inputs, *view.outputs)]
    if not view.inputs or not view.outputs:
        return "a model without an input or an output"
    produced = {index for operator in view.operators for index in operator.outputs}
    computed = [view.tensors[index] for index in sorted({*view.inputs, *produced} - {-1})]
    if wide := _first(computed, "int16"):
        return f"a 16x8 model: int16 in tensor {wide.name!r}"
    if unsigned := _first([*inputs_and_outputs, *view.tensors], "uint8"):
        return f"a uint8 model, quantized per tensor as by TensorFlow before 2020: uint8 in tensor {unsigned.name!r}"
    floating = next((tensor for tensor in computed if tensor.dtype.startswith(("float", "bfloat"))), None)
    if floating:
        int8 = [tensor for tensor in view.tensors if tensor.dtype == "int8"]
        kind = "a float model"
        if any(tensor in int8 for tensor in computed):
            kind = "an INT8 model with float32 inputs, outputs or operators"
        elif int8:
            kind = "a dynamic-range model, in which only the weights are int8"
        return f"{kind}: {floating.dtype} in tensor {floating.name!r}"
    for tensor in inputs_and_outputs:
        quantization = tensor.quantization
        if tensor.dtype != "int8" or quantization is None or len(quantization.scales) != 1:
            scales = len(quantization.scales) if quantization else 0
            return f"{tensor.dtype} with {scales} scales in the input or output tensor {tensor.name!r}"
    return ""


def _first(tensors: list[Tensor], dtype: str) -> Tensor | None:
    return next((tensor for tensor in tensors if tensor.dtype == dtype), None)


def picture_size(view: ModelView) -> int:
    """Return the height and width in pixels of a model's input (1, size, size, 3); 0 for any other input."""
    shape = view.input.shape
    square = len(view.inputs) == 1 and len(shape) == 4 and shape == (1, shape[1], shape[1], 3)
    return max(0, shape[1]) if square else 0


def picture_fault(view: ModelView) -> str:
    """Return why a model's input is not a square RGB image in -1..1, as this program prepares; empty if it is one."""
    quantization = view.input.quantization
    if not picture_size(view) or quantization is None:
        return described(view, view.inputs)
    (scale,), (zero_point,) = quantization.scales, quantization.zero_points
    low, high = (scale * (level - zero_point) for level in (-128, 127))
    if max(abs(low + 1), abs(high - 1)) > _TOLERANCE:
        return f"an input range of {low:.3g} to {high:.3g}"
    return ""


def described(view: ModelView, indices: Sequence[int]) -> str:
    """Return type and shape of the tensors with these indices, for a message."""
    return ", ".join(f"{view.tensors[index].dtype} {view.tensors[index].shape}" for index in indices)

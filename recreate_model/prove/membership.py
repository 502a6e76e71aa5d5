"""Checks which MobileNetV2 variant (width and resolution) a model file is, by its operators and shapes."""

from __future__ import annotations

from recreate_model.network import architecture
from recreate_model.network.spec import Model
from recreate_model.prove.channels import convolutions
from recreate_model.prove.recover import network_operators
from recreate_model.support.errors import InputError
from recreate_model.tflite.model_view import ModelView

_HEAD = ["AVERAGE_POOL_2D", "CONV_2D", "RESHAPE", "SOFTMAX"]

Convolution = tuple[bool, tuple[int, ...]]  # whether it is depthwise, and the shape of its weights in a checkpoint


def check_member(view: ModelView, model: Model, source: str) -> None:
    """Checks that a file has the operators and shapes of a MobileNetV2 variant, in order.

    Args:
        source: name of the file for error messages.

    Raises:
        InputError: it does not; the error names the variant it is, or the first operator or shape that differs.
    """
    fault = _fault(view, model)
    if fault is None:
        return
    other = next((variant for variant in Model.family() if _fault(view, variant) is None), None)
    raise InputError(
        expected=f"{source} to be a quantized {model.name}",
        found=f"a {other.name}" if other else fault,
        next_step=f"give --model {other.width}_{other.resolution} and its checkpoint"
        if other
        else "give a MobileNetV2 converted from a frozen graph with batch size 1",
    )


def _fault(view: ModelView, model: Model) -> str | None:
    """The first difference from the variant; None if there is none."""
    if len(view.inputs) != 1 or len(view.outputs) != 1:
        return f"{len(view.inputs)} inputs and {len(view.outputs)} outputs"
    names = [operator.name for operator in network_operators(view)]
    wanted_names = _operators(model)
    for number, (name, wanted) in enumerate(zip(names, wanted_names, strict=False)):
        if name != wanted:
            return f"{name} instead of {wanted} as operator {number}"
    if len(names) != len(wanted_names):
        return f"{len(names)} operators instead of {len(wanted_names)}"
    for operator in view.operators:
        if not operator.inputs or min(operator.inputs) < 0 or len(operator.outputs) != 1:
            return f"a {operator.name} with inputs {operator.inputs} and outputs {operator.outputs}"
    for number, (shape, layer) in enumerate(zip(_shapes(view), architecture.layers(model), strict=True)):
        if shape != (layer.depthwise, layer.weights_shape):
            return f"weights of shape {shape[1]} instead of {layer.weights_shape} in convolution {number}"
    if view.input.shape != (1, model.resolution, model.resolution, 3):
        return f"an input of shape {view.input.shape}"
    return None


def _operators(model: Model) -> list[str]:
    names = []
    for layer in architecture.layers(model)[:-1]:
        names.append("DEPTHWISE_CONV_2D" if layer.depthwise else "CONV_2D")
        if layer.residual:
            names.append("ADD")
    return names + _HEAD


def _shapes(view: ModelView) -> list[Convolution]:
    result = []
    for operator in convolutions(view):
        shape = view.tensors[operator.inputs[1]].shape if len(operator.inputs) == 3 else ()
        depthwise = operator.name == "DEPTHWISE_CONV_2D"
        if len(shape) == 4:
            shape = (*shape[1:], 1) if depthwise else (*shape[1:], shape[0])
        result.append((depthwise, shape))
    return result

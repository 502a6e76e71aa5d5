"""Compares a model's operators with the documented support of LiteRT's GPU delegate, if the delegate cannot run.

For: an assessment without a device. Not for: replacing a run, because a version of the delegate may differ from its
documentation.

Sources, read in 2026:

- the list of operators, and that the delegate runs 8-bit models in floating point:
  https://ai.google.dev/edge/litert/performance/gpu
- that the Android libraries accept quantized models by default: https://ai.google.dev/edge/litert/android/gpu_native
- the conditions on options, types and operands, from the delegate's source code:
  https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/tools/versioning/gpu_compatibility.cc and
  .../tensorflow/lite/delegates/gpu/common/model_builder_helper.cc (one scale for an activation, int8 or uint8)
"""

from __future__ import annotations

from collections.abc import Iterator

from recreate_model.tflite.model_view import ModelView, Operator, Tensor

# fmt: off
DOCUMENTED = frozenset({
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "EXP", "FULLY_CONNECTED",
    "LOGICAL_AND", "LOGISTIC", "LSTM", "MAX_POOL_2D", "MAXIMUM", "MINIMUM", "MUL", "PAD", "PRELU", "RELU", "RELU6",
    "RESHAPE", "RESIZE_BILINEAR", "SOFTMAX", "STRIDED_SLICE", "SUB", "TRANSPOSE_CONV",
})
# fmt: on
# The operators whose conditions are checked here: all of MobileNetV2.
_CHECKED = frozenset({"ADD", "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "RESHAPE", "SOFTMAX"})
_ACTIVATIONS = frozenset({"NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH"})
_ACTIVATION_TYPES = frozenset({"float32", "float16", "int8", "uint8"})


def unsupported(view: ModelView) -> tuple[str, ...]:
    """The operators outside the documented support, in file order, one message for each."""
    found = []
    for number, operator in enumerate(view.operators):
        if faults := list(_faults(view, operator)):
            found.append(f"operator {number} {operator.custom_code or operator.name}: {', '.join(faults)}")
    return tuple(found)


def _faults(view: ModelView, operator: Operator) -> Iterator[str]:
    if operator.name not in DOCUMENTED:
        yield "not on the list"
        return
    if operator.name not in _CHECKED:
        yield "on the list, but its conditions are not known here"
        return
    inputs = [view.tensors[index] for index in operator.inputs if index >= 0]
    outputs = [view.tensors[index] for index in operator.outputs]
    variable = [tensor for tensor in inputs if not tensor.data]
    for tensor in (*variable, *outputs):
        yield from _activation_faults(tensor)
    options = operator.options
    if (activation := options.get("fused_activation_function", "NONE")) not in _ACTIVATIONS:
        yield f"fused {activation}"
    sizes = {key: value for key, value in options.items() if key.startswith(("stride", "dilation", "filter"))}
    yield from (f"{key} {value}" for key, value in sizes.items() if value <= 0)
    if operator.name == "SOFTMAX" and options["beta"] != 1:
        yield f"beta {options['beta']:g}"
    if operator.name == "ADD" and (len(inputs) != 2 or len({tensor.shape for tensor in inputs}) != 1):
        yield "operands of two shapes"
    if operator.name == "DEPTHWISE_CONV_2D" and options["depth_multiplier"] != 1 and inputs[0].shape[-1] != 1:
        yield f"depth multiplier {options['depth_multiplier']}"
    if operator.name != "ADD" and len(variable) != 1:
        yield f"{len(variable)} operands that are no constants"


def _activation_faults(tensor: Tensor) -> Iterator[str]:
    if tensor.dtype not in _ACTIVATION_TYPES:
        yield f"an activation of {tensor.dtype}"
    elif tensor.dtype in ("int8", "uint8") and (tensor.quantization is None or len(tensor.quantization.scales) != 1):
        yield "an 8-bit activation without one scale"

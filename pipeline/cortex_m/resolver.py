"""The operator resolver of TensorFlow Lite Micro for one model, derived from the file.

For: registering only the operators in use, because each one links its kernel into the firmware. Not for: whether TFLM
supports them for the model's types (`tflm` runs the model to find out). The table has the operators of image networks
and the method names of `tensorflow/lite/micro/micro_mutable_op_resolver.h`; any other operator is refused by name.
"""

from __future__ import annotations

from pipeline.c_array import identifier
from recreate_model.support.errors import InputError
from recreate_model.tflite.model_view import ModelView

_METHODS = {
    "ADD": "AddAdd",
    "ARG_MAX": "AddArgMax",
    "AVERAGE_POOL_2D": "AddAveragePool2D",
    "CONCATENATION": "AddConcatenation",
    "CONV_2D": "AddConv2D",
    "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
    "DEQUANTIZE": "AddDequantize",
    "FULLY_CONNECTED": "AddFullyConnected",
    "HARD_SWISH": "AddHardSwish",
    "LEAKY_RELU": "AddLeakyRelu",
    "LOGISTIC": "AddLogistic",
    "MAX_POOL_2D": "AddMaxPool2D",
    "MEAN": "AddMean",
    "MUL": "AddMul",
    "PAD": "AddPad",
    "PADV2": "AddPadV2",
    "QUANTIZE": "AddQuantize",
    "RELU": "AddRelu",
    "RELU6": "AddRelu6",
    "RESHAPE": "AddReshape",
    "RESIZE_BILINEAR": "AddResizeBilinear",
    "RESIZE_NEAREST_NEIGHBOR": "AddResizeNearestNeighbor",
    "SOFTMAX": "AddSoftmax",
    "SQUEEZE": "AddSqueeze",
    "STRIDED_SLICE": "AddStridedSlice",
    "SUB": "AddSub",
    "TANH": "AddTanh",
    "TRANSPOSE": "AddTranspose",
    "TRANSPOSE_CONV": "AddTransposeConv",
}


def resolver_header(view: ModelView, name: str) -> str:
    """The text of `<id>_ops.h`, for C++: `<id>_add_operators` registers the model's `<ID>_OPERATORS` operators.

    Raises:
        InputError: the model has an operator that is not in the table.
    """
    c_name, prefix = identifier(name), identifier(name).upper()
    methods = _methods(view, name)
    calls = "\n".join(f"  if (resolver.{method}() != kTfLiteOk) return kTfLiteError;" for method in methods)
    return f"""\
// {c_name}: its operators, for TensorFlow Lite Micro.
//
// Generated from the model: do not edit.
#ifndef {prefix}_OPS_H
#define {prefix}_OPS_H

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

#define {prefix}_OPERATORS {len(methods)}

// Registers these operators only. A larger resolver has room for the operators of other models.
template <unsigned int kOperators = {prefix}_OPERATORS>
TfLiteStatus {c_name}_add_operators(tflite::MicroMutableOpResolver<kOperators>& resolver) {{
{calls}
  return kTfLiteOk;
}}

#endif
"""


def _methods(view: ModelView, name: str) -> list[str]:
    missing = [operator for operator in view.operators if operator.name not in _METHODS]
    if missing:
        names = dict.fromkeys(f"{operator.name} {operator.custom_code}".strip() for operator in missing)
        raise InputError(
            expected=f"every operator of {name} to be in the table of TensorFlow Lite Micro operators",
            found=", ".join(names),
            next_step="give a model without it, or add it to pipeline/cortex_m/resolver.py if TFLM supports it",
        )
    return [_METHODS[operator] for operator in view.operator_names]

"""Derives every scale, weight and bias of an INT8 model again from its float model, independently of TensorFlow.

The formulas are those of TensorFlow's quantizer in its own precision, so values must agree exactly. The formulas were
checked against it: of 3.4 million weights, 18,000 biases and 67 activations, none differs.

Not for: making a model (`convert` does that with TensorFlow), or finding ranges that are not recorded (`recover`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recreate_model.prove.channels import by_channel, values_of
from recreate_model.prove.recover import CONVOLUTIONS
from recreate_model.quantize.convert import activation_name
from recreate_model.quantize.quantizer import (
    LARGEST_WEIGHT,
    SMALLEST_HALF_RANGE,
    SOFTMAX,
    WITHOUT_RANGE,
    Generation,
    activation_parameters,
    parameters_of,
    scales_of,
    symmetric,
)
from recreate_model.support.arrays import Array
from recreate_model.tflite.model_view import ModelView, Operator, Tensor

_LARGEST_BIAS = 2**30 - 1  # half of the largest int32, rounded down


@dataclass(frozen=True)
class Agreement:
    """How many of `total` values are as expected, and the name of the first tensor with another value, or empty."""

    matching: int
    total: int
    first_other: str

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.matching + other.matching, self.total + other.total, self.first_other or other.first_other
        )


_OTHER_OPERATORS = Agreement(0, 1, "the operators, which are not those of the float model")


@dataclass(frozen=True)
class Rederivation:
    """The agreement for each kind of value. Channels whose weights are all zero are not counted."""

    activations: Agreement
    weights: Agreement
    biases: Agreement


def rederive(float_model: ModelView, int8_model: ModelView, spans: Mapping[str, tuple[float, float]]) -> Rederivation:
    """Compares every scale, weight and bias of an INT8 model with the value derived from float model and ranges.

    Args:
        float_model: the float model with BatchNorm folded.
        spans: activation name -> (minimum, maximum) in real units, as for `convert.quantize`.
    """
    weights = biases = Agreement(0, 0, "")
    activations = rederive_activations(float_model, int8_model, spans, Generation.TODAY)
    if activations == _OTHER_OPERATORS:
        return Rederivation(_OTHER_OPERATORS, _OTHER_OPERATORS, _OTHER_OPERATORS)
    for given, made in zip(float_model.operators, int8_model.operators, strict=True):
        if given.name in CONVOLUTIONS:
            for_weights, for_biases = _convolution(float_model, int8_model, given, made)
            weights, biases = weights + for_weights, biases + for_biases
    return Rederivation(activations, weights, biases)


def rederive_activations(
    float_model: ModelView, int8_model: ModelView, spans: Mapping[str, tuple[float, float]], generation: Generation
) -> Agreement:
    """Compares only the scale and zero point of every activation; `spans` as for `rederive`."""
    names = [[operator.name for operator in view.operators] for view in (float_model, int8_model)]
    if names[0] != names[1]:
        return _OTHER_OPERATORS
    expected = activation_parameters(*spans[activation_name(float_model.input.name)], generation)
    agreement = _matches(int8_model.input, expected)
    for given, made in zip(float_model.operators, int8_model.operators, strict=True):
        agreement += _activation(float_model, int8_model, given, made, spans, generation)
    return agreement


def _activation(
    float_model: ModelView,
    int8_model: ModelView,
    given: Operator,
    made: Operator,
    spans: Mapping[str, tuple[float, float]],
    generation: Generation,
) -> Agreement:
    source, result = (int8_model.tensors[index] for index in (made.inputs[0], made.outputs[0]))
    expected: tuple[float, int] | None
    if given.name == "SOFTMAX":
        expected = SOFTMAX
    elif given.name in WITHOUT_RANGE:
        expected = parameters_of(source)
    else:
        span = spans[activation_name(float_model.tensors[given.outputs[0]].name)]
        expected = activation_parameters(*span, generation)
    return _matches(result, expected)


def _matches(tensor: Tensor, expected: tuple[float, int] | None) -> Agreement:
    same = parameters_of(tensor) == expected
    return Agreement(int(same), 1, "" if same else tensor.name)


def _convolution(
    float_model: ModelView, int8_model: ModelView, given: Operator, made: Operator
) -> tuple[Agreement, Agreement]:
    source = int8_model.tensors[made.inputs[0]]
    given_weights, given_biases = (float_model.tensors[index] for index in given.inputs[1:3])
    weight_tensor, bias_tensor = (int8_model.tensors[index] for index in made.inputs[1:3])
    weights, biases = by_channel(values_of(given_weights), given), values_of(given_biases)
    scales = scales_of(weight_tensor)
    expected = ("int8", "int32", given_weights.shape, given_biases.shape, len(weights))
    if expected != (weight_tensor.dtype, bias_tensor.dtype, weight_tensor.shape, bias_tensor.shape, len(scales)):
        return Agreement(0, weights.size, weight_tensor.name), Agreement(0, biases.size, bias_tensor.name)
    largest = np.abs(weights).max(axis=1)
    input_scale, _ = parameters_of(source) or (0.0, 0)
    expected_scales, bias_scales = _scales(largest, biases, input_scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        same_scale = scales == expected_scales
        same = by_channel(values_of(weight_tensor), made) == symmetric(weights, scales[:, None])
    same_biases = (values_of(bias_tensor) == symmetric(biases, bias_scales)) & (scales_of(bias_tensor) == bias_scales)
    nonzero = largest > 0
    return (
        _agreement((same & same_scale[:, None])[nonzero], weight_tensor),
        _agreement(same_biases[nonzero], bias_tensor),
    )


def _scales(largest: Array, biases: Array, input_scale: float) -> tuple[Array, Array]:
    """The scales of weights and biases, float32 (channels,).

    Training leaves some channels whose weights are far smaller than their bias. The quantizer has a smallest weight
    range (1e-6), and raises a weight scale until the bias is at most half of the int32 range.

    Args:
        largest: the largest absolute weight of each channel, float32 (channels,).
        biases: float32 (channels,), in real units.
    """
    scales = np.maximum(largest, np.float32(SMALLEST_HALF_RANGE)) / np.float32(LARGEST_WEIGHT)
    bias_scales = scales * np.float32(input_scale)
    magnitude = np.abs(biases).astype(np.float64)
    too_small = magnitude / (scales.astype(np.float64) * input_scale) >= _LARGEST_BIAS
    raised = magnitude / _LARGEST_BIAS
    return (
        np.where(too_small, (raised / input_scale).astype(np.float32), scales),
        np.where(too_small, raised.astype(np.float32), bias_scales),
    )


def _agreement(same: Array, tensor: Tensor) -> Agreement:
    return Agreement(int(same.sum()), same.size, "" if same.all() else tensor.name)

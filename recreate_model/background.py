"""The class that Keras' networks do not have: 0, the background, in front of ImageNet's 1000."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recreate_model import network
from recreate_model.channels import channels, convolutions
from recreate_model.model_view import ModelView
from recreate_model.network import CLASSES, Array
from recreate_model.recipe import Model

# How many classes a file may have; of one fewer, the background is missing.
CLASSES_READ = (CLASSES - 1, CLASSES)


def with_background(weights: Array, bias: Array) -> tuple[Array, Array]:
    """A classifier with class 0 in front, which sees nothing: weights of zero, and the smallest of the other biases.

    A class that is further below the others would widen the range of the scores, and make their levels coarser.

    Args:
        weights: float32 (1, 1, inputs, 1000).
        bias: float32 (1000,).

    Returns:
        Both for 1001 classes.
    """
    padded = np.concatenate([np.zeros((*weights.shape[:3], 1), np.float32), weights], axis=3)
    return padded, np.concatenate([bias.min(keepdims=True), bias])


def with_background_of(values: Mapping[str, Array], model: Model, view: ModelView) -> dict[str, Array]:
    """The variables with class 0 of an INT8 model, dequantised; as they are where that one sees nothing.

    Args:
        values: of all 1001 classes.
        view: an INT8 model of the same network, as `membership.check_member` holds it.
    """
    classifier = network.layers(model)[-1]
    found = channels(view, convolutions(view)[-1])
    if found is None or not found.weights[0].any():
        return dict(values)
    weights, bias = (values[name].copy() for name in classifier.variables)
    weights[0, 0, :, 0] = found.weights[0] * found.scales[0]
    bias[0] = found.bias[0] * found.bias_scales[0].astype(np.float64)
    return {**values, **dict(zip(classifier.variables, (weights, bias), strict=True))}

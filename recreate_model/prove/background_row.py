"""Takes class 0, the background, from an INT8 model, for float weights of 1000 classes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recreate_model.network import architecture
from recreate_model.network.spec import Model
from recreate_model.prove.channels import channels, convolutions
from recreate_model.support.arrays import Array
from recreate_model.tflite.model_view import ModelView


def with_background_of(values: Mapping[str, Array], model: Model, view: ModelView) -> dict[str, Array]:
    """The variables with the weights and bias of class 0 replaced by those of an INT8 model, dequantized.

    If all weights of class 0 in the INT8 model are zero, the variables are returned unchanged.

    Args:
        values: variables for 1001 classes, as in `checkpoint.FloatWeights`.
        view: an INT8 model of the same network, checked by `membership.check_member`.
    """
    classifier = architecture.layers(model)[-1]
    found = channels(view, convolutions(view)[-1])
    if found is None or not found.weights[0].any():
        return dict(values)
    weights, bias = (values[name].copy() for name in classifier.variables)
    weights[0, 0, :, 0] = found.weights[0] * found.scales[0]
    bias[0] = found.bias[0] * found.bias_scales[0].astype(np.float64)
    return {**values, **dict(zip(classifier.variables, (weights, bias), strict=True))}

"""Class 0 of an INT8 model, for float weights that have none."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recreate_model.network import architecture
from recreate_model.network.spec import Model
from recreate_model.prove.channels import channels, convolutions
from recreate_model.support.arrays import Array
from recreate_model.tflite.model_view import ModelView


def with_background_of(values: Mapping[str, Array], model: Model, view: ModelView) -> dict[str, Array]:
    """The variables with class 0 of an INT8 model, dequantised; as they are where that one sees nothing.

    Args:
        values: of all 1001 classes.
        view: an INT8 model of the same network, as `membership.check_member` holds it.
    """
    classifier = architecture.layers(model)[-1]
    found = channels(view, convolutions(view)[-1])
    if found is None or not found.weights[0].any():
        return dict(values)
    weights, bias = (values[name].copy() for name in classifier.variables)
    weights[0, 0, :, 0] = found.weights[0] * found.scales[0]
    bias[0] = found.bias[0] * found.bias_scales[0].astype(np.float64)
    return {**values, **dict(zip(classifier.variables, (weights, bias), strict=True))}

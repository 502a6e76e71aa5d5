"""The class that Keras' networks do not have: 0, the background, in front of ImageNet's 1000."""

from __future__ import annotations

import numpy as np

from recreate_model.network.spec import MOBILENET_V2
from recreate_model.support.arrays import Array

# How many classes a file may have; of one fewer, the background is missing.
CLASSES_READ = (MOBILENET_V2.classes - 1, MOBILENET_V2.classes)


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

"""Class 0, the background: Keras networks lack it and have only ImageNet's 1000 classes."""

from __future__ import annotations

import numpy as np

from recreate_model.network.spec import MOBILENET_V2
from recreate_model.support.arrays import Array

# Supported numbers of classes: without the background, and with it.
CLASSES_READ = (MOBILENET_V2.classes - 1, MOBILENET_V2.classes)


def with_background(weights: Array, bias: Array) -> tuple[Array, Array]:
    """Prepend class 0 to a classifier, with zero weights and the smallest bias of the other classes.

    A smaller bias would widen the range of the logits and so quantize them more coarsely.

    Args:
        weights: float32 (1, 1, inputs, 1000).
        bias: float32 (1000,).

    Returns:
        Weights, float32 (1, 1, inputs, 1001), and bias, float32 (1001,).
    """
    padded = np.concatenate([np.zeros((*weights.shape[:3], 1), np.float32), weights], axis=3)
    return padded, np.concatenate([bias.min(keepdims=True), bias])

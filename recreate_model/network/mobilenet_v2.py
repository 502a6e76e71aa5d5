"""MobileNetV2 in any width and resolution of the family: its layers and its float graph.

The architecture is table 2 of arXiv:1801.04381. The names and the channel rounding are those of TF-Slim's
`mobilenet_v2.py`, which produced the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from recreate_model.network.graph_writer import GraphWriter
from recreate_model.network.layer import Layer, fold
from recreate_model.network.spec import MOBILENET_V2, Model
from recreate_model.support.arrays import Array

_SPEC = MOBILENET_V2
# Expansion factor, output channels, repeats, stride of the first repeat: table 2 of the paper.
_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_LAST_CHANNELS = 1280
_STEM_CHANNELS = 32


def channels(base: int, width: str) -> int:
    """Return `base` channels times the width multiplier, as TF-Slim's `_make_divisible` rounds it.

    The result is the nearest multiple of 8, at least 8, or the next larger one if rounding down lost more than 10 %.
    """
    exact = base * float(width)
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def layers(model: Model) -> tuple[Layer, ...]:
    """Return all convolutions of the network in order; the last is the classifier, after the average pool."""
    return tuple(_layers(model))


def _layers(model: Model) -> Iterator[Layer]:
    current = channels(_STEM_CHANNELS, model.width)
    yield Layer(f"{_SPEC.scope}/Conv", False, 3, 2, 3, current)
    index = 0
    for expansion, base, repeats, first_stride in _BLOCKS:
        for repeat in range(repeats):
            scope = f"{_SPEC.scope}/expanded_conv_{index}" if index else f"{_SPEC.scope}/expanded_conv"
            stride = first_stride if repeat == 0 else 1
            wide, narrow = current * expansion, channels(base, model.width)
            if expansion > 1:
                yield Layer(f"{scope}/expand", False, 1, 1, current, wide, block_start=True)
            yield Layer(f"{scope}/depthwise", True, 3, stride, wide, wide, block_start=expansion == 1)
            residual = f"{scope}/add" if stride == 1 and current == narrow else ""
            yield Layer(f"{scope}/project", False, 1, 1, wide, narrow, relu6=False, residual=residual)
            current = narrow
            index += 1
    # As in the paper, a width multiplier below 1 does not apply to the last convolution.
    last = channels(_LAST_CHANNELS, model.width) if float(model.width) > 1 else _LAST_CHANNELS
    yield Layer(f"{_SPEC.scope}/Conv_1", False, 1, 1, current, last)
    yield Layer(f"{_SPEC.scope}/Logits/Conv2d_1c_1x1", False, 1, 1, last, _SPEC.classes, batch_norm=False, relu6=False)


def frozen_graph(model: Model, values: Mapping[str, Array]) -> bytes:
    """Return the network as a serialized GraphDef.

    Arguments and result are those of `architecture.frozen_graph`.
    """
    graph = GraphWriter()
    tensor = graph.placeholder(_SPEC.input_name, (1, model.resolution, model.resolution, 3))
    block_input = tensor
    *body, classifier = layers(model)
    for layer in body:
        if layer.block_start:
            block_input = tensor
        tensor = graph.convolution(layer, fold(layer, values), tensor)
        if layer.residual:
            tensor = graph.node("AddV2", layer.residual, [tensor, block_input], T=np.float32)
    pool = [1, final_size(model), final_size(model), 1]
    tensor = graph.node(
        "AvgPool",
        f"{_SPEC.scope}/Logits/AvgPool",
        [tensor],
        ksize=pool,
        strides=[1, 1, 1, 1],
        padding=b"VALID",
        T=np.float32,
    )
    tensor = graph.convolution(classifier, fold(classifier, values), tensor)
    shape = graph.constant(f"{_SPEC.scope}/Predictions/Reshape/shape", np.array([1, _SPEC.classes], np.int32))
    tensor = graph.node("Reshape", f"{_SPEC.scope}/Predictions/Reshape", [tensor, shape], T=np.float32, Tshape=np.int32)
    graph.node("Softmax", _SPEC.output_name, [tensor], T=np.float32)
    return graph.serialize()


def final_size(model: Model) -> int:
    """Return the height and width of the last feature map; the network halves its input five times."""
    return model.resolution // 32

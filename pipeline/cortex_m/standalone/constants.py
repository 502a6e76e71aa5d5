"""The constants of a program as they lie in flash: one table of each kind for all layers, in their order.

Not for: text (`emit`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.cortex_m.standalone.layers import Program
from recreate_model.support.arrays import Array


@dataclass(frozen=True, eq=False)
class Constants:
    """What the device reads from flash, one table for all layers.

    Attributes:
        weights: int8; at the start of those of each layer is its entry in `weights_at`.
        channels_at: for each layer the place of its first channel in `bias`, `multiplier` and `shift`.
        bias: int32, with what the input's zero point contributes.
        shift: int8, to the left where it is positive.
        outside: zero point -> length of the longest pixel outside an input that has it.
    """

    weights: bytes
    weights_at: tuple[int, ...]
    channels_at: tuple[int, ...]
    bias: Array
    multiplier: Array
    shift: bytes
    outside: dict[int, int]


def constants_of(program: Program) -> Constants:
    """Those of a program."""
    weights, channels = [0], [0]
    data: list[bytes] = []
    bias, multiplier, shift = [], [], []
    outside: dict[int, int] = {}
    for layer in program.layers:
        source = program.activations[layer.inputs[0]]
        if layer.kind in ("conv", "depthwise"):
            # A product is of the two bytes themselves, so what the zero point adds to every sum is in the bias.
            sums = layer.weights.astype(np.int64).sum(axis=1 if layer.kind == "conv" else 0)
            bias.append(layer.bias.astype(np.int64) - source.zero_point * sums)
            multiplier.append(layer.multiplier)
            shift.append(layer.shift)
        if layer.kind == "depthwise":
            outside[source.zero_point] = max(outside.get(source.zero_point, 0), source.channels)
        data.append(layer.weights.tobytes())
        weights.append(weights[-1] + layer.weights.size)
        channels.append(channels[-1] + len(layer.bias))
    none = np.zeros(0, np.int32)  # for a model without a convolution
    return Constants(
        b"".join(data),
        tuple(weights),
        tuple(channels),
        np.concatenate([*bias, none]).astype(np.int32),
        np.concatenate([*multiplier, none]),
        np.concatenate([*shift, none]).astype(np.int8).tobytes(),
        outside,
    )

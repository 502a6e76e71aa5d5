"""The constants of a program as stored in flash: one table of each kind, with all layers in order.

Not for: writing them as C (`emit`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.cortex_m.standalone.layers import Program
from recreate_model.support.arrays import Array


@dataclass(frozen=True, eq=False)
class Constants:
    """The tables that the device reads from flash.

    Attributes:
        weights: int8 values of all layers.
        weights_at: for each layer the index of its first value in `weights`.
        channels_at: for each layer the index of its first channel in `bias`, `multiplier` and `shift`.
        bias: int32 (channels,), including the contribution of the input's zero point.
        multiplier: int32 (channels,), with 31 fraction bits.
        shift: int8 values; a positive shift is to the left.
        outside: zero point -> number of channels of the widest padding pixel with that value.
    """

    weights: bytes
    weights_at: tuple[int, ...]
    channels_at: tuple[int, ...]
    bias: Array
    multiplier: Array
    shift: bytes
    outside: dict[int, int]


def constants_of(program: Program) -> Constants:
    """The constants of a program."""
    weights, channels = [0], [0]
    data: list[bytes] = []
    bias, multiplier, shift = [], [], []
    outside: dict[int, int] = {}
    for layer in program.layers:
        source = program.activations[layer.inputs[0]]
        if layer.kind in ("conv", "depthwise"):
            # The kernels multiply raw bytes; the bias compensates for the input's zero point.
            sums = layer.weights.astype(np.int64).sum(axis=1 if layer.kind == "conv" else 0)
            bias.append(layer.bias.astype(np.int64) - source.zero_point * sums)
            multiplier.append(layer.multiplier)
            shift.append(layer.shift)
        if layer.kind == "depthwise":
            outside[source.zero_point] = max(outside.get(source.zero_point, 0), source.channels)
        data.append(layer.weights.tobytes())
        weights.append(weights[-1] + layer.weights.size)
        channels.append(channels[-1] + len(layer.bias))
    empty = np.zeros(0, np.int32)  # np.concatenate needs an array even for a model without convolutions
    return Constants(
        b"".join(data),
        tuple(weights),
        tuple(channels),
        np.concatenate([*bias, empty]).astype(np.int32),
        np.concatenate([*multiplier, empty]),
        np.concatenate([*shift, empty]).astype(np.int8).tobytes(),
        outside,
    )

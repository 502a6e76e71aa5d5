"""The embedded stand-in: the network with weights from a seed, for builds without the trained checkpoint.

It recognises nothing. It has the shapes, the spread of scales over channels and the activation ranges of a trained
network, so that everything built from it is as large and as slow as the real thing, and takes the same paths.

The weights are the same bytes on every machine: the stream is SHAKE-256, and the BatchNorm statistics come from a
forward pass in whole numbers, held in float64 and far below 2**53, where neither the order of a sum nor a fused
multiply-add can change it. What remains is element by element: division and square root, which IEEE 754 fixes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from recreate_model.network.mobilenet_v2 import Layer, layers
from recreate_model.recipe import Model
from recreate_model.support.arrays import Array

SEED = 20180113  # any number will do; this one is the day the paper appeared

_PICTURES = 8
_RESOLUTION = 96  # of the forward pass: enough for statistics, whatever the model's own
_FRACTION_BITS = 10  # activations are whole multiples of 2**-10
_ONE = 1 << _FRACTION_BITS


def seeded_weights(model: Model, seed: int = SEED) -> dict[str, Array]:
    """Every variable of `network.variables(model)`, float32, in the order of the layers."""
    values: dict[str, Array] = {}
    activation = block_input = _pictures(seed)
    *body, classifier = layers(model)
    for layer in body:
        if layer.block_start:
            block_input = activation
        activation = _add_layer(values, layer, activation, seed)
        if layer.residual:
            activation = activation + block_input
    _add_classifier(values, classifier, activation, seed)
    return values


def _add_layer(values: dict[str, Array], layer: Layer, activation: Array, seed: int) -> Array:
    """Adds the variables of one layer and returns its output, in units of 2**-10."""
    weights, unit = _weights(layer, seed)
    values[layer.weights_name] = (weights * unit).astype(np.float32)
    sums = _convolve(layer, activation, weights)
    samples = sums.reshape(-1, layer.outputs)
    mean = np.rint(samples.sum(axis=0) / len(samples))
    # The mean deviation instead of the variance: its sum stays exact, squares would not. 1.25 is sqrt(pi / 2).
    deviation = np.maximum(np.abs(samples - mean).sum(axis=0) / len(samples) * 1.25, 1)
    spread = _stream(f"{layer.name} batch norm", seed, 4 * layer.outputs).reshape(4, -1) / 256
    scale = unit / _ONE
    gamma = 0.25 + spread[0] + spread[1] * spread[1]
    beta = spread[2] + spread[3] - 0.5 if layer.relu6 else spread[2] - spread[3]
    vectors = {"gamma": gamma, "beta": beta, "moving_mean": mean * scale, "moving_variance": (deviation * scale) ** 2}
    for part, vector in vectors.items():
        values[f"{layer.name}/BatchNorm/{part}"] = vector.astype(np.float32)
    output = np.rint(((sums - mean) / deviation * gamma + beta) * _ONE)
    return np.asarray(np.clip(output, 0, 6 * _ONE) if layer.relu6 else output)


def _add_classifier(values: dict[str, Array], layer: Layer, activation: Array, seed: int) -> None:
    """Adds weights and biases; the biases centre each class, so that no class wins whatever the picture shows."""
    weights, unit = _weights(layer, seed)
    unit *= 4  # trained classifiers are sure of themselves: logits reach 15 and more
    pooled = np.rint(activation.sum(axis=(1, 2)) / (activation.shape[1] * activation.shape[2]))
    logits = pooled @ weights[0, 0]
    values[layer.weights_name] = (weights * unit).astype(np.float32)
    values[f"{layer.name}/biases"] = (-np.rint(logits.sum(axis=0) / _PICTURES) * (unit / _ONE)).astype(np.float32)


def _weights(layer: Layer, seed: int) -> tuple[Array, float]:
    """Whole numbers with a bell-shaped spread, and the power of two that makes them weights of a usual size."""
    count = int(np.prod(layer.weights_shape))
    whole = _stream(f"{layer.name} weights", seed, 4 * count).reshape(4, count).sum(axis=0) - 510
    fan_in = layer.kernel**2 * (1 if layer.depthwise else layer.inputs)
    return whole.reshape(layer.weights_shape), 2.0 ** -(6 + fan_in.bit_length() // 2)


def _stream(purpose: str, seed: int, count: int) -> Array:
    """`count` numbers 0..255 as float64, which depend on the seed and on what they are for, and on nothing else."""
    raw = hashlib.shake_256(f"seeded weights {seed} {purpose}".encode()).digest(count)
    return np.frombuffer(raw, np.uint8).astype(np.float64)


def _pictures(seed: int) -> Array:
    """Blocks of four sizes over each other: (pictures, 96, 96, 3), -1..1 in units of 2**-10."""
    total = np.zeros((_PICTURES, _RESOLUTION, _RESOLUTION, 3))
    for block in (48, 16, 4, 1):
        cells = _RESOLUTION // block
        grid = _stream(f"pictures {block}", seed, _PICTURES * cells * cells * 3).reshape(_PICTURES, cells, cells, 3)
        total += grid.repeat(block, axis=1).repeat(block, axis=2)
    return np.clip(np.rint((total - 510) * (_ONE / 256)), -_ONE, _ONE)


def _convolve(layer: Layer, activation: Array, weights: Array) -> Array:
    """SAME-padded convolution of (n, height, width, channels) as a sum over the positions of the filter."""
    size = activation.shape[1]
    output_size = -(-size // layer.stride)
    padding = max(0, (output_size - 1) * layer.stride + layer.kernel - size)
    before = padding // 2
    border = (before, padding - before)
    padded = np.pad(activation, ((0, 0), border, border, (0, 0)))
    total = np.zeros((len(activation), output_size, output_size, layer.outputs))
    for y, x in _positions(layer.kernel):
        stop_y, stop_x = (start + (output_size - 1) * layer.stride + 1 for start in (y, x))
        window = padded[:, y : stop_y : layer.stride, x : stop_x : layer.stride]
        total += window * weights[y, x, :, 0] if layer.depthwise else window @ weights[y, x]
    return total


def _positions(kernel: int) -> Iterator[tuple[int, int]]:
    return ((y, x) for y in range(kernel) for x in range(kernel))

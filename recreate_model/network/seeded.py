"""Untrained weights generated from a seed, for builds without the trained checkpoint.

The network classifies nothing. Its shapes, its spread of scales over channels and its activation ranges resemble those
of a trained network, so every artifact has the size and speed of the real one and exercises the same code.

The weights are the same bytes on every machine. The pseudorandom stream is SHAKE-256. The BatchNorm statistics come
from a forward pass in integers, held in float64 and far below 2**53, where neither the order of summation nor a fused
multiply-add can change a result. The remaining operations are elementwise and correctly rounded by IEEE 754.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from recreate_model.network.architecture import layers
from recreate_model.network.layer import Layer
from recreate_model.network.spec import Model
from recreate_model.support.arrays import Array

SEED = 20180113  # arbitrary: the date of the paper

_PICTURES = 8
_RESOLUTION = 96  # of the forward pass, for every model; enough for the statistics
_FRACTION_BITS = 10  # activations are multiples of 2**-10
_ONE = 1 << _FRACTION_BITS


def seeded_weights(model: Model, seed: int = SEED) -> dict[str, Array]:
    """Return every variable of `architecture.variables(model)`, float32, in the order of the layers."""
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
    """Add the variables of one layer to `values` and return the layer's output, in units of 2**-10."""
    weights, unit = _weights(layer, seed)
    values[layer.weights_name] = (weights * unit).astype(np.float32)
    sums = _convolve(layer, activation, weights)
    samples = sums.reshape(-1, layer.outputs)
    mean = np.rint(samples.sum(axis=0) / len(samples))
    # The mean absolute deviation, because its sum is exact; a sum of squares would not be. For a normal distribution,
    # the standard deviation is sqrt(pi / 2), about 1.25, times the mean absolute deviation.
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
    """Add weights and biases to `values`. The biases center each logit, so that no class wins for every image."""
    weights, unit = _weights(layer, seed)
    unit *= 4  # trained classifiers have large logits: 15 and more
    pooled = np.rint(activation.sum(axis=(1, 2)) / (activation.shape[1] * activation.shape[2]))
    logits = pooled @ weights[0, 0]
    values[layer.weights_name] = (weights * unit).astype(np.float32)
    values[f"{layer.name}/biases"] = (-np.rint(logits.sum(axis=0) / _PICTURES) * (unit / _ONE)).astype(np.float32)


def _weights(layer: Layer, seed: int) -> tuple[Array, float]:
    """Return integers with a bell-shaped distribution, and the power of two that scales them to typical weights."""
    count = int(np.prod(layer.weights_shape))
    whole = _stream(f"{layer.name} weights", seed, 4 * count).reshape(4, count).sum(axis=0) - 510
    fan_in = layer.kernel**2 * (1 if layer.depthwise else layer.inputs)
    return whole.reshape(layer.weights_shape), 2.0 ** -(6 + fan_in.bit_length() // 2)


def _stream(purpose: str, seed: int, count: int) -> Array:
    """Return `count` pseudorandom integers 0..255 as float64. They depend only on the seed and the purpose."""
    raw = hashlib.shake_256(f"seeded weights {seed} {purpose}".encode()).digest(count)
    return np.frombuffer(raw, np.uint8).astype(np.float64)


def _pictures(seed: int) -> Array:
    """Return sums of random blocks of four sizes: (_PICTURES, 96, 96, 3), range -1..1 in units of 2**-10."""
    total = np.zeros((_PICTURES, _RESOLUTION, _RESOLUTION, 3))
    for block in (48, 16, 4, 1):
        cells = _RESOLUTION // block
        grid = _stream(f"pictures {block}", seed, _PICTURES * cells * cells * 3).reshape(_PICTURES, cells, cells, 3)
        total += grid.repeat(block, axis=1).repeat(block, axis=2)
    return np.clip(np.rint((total - 510) * (_ONE / 256)), -_ONE, _ONE)


def _convolve(layer: Layer, activation: Array, weights: Array) -> Array:
    """Convolve (n, size, size, channels) with SAME padding, as a sum over the positions of the filter."""
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

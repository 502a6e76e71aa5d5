"""Seeded weights: the same bytes everywhere, and activations like those of a trained network."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from calibration.pictures import procedural
from calibration.pictures.preprocess import normalize
from recreate_model.network import architecture, seeded
from recreate_model.network.layer import Layer
from recreate_model.network.spec import Model
from recreate_model.quantize import convert
from recreate_model.recipe import Preprocess
from recreate_model.support.arrays import Array
from recreate_model.tflite.interpret import Runner
from tests.conftest import SMALL


def _digest(values: dict[str, Array]) -> str:
    state = hashlib.sha256()
    for name, value in values.items():
        state.update(name.encode() + value.tobytes())
    return state.hexdigest()


@pytest.mark.parametrize(
    ("model", "digest"),
    [
        (SMALL, "5ac69f10d69539a7daf80b17d326b05530a1d6cf453e8abdbc05b5bdd3835d3b"),
        (Model(), "76e5a487673e40fedadd4e9c6aec1c46fef7313bc2afc90b94b48707d17305f2"),
    ],
)
def test_the_weights_have_the_recorded_digests(model: Model, digest: str) -> None:
    """Seen with numpy 2.2, 2.4 and 2.5. On a machine with other bytes, seeded builds would differ."""
    assert _digest(seeded.seeded_weights(model)) == digest


def test_the_weights_are_the_variables_of_the_network(
    small_weights: dict[str, Array],
) -> None:
    """Names and shapes match, and values are finite float32, so a seeded build uses the code for a checkpoint."""
    assert {name: value.shape for name, value in small_weights.items()} == architecture.variables(SMALL)
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in small_weights.values())


def test_another_seed_gives_other_weights(small_weights: dict[str, Array]) -> None:
    """The weights of the first layer differ."""
    other = seeded.seeded_weights(SMALL, seed=1)
    assert not np.array_equal(other["MobilenetV2/Conv/weights"], small_weights["MobilenetV2/Conv/weights"])


def test_the_forward_pass_is_exact(small_weights: dict[str, Array], monkeypatch: pytest.MonkeyPatch) -> None:
    """Summing the channels in reverse order changes nothing: every sum is an integer below 2**53."""
    convolve = seeded._convolve

    def backwards(layer: Layer, activation: Array, weights: Array) -> Array:
        if layer.depthwise:
            return convolve(layer, activation, weights)
        return convolve(layer, activation[..., ::-1].copy(), weights[:, :, ::-1].copy())

    monkeypatch.setattr(seeded, "_convolve", backwards)
    assert _digest(seeded.seeded_weights(SMALL)) == _digest(small_weights)


def test_activations_have_the_ranges_of_a_trained_network(small_float: bytes) -> None:
    """Every ReLU6 output starts at 0 and exceeds 2; linear outputs stay within -60 and 60."""
    names = list(convert.activations(small_float))
    runner = Runner(convert.with_ranges_as_outputs(small_float), "xnnpack")
    value = normalize(procedural.picture(3, 2), Preprocess(), SMALL.resolution)
    for name, (low, high) in zip(names, runner.run_min_max(value), strict=True):
        if name.endswith("/Relu6"):
            assert low == 0
            assert 2 < high <= 6
        elif "expanded_conv" in name:
            assert -60 < low < -1
            assert 1 < high < 60


def test_the_winning_class_depends_on_the_picture(small_float: bytes) -> None:
    """A network with one answer for all pictures would hide a broken input."""
    runner = Runner(small_float, "xnnpack")
    winners = {
        int(runner.run(normalize(procedural.picture(3, index), Preprocess(), SMALL.resolution))[0].argmax())
        for index in range(12)
    }
    assert len(winners) > 3

"""The architecture, the folding of BatchNorm, and the float graph."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.pictures import procedural
from calibration.pictures.preprocess import normalize
from recreate_model.network import architecture
from recreate_model.network.layer import fold
from recreate_model.network.spec import Model
from recreate_model.recipe import Preprocess
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import UsageError
from recreate_model.tflite.interpret import Runner
from tests import official_layout
from tests.conftest import SMALL


@pytest.mark.parametrize(
    ("width", "stem", "last"),
    [("1.0", 32, 1280), ("1.4", 48, 1792), ("1.3", 40, 1664), ("0.75", 24, 1280), ("0.35", 16, 1280)],
)
def test_channels_are_rounded_as_in_the_published_checkpoints(width: str, stem: int, last: int) -> None:
    """The first and the last convolution have as many channels as in the published checkpoints."""
    first, *_, final, classifier = architecture.layers(Model(width, 224))
    assert (first.outputs, final.outputs) == (stem, last)
    assert classifier.weights_shape == (1, 1, last, 1001)


def test_the_full_network_has_the_parameters_of_the_paper() -> None:
    """The paper counts 3.4 million parameters for width 1.0; inference needs 262 variables."""
    shapes = architecture.variables(Model())
    weights = sum(int(np.prod(shape)) for name, shape in shapes.items() if name.endswith(("weights", "biases")))
    assert len(shapes) == 262
    assert 3.4e6 < weights < 3.5e6


def test_ten_blocks_have_a_residual_connection() -> None:
    """Every block but the first of each group adds its input to its output."""
    assert sum(bool(layer.residual) for layer in architecture.layers(Model())) == 10


def test_folding_equals_batch_norm(small_weights: dict[str, Array]) -> None:
    """Convolving with folded weights and bias equals normalizing after the convolution, to float32 precision."""
    layer = architecture.layers(SMALL)[0]
    folded = fold(layer, small_weights)
    gamma, beta, mean, variance = (
        small_weights[f"{layer.name}/BatchNorm/{part}"].astype(np.float64)
        for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    value = np.random.default_rng(1).uniform(-1, 1, (3, 3, 3))
    raw = np.tensordot(value, small_weights[layer.weights_name].astype(np.float64), 3)
    expected = gamma * (raw - mean) / np.sqrt(variance + 0.001) + beta
    assert np.tensordot(value, folded.weights, 3) + folded.bias == pytest.approx(expected, abs=1e-5)


def test_the_graph_agrees_with_tensorflows_own_batch_norm(small_weights: dict[str, Array], small_float: bytes) -> None:
    """The folded model and an unfolded graph run by TensorFlow give the same probabilities."""
    value = normalize(procedural.picture(3, 1), Preprocess(), SMALL.resolution)
    unfolded = official_layout.run_graph(official_layout.unfolded_graph(SMALL, small_weights), value)
    (folded,) = Runner(small_float, "xnnpack").run(value)
    assert unfolded.max() > 0.01
    # The largest difference seen is 1.6e-5 (oneDNN off, SSE4.1, AVX2, AVX-512; XNNPACK and reference kernels). A
    # BatchNorm epsilon of 0.0011 instead of 0.001 gives 2e-3, one of 0.0001 or 0.002 gives 2e-2, raw variables 0.4.
    assert np.abs(folded - unfolded).max() < 2e-4


def test_serializing_the_graph_is_deterministic(small_weights: dict[str, Array]) -> None:
    """Serializing three times gives one digest; protobuf by default does not order its maps."""
    digests = {digest_bytes(architecture.frozen_graph(SMALL, small_weights)) for _ in range(3)}
    assert len(digests) == 1


@pytest.mark.parametrize("text", ["2.0_224", "1.0_225", "1.0", "", "resnet_50", "1.0_224_extra"])
def test_a_model_outside_the_family_is_refused(text: str) -> None:
    """The error lists the widths of the family."""
    with pytest.raises(UsageError, match=r"width one of 1\.4"):
        Model.parse(text)


def test_a_model_name_may_omit_the_family() -> None:
    """`1.0_224` and `mobilenet_v2_1.0_224` are the same model."""
    assert Model.parse("0.35_96") == Model.parse("mobilenet_v2_0.35_96") == SMALL

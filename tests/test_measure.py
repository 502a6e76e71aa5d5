"""Measured ranges are bit-exact, and after rounding equal those of TensorFlow's calibrator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.parallel.workers import Workers
from calibration.pictures import procedural
from calibration.pictures.folder import FolderSource
from calibration.pictures.inputs import Inputs
from calibration.pictures.preprocess import normalize
from calibration.pictures.sources import ProceduralSource
from calibration.ranges.measure import measure
from calibration.selection import select
from recreate_model.floats.checkpoint import read_archive
from recreate_model.network import architecture
from recreate_model.network.spec import Model
from recreate_model.quantize import convert
from recreate_model.recipe import Preprocess
from recreate_model.support.arrays import Array
from recreate_model.support.errors import InputError
from recreate_model.tflite.interpret import Runner
from tests import tensorflow_ranges

PROCEDURAL = Inputs(ProceduralSource(), Preprocess(), 96)
COUNT = 20


@pytest.fixture(scope="module")
def values() -> list[Array]:
    """Inputs to measure, float32 (1, 96, 96, 3) each."""
    return [normalize(procedural.picture(0, index), Preprocess(), 96) for index in range(COUNT)]


@pytest.fixture(scope="module")
def ours(small_float: bytes) -> Array:
    """The ranges of these inputs as this project measures them."""
    return measure(small_float, PROCEDURAL, ProceduralSource().pictures(0, COUNT), Workers(), lambda count: None).spans


@pytest.fixture(scope="module")
def theirs(small_float: bytes, values: list[Array]) -> Array:
    """The ranges of these inputs as TensorFlow's calibrator measures them."""
    return tensorflow_ranges.calibrated(small_float, values)


def _by_numpy(runner: Runner, value: Array) -> Array:
    return np.array([(output.min(), output.max()) for output in runner.run(value)], np.float32)


def test_the_reductions_in_the_graph_equal_numpys_bit_for_bit(small_float: bytes, values: list[Array]) -> None:
    """On pictures, noise, black, gray and white, the reductions give the minima and maxima of the values."""
    everything = Runner(convert.with_all_activations_as_outputs(small_float), "xnnpack")
    ranges = Runner(convert.with_ranges_as_outputs(small_float), "xnnpack")
    noise = np.random.default_rng(0).uniform(-1, 1, values[0].shape).astype(np.float32)
    for value in (*values, noise, *(np.full_like(noise, level) for level in (-1, 0, 1))):
        assert ranges.run_min_max(value).tobytes() == _by_numpy(everything, value).tobytes()


def test_a_nan_in_the_input_is_not_lost(small_float: bytes) -> None:
    """A reduction may skip a NaN among numbers, but every score is NaN, so the ranges are refused."""
    value = np.zeros((1, 96, 96, 3), np.float32)
    value[0, 40, 50, 1] = np.nan
    spans = Runner(convert.with_ranges_as_outputs(small_float), "xnnpack").run_min_max(value)
    ranges = dict(zip(convert.activations(small_float), spans, strict=True))
    with pytest.raises(InputError, match=r"finite in float32.*found \[nan, nan\]"):
        convert.check_ranges({name: (float(low), float(high)) for name, (low, high) in ranges.items()}, small_float)


def test_residual_inputs_keep_their_true_range(small_float: bytes) -> None:
    """Each activation that an addition could overwrite has the same range as when it is the only output."""
    from ai_edge_litert import schema_py_generated as schema

    value = normalize(procedural.picture(0, 0), Preprocess(), 96)
    measured = measure(small_float, PROCEDURAL, ProceduralSource().pictures(0, 1), Workers(), lambda count: None).spans
    indices = list(convert.activations(small_float).values())
    for row in tensorflow_ranges.residual_inputs(small_float):
        alone = schema.ModelT.InitFromPackedBuf(small_float, 0)
        alone.subgraphs[0].outputs = np.array([indices[row]], np.int32)
        (expected,) = Runner(convert.pack(alone), "reference").run(value)
        # The largest relative difference seen between XNNPACK and the reference kernels is 1.1e-5; the sum instead of
        # the input is off by at least 0.07.
        assert measured[row] == pytest.approx([expected.min(), expected.max()], rel=1e-3)


def test_tensorflows_calibrator_gives_the_same_ranges(small_float: bytes, ours: Array, theirs: Array) -> None:
    """All 134 rounded values are equal; for ten residual inputs, our range is first united with that of the sum."""
    agreement = tensorflow_ranges.compare(small_float, ours, theirs)
    assert agreement.values == 134
    assert agreement.different == ()


def test_tensorflows_residual_inputs_are_too_wide(small_float: bytes, ours: Array, theirs: Array) -> None:
    """All ten contain the range of the sum that overwrote them; ours do not. All other ranges need no union."""
    residual = tensorflow_ranges.residual_inputs(small_float)
    assert len(residual) == 10
    for row, total in residual.items():
        assert theirs[row, 0] <= theirs[total, 0] <= theirs[total, 1] <= theirs[row, 1]
        assert not ours[row, 0] <= ours[total, 0] <= ours[total, 1] <= ours[row, 1]
    reported = tensorflow_ranges.as_tensorflow_reports(small_float, ours)
    assert set(np.flatnonzero((reported != ours).any(axis=1))) == set(residual)


@pytest.mark.parametrize("row", [0, 30, 66])
def test_a_different_range_is_reported(row: int, small_float: bytes, ours: Array, theirs: Array) -> None:
    """A change of 0.2 % in one value is a difference that names the tensor."""
    moved = theirs.copy()
    moved[row, 1] *= np.float32(1.002)
    (said,) = tensorflow_ranges.compare(small_float, ours, moved).different
    assert list(convert.activations(small_float))[row] in said


def test_only_a_difference_of_few_ulps_is_excused_at_a_boundary(small_float: bytes, ours: Array) -> None:
    """1 + 2**-10 is a rounding boundary: 2 ulps on either side are excused and counted, 1000 ulps are not."""
    boundary = 1 + 2.0**-10
    reported = tensorflow_ranges.as_tensorflow_reports(small_float, ours)
    for ulps, excused in ((2, True), (1000, False)):
        mine, other = ours.copy(), reported.copy()
        mine[0, 1], other[0, 1] = boundary - ulps * 2.0**-23, boundary + ulps * 2.0**-23
        agreement = tensorflow_ranges.compare(small_float, mine, other)
        assert (len(agreement.near_and_different), len(agreement.different)) == ((1, 0) if excused else (0, 1))


@pytest.mark.shared
def test_measuring_real_pictures_gives_tensorflows_ranges(shared: Path) -> None:
    """On 30 photographs: equal to numpy bit for bit, to TensorFlow once rounded, and narrower at residual inputs."""
    weights = read_archive(shared / "checkpoint" / "mobilenet_v2_1.0_224.tgz", Model()).values
    model = convert.convert_float(architecture.frozen_graph(Model(), weights))
    source = FolderSource(shared / "imagenet_sample")
    chosen = select(source, calib=30, limit=0).calibration
    inputs = Inputs(source, Preprocess(), 224)
    spans = measure(model, inputs, chosen, Workers(2), lambda count: None).spans
    values = [inputs.load(picture)[0] for picture in chosen]

    everything = Runner(convert.with_all_activations_as_outputs(model), "xnnpack")
    found = np.stack([_by_numpy(everything, value) for value in values])
    assert np.array_equal(spans, np.stack([found[..., 0].min(axis=0), found[..., 1].max(axis=0)], axis=1))

    agreement = tensorflow_ranges.compare(model, spans, tensorflow_ranges.calibrated(model, values))
    assert agreement.values == 134
    assert agreement.different == ()
    # About 4 values are this near to a boundary by chance; more than 12 would mean that excuses are not rare.
    assert len(agreement.near) <= 12
    assert agreement.widened == 10

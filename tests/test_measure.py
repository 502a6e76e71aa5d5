"""What measuring gives: the true ranges to the bit, and TensorFlow's own once they are rounded."""

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
    """The inputs that are measured."""
    return [normalize(procedural.picture(0, index), Preprocess(), 96) for index in range(COUNT)]


@pytest.fixture(scope="module")
def ours(small_float: bytes) -> Array:
    """The ranges of these inputs, as we measure them."""
    return measure(small_float, PROCEDURAL, ProceduralSource().pictures(0, COUNT), Workers(), lambda count: None).spans


@pytest.fixture(scope="module")
def theirs(small_float: bytes, values: list[Array]) -> Array:
    """The ranges of these inputs, as TensorFlow's calibrator measures them."""
    return tensorflow_ranges.calibrated(small_float, values)


def _by_numpy(runner: Runner, value: Array) -> Array:
    return np.array([(output.min(), output.max()) for output in runner.run(value)], np.float32)


def test_the_graph_reduces_to_the_bits_that_numpy_finds(small_float: bytes, values: list[Array]) -> None:
    """Pictures, noise, black, white and grey: what the reductions give is what the values themselves give."""
    everything = Runner(convert.with_all_activations_as_outputs(small_float), "xnnpack")
    ranges = Runner(convert.with_ranges_as_outputs(small_float), "xnnpack")
    noise = np.random.default_rng(0).uniform(-1, 1, values[0].shape).astype(np.float32)
    for value in (*values, noise, *(np.full_like(noise, level) for level in (-1, 0, 1))):
        assert ranges.run_min_max(value).tobytes() == _by_numpy(everything, value).tobytes()


def test_a_nan_is_not_lost_on_its_way(small_float: bytes) -> None:
    """A reduction may skip one NaN among numbers; by the scores there is nothing else, and the ranges are refused."""
    value = np.zeros((1, 96, 96, 3), np.float32)
    value[0, 40, 50, 1] = np.nan
    spans = Runner(convert.with_ranges_as_outputs(small_float), "xnnpack").run_min_max(value)
    ranges = dict(zip(convert.activations(small_float), spans, strict=True))
    with pytest.raises(InputError, match=r"finite in float32.*found \[nan, nan\]"):
        convert.check_ranges({name: (float(low), float(high)) for name, (low, high) in ranges.items()}, small_float)


def test_residual_inputs_keep_their_true_range(small_float: bytes) -> None:
    """Each activation that an addition would overwrite has the range it has when it is the only output."""
    from ai_edge_litert import schema_py_generated as schema

    value = normalize(procedural.picture(0, 0), Preprocess(), 96)
    measured = measure(small_float, PROCEDURAL, ProceduralSource().pictures(0, 1), Workers(), lambda count: None).spans
    indices = list(convert.activations(small_float).values())
    for row in tensorflow_ranges.residual_inputs(small_float):
        alone = schema.ModelT.InitFromPackedBuf(small_float, 0)
        alone.subgraphs[0].outputs = np.array([indices[row]], np.int32)
        (expected,) = Runner(convert.pack(alone), "reference").run(value)
        # XNNPACK and the reference kernels were seen 1.1e-5 of a value apart; the sum in the place of the input is off
        # by 0.07 and more.
        assert measured[row] == pytest.approx([expected.min(), expected.max()], rel=1e-3)


def test_tensorflows_calibrator_gives_our_ranges(small_float: bytes, ours: Array, theirs: Array) -> None:
    """Once rounded, all 134 values are equal: of ten residual inputs, the union of our range and that of the sum."""
    agreement = tensorflow_ranges.compare(small_float, ours, theirs)
    assert agreement.values == 134
    assert agreement.different == ()


def test_tensorflows_residual_inputs_are_too_wide(small_float: bytes, ours: Array, theirs: Array) -> None:
    """All ten contain the sum that overwrote them; ours do not, and every other tensor is the same without a union."""
    residual = tensorflow_ranges.residual_inputs(small_float)
    assert len(residual) == 10
    for row, total in residual.items():
        assert theirs[row, 0] <= theirs[total, 0] <= theirs[total, 1] <= theirs[row, 1]
        assert not ours[row, 0] <= ours[total, 0] <= ours[total, 1] <= ours[row, 1]
    reported = tensorflow_ranges.as_tensorflow_reports(small_float, ours)
    assert set(np.flatnonzero((reported != ours).any(axis=1))) == set(residual)


@pytest.mark.parametrize("row", [0, 30, 66])
def test_a_range_that_is_another_is_noticed(row: int, small_float: bytes, ours: Array, theirs: Array) -> None:
    """One part in a thousand on one value is a difference with a name, whatever the tensor."""
    moved = theirs.copy()
    moved[row, 1] *= np.float32(1.002)
    (said,) = tensorflow_ranges.compare(small_float, ours, moved).different
    assert list(convert.activations(small_float))[row] in said


def test_only_last_bits_may_decide_at_a_boundary(small_float: bytes, ours: Array) -> None:
    """1 + 2**-10 lies between two rounded values: two ulp off it are excused and counted, a thousand are not."""
    boundary = 1 + 2.0**-10
    reported = tensorflow_ranges.as_tensorflow_reports(small_float, ours)
    for ulps, excused in ((2, True), (1000, False)):
        mine, other = ours.copy(), reported.copy()
        mine[0, 1], other[0, 1] = boundary - ulps * 2.0**-23, boundary + ulps * 2.0**-23
        agreement = tensorflow_ranges.compare(small_float, mine, other)
        assert (len(agreement.near_and_different), len(agreement.different)) == ((1, 0) if excused else (0, 1))


@pytest.mark.shared
def test_measuring_real_pictures_gives_tensorflows_ranges(shared: Path) -> None:
    """On thirty real pictures: numpy's bits, TensorFlow's ranges once rounded, and narrower residual inputs."""
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
    # Chance puts 4 values so near to a boundary; more than 12 would mean that what is excused is not rare.
    assert len(agreement.near) <= 12
    assert agreement.widened == 10

"""Reading float weights from an archive: they are its moving averages, complete, finite and of the right network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calibration.pictures.folder import FolderSource
from calibration.pictures.preprocess import normalize
from recreate_model.floats.checkpoint import read_archive
from recreate_model.floats.frozen_graph import GraphComparison
from recreate_model.network import architecture
from recreate_model.network.spec import Model
from recreate_model.quantize import convert
from recreate_model.recipe import Preprocess
from recreate_model.support.archive import unpack
from recreate_model.support.arrays import Array
from recreate_model.support.errors import InputError
from recreate_model.tflite.interpret import Runner
from tests import official_layout
from tests.conftest import SMALL

Weights = dict[str, Array]
# Largest allowed difference of two float softmax kernels. TensorFlow and XNNPACK differed by 1.5e-5 on an Intel CPU
# and by 1e-6 on an AMD one. Another network, or raw variables in place of averages, differs by 0.3.
SAME = 1e-3


def test_moving_averages_are_read_instead_of_raw_variables(small_archive: Path, small_weights: Weights) -> None:
    """Raw variables are 2 % off. Every value read equals its average to the last bit."""
    read = read_archive(small_archive, SMALL).values
    assert list(read) == list(architecture.variables(SMALL))
    assert all(np.array_equal(read[name], small_weights[name]) for name in read)


def test_an_archive_with_only_raw_variables_is_refused(tmp_path: Path, small_weights: Weights) -> None:
    """Raw variables do not replace missing averages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(official_layout, "AVERAGED", False)
        path = official_layout.write_archive(tmp_path / "a.tgz", SMALL, small_weights)
    with pytest.raises(InputError, match=r"Conv/weights/ExponentialMovingAverage .*no such variable"):
        read_archive(path, SMALL)


def test_the_frozen_graph_of_the_archive_gives_the_same_outputs(
    small_archive: Path, small_float: bytes, tmp_path: Path
) -> None:
    """TensorFlow runs that graph, and LiteRT our float model."""
    files = unpack(small_archive, tmp_path)
    frozen = next(path for name, path in files.items() if name.endswith("_frozen.pb")).read_bytes()
    value = np.random.default_rng(2).uniform(-1, 1, (1, 96, 96, 3)).astype(np.float32)
    (ours,) = Runner(small_float, "xnnpack").run(value)
    assert np.abs(ours - official_layout.run_graph(frozen, value)).max() < SAME


def _without(name: str) -> Callable[[Weights], Weights]:
    return lambda weights: {key: value for key, value in weights.items() if key != name}


def _replaced(name: str, value: Array) -> Callable[[Weights], Weights]:
    return lambda weights: {**weights, name: value}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _without("MobilenetV2/Conv/BatchNorm/gamma"),
            "gamma/ExponentialMovingAverage of shape .*no such variable",
        ),
        (_replaced("MobilenetV2/Conv/weights", np.ones((3, 3, 3, 8), np.float32)), r"shape \(3, 3, 3, 8\)"),
        (
            _replaced("MobilenetV2/Conv/BatchNorm/beta", np.array([np.nan] * 3 + [0.0] * 13, np.float32)),
            "3 of 16 values not finite",
        ),
        (_replaced("MobilenetV2/Conv/BatchNorm/beta", np.zeros(16, np.float64)), "float32"),
        (
            _replaced("MobilenetV2/Conv/BatchNorm/moving_variance", np.full(16, -1, np.float32)),
            "16 of 16 values negative",
        ),
    ],
    ids=["missing", "misshapen", "NaN", "float64", "negative variance"],
)
def test_a_bad_variable_is_named(
    change: Callable[[Weights], Weights], message: str, small_weights: Weights, tmp_path: Path
) -> None:
    """A missing variable, one of the wrong shape or type, and one with a NaN or a negative variance are refused."""
    with pytest.MonkeyPatch.context() as patch:
        # A frozen graph of broken weights cannot be written, and this test does not need one.
        patch.setattr(official_layout, "unfolded_graph", lambda model, values: b"")
        path = official_layout.write_archive(tmp_path / "a.tgz", SMALL, change(small_weights), drop=("_frozen.pb",))
    with pytest.raises(InputError, match=message):
        read_archive(path, SMALL)


@pytest.mark.parametrize("part", [".ckpt.index", ".ckpt.data-00000-of-00001"])
def test_an_archive_without_a_needed_file_is_refused(part: str, small_weights: Weights, tmp_path: Path) -> None:
    """The message names the missing file and those that are in the archive."""
    path = official_layout.write_archive(tmp_path / "a.tgz", SMALL, small_weights, drop=(part,))
    with pytest.raises(InputError, match=rf"to hold mobilenet_v2_0.35_96{part}.*mobilenet_v2_0.35_96_info.txt"):
        read_archive(path, SMALL)


def test_an_archive_of_another_model_is_refused(small_archive: Path) -> None:
    """For 1.0_224, and an archive of 0.35_96, the message names both."""
    with pytest.raises(InputError, match=r"mobilenet_v2_1\.0_224\.ckpt.*found mobilenet_v2_0\.35_96"):
        read_archive(small_archive, Model())


@pytest.mark.parametrize("part", ["ckpt.index", "ckpt.data-00000-of-00001", "frozen.pb"])
def test_a_damaged_member_is_refused(part: str, small_archive: Path, tmp_path: Path) -> None:
    """Zeros in the index, the data or the frozen graph are never read as weights."""
    import tarfile

    unpack(small_archive, tmp_path / "members")
    (victim,) = (path for path in (tmp_path / "members").rglob("*") if path.name.endswith(part))
    data = bytearray(victim.read_bytes())
    start, stop = len(data) // 10, len(data) // 10 * 9
    data[start:stop] = bytes(stop - start)
    victim.write_bytes(data)
    with tarfile.open(tmp_path / "bad.tgz", "w:gz", compresslevel=1) as tar:
        for file in (tmp_path / "members").rglob("*"):
            tar.add(file, file.name)
    try:
        check = read_archive(tmp_path / "bad.tgz", SMALL).comparison
    except InputError:
        return
    # A damaged constant can still be a number. Then the comparison of the two copies has to find a difference.
    assert check is not None
    assert check.first_other or check.not_checked


@pytest.mark.shared
def test_the_stand_in_agrees_with_its_frozen_graph_on_real_pictures(shared: Path, tmp_path: Path) -> None:
    """Folded averages give the outputs of the frozen graph, and folded raw variables do not."""
    import tensorflow as tf

    archive = shared / "checkpoint" / "mobilenet_v2_1.0_224.tgz"
    weights = read_archive(archive, Model())
    assert weights.comparison == GraphComparison(exact=262)
    files = unpack(archive, tmp_path)
    frozen = next(path for name, path in files.items() if name.endswith("_frozen.pb")).read_bytes()
    prefix = str(next(path for name, path in files.items() if name.endswith(".index")).with_suffix(""))
    reader = tf.train.load_checkpoint(prefix)
    raw = {name: reader.get_tensor(name) for name in weights.values}
    runners = [
        Runner(convert.convert_float(architecture.frozen_graph(Model(), values)), "xnnpack")
        for values in (weights.values, raw)
    ]
    source = FolderSource(shared / "imagenet_sample")
    largest = [0.0, 0.0]
    for picture in sorted(source.pictures(), key=lambda item: item.id)[:10]:
        value = normalize(source.read(picture.id)[0], Preprocess(), 224)
        expected = official_layout.run_graph(frozen, value)
        for index, runner in enumerate(runners):
            largest[index] = max(largest[index], float(np.abs(runner.run(value)[0] - expected).max()))
    assert largest[0] < SAME
    assert largest[1] > 1e-2

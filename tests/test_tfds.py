"""TFDS data sets that the tests prepare with TFDS's own builders, writer and mock data.

Generated pictures replace ImageNet's. The expected values are those that TFDS reads.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from calibration.pictures.class_labels import class_of_synset
from calibration.pictures.opening import Reading, open_source
from calibration.pictures.record_index import SLIM
from calibration.pictures.records import RecordSource
from calibration.selection import select
from recreate_model.network.labels import VALIDATION_PREFIX, validation_classes
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import InputError, UsageError
from tests import pictures
from tests.test_bad_input import assert_nothing_written, assert_one_error, run, small

IMAGENET = "imagenet2012"
V2, IMAGENETTE = "imagenet_v2/matched-frequency", "imagenette/320px-v2"
COUNT = 20


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test."""
    monkeypatch.setenv("RECREATE_MODEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that opens a data set in a folder as a user does with `--images`."""

    def call(folder: Path, images: str, **reading: Any) -> RecordSource:
        monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
        source = open_source(images, Reading(**reading))
        assert isinstance(source, RecordSource)
        return source

    return call


def prepare_imagenet(folder: Path, shards: int) -> Path:
    """Runs the real imagenet2012 builder on an archive of generated pictures with official names."""
    import tensorflow_datasets as tfds

    manual = folder / "downloads" / "manual"
    manual.mkdir(parents=True)
    with tarfile.open(manual / "ILSVRC2012_img_val.tar", "w") as tar:
        for number in range(1, COUNT + 1):
            member = tarfile.TarInfo(f"{VALIDATION_PREFIX}{number:08d}.JPEG")
            member.size = len(data := pictures.jpeg(number))
            tar.addfile(member, io.BytesIO(data))
    builder = tfds.builder(IMAGENET, data_dir=folder)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=shards))
    return folder


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """imagenet2012 in three shards."""
    return prepare_imagenet(tmp_path_factory.mktemp("imagenet"), 3)


def mocked(name: str, split: str) -> tuple[Any, list[dict[str, Any]]]:
    """The features of a data set, and examples of its split from TFDS's mock data, with encoded pictures."""
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=COUNT, policy=tfds.testing.MockPolicy.USE_CODE):
        features = tfds.builder(name).info.features
        decoders = {"image": tfds.decode.SkipDecoding()}
        return features, list(tfds.load(name, split=split, decoders=decoders).as_numpy_iterator())


def prepare(folder: Path, name: str, features: Any, splits: Mapping[str, list[dict[str, Any]]], **how: Any) -> Path:
    """Writes examples with TFDS as the data set of this name, and returns the folder."""
    import tensorflow_datasets as tfds

    name, _, config = name.partition("/")
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        config=config or None,
        version={"imagenet_v2": "3.0.0", "imagenette": "1.0.0"}.get(name, "2.1.0"),
        features=features,
        split_datasets={
            split: [(number, {**row, **_opened(row)}) for number, row in enumerate(examples)]
            for split, examples in splits.items()
        },
        data_dir=folder,
        download_config=tfds.download.DownloadConfig(num_shards=how.pop("shards", 3)),
        **how,
    )
    return folder


def _opened(row: Mapping[str, Any]) -> dict[str, io.BytesIO]:
    """The encoded pictures of an example as open files, which TFDS stores unchanged."""
    return {name: io.BytesIO(row[name]) for name in ("image", "other") if name in row}


def read_by_tfds(folder: Path, name: str, split: str) -> list[dict[str, Any]]:
    """The examples as TFDS reads them, with encoded pictures."""
    import tensorflow_datasets as tfds

    dataset = tfds.builder(name, data_dir=folder).as_dataset(
        split=split, decoders={"image": tfds.decode.SkipDecoding()}, shuffle_files=False
    )
    return list(dataset.as_numpy_iterator())


def names_of_classes(folder: Path, name: str) -> list[str]:
    """The names of a data set's classes, as TFDS lists them."""
    import tensorflow_datasets as tfds

    names: list[str] = tfds.builder(name, data_dir=folder).info.features["label"].names
    return names


def assert_read_as_by_tfds(source: RecordSource, folder: Path, name: str, split: str) -> None:
    """Asserts that a source has the pictures, names and classes that TFDS reads."""
    names = names_of_classes(folder, name)
    expected = {}
    for row in read_by_tfds(folder, name, split):
        picture_id = row["file_name"].decode() if "file_name" in row else digest_bytes(row["image"])
        expected[picture_id] = (row["image"], class_of_synset(names[row["label"]]))
    assert len(expected) == COUNT
    assert {p.id: (source.encoded(p.id), p.label) for p in source.pictures()} == expected
    assert all(p.sha256 == digest_bytes(expected[p.id][0]) for p in source.pictures())


def test_imagenet2012_is_read_as_tfds_reads_it(imagenet: Path, opened: Any) -> None:
    """Names, bytes and classes are those that TFDS reads, and the classes are the known ones."""
    source = opened(imagenet, f"tfds:{IMAGENET}")
    assert source.kind == source.name == "tfds:imagenet2012:5.1.0/validation"
    assert_read_as_by_tfds(source, imagenet, IMAGENET, "validation")
    assert {p.id: p.label for p in source.pictures()} == dict(list(validation_classes().items())[:COUNT])
    assert source.encoded(f"{VALIDATION_PREFIX}00000007.JPEG") == pictures.jpeg(7)


def test_a_shard_with_fewer_records_than_tfds_wrote_is_named(imagenet: Path, opened: Any) -> None:
    """A shard cut between two records is valid, but TFDS's metadata state how many records it has."""
    source = opened(imagenet, f"tfds:{IMAGENET}")
    path, last = source.records.files[1], max(row.offset for row in source.rows.values() if row.shard == 1)
    good = path.read_bytes()
    try:
        path.write_bytes(good[:last])
        with pytest.raises(InputError, match=r"expected 6 records in .*-00001-of-00003, .*; found 5;"):
            opened(imagenet, f"tfds:{IMAGENET}")
        path.unlink()
        with pytest.raises(InputError, match=r"all 3 shards of validation; found no .*-00001-of-00003;"):
            opened(imagenet, f"tfds:{IMAGENET}")
    finally:
        path.write_bytes(good)


def test_damaged_metadata_is_bad_input(imagenet: Path, opened: Any) -> None:
    """Any error of TFDS becomes one line with the name of the data set and the command that helps."""
    info = imagenet / IMAGENET / "5.1.0" / "dataset_info.json"
    good = info.read_text()
    try:
        for text in (good[: len(good) // 2], "", "{}", "[]"):
            info.write_text(text)
            with pytest.raises(InputError, match=r"TFDS to open tfds:imagenet2012; found \S.*download_and_prepare"):
                opened(imagenet, f"tfds:{IMAGENET}")
    finally:
        info.write_text(good)


def test_errors_about_unknown_names_say_what_to_type(imagenet: Path, opened: Any) -> None:
    """An unknown data set, config, version or split, a set that is not prepared, and no name at all."""
    for images, *words in (
        ("tfds:imagenet2021", "no imagenet2021", "did you mean imagenet2012"),
        ("tfds:imagenette/321px", "321px not found", "configs full-size-v2, 320px-v2"),
        ("tfds:imagenet2012:4.0.0", "4.0.0, only: 5.1.0, 5.0.0", "versions 5.1.0, 5.0.0"),
        ("tfds:imagenet2012:5.0.0", "found version 5.1.0 there"),
        ("tfds:imagenette/320px-v2", "no complete version there", f'320px-v2:1.0.0", data_dir="{imagenet}")'),
        ("tfds:", "tfds:NAME/CONFIG"),
        ("tfds:huggingface:mnist", "tfds:NAME/CONFIG"),
    ):  # fmt: skip
        with pytest.raises(InputError) as caught:
            opened(imagenet, images)
        for word in words:
            assert word in str(caught.value)
    with pytest.raises(InputError, match=r"split train in tfds:imagenet2012:5\.1\.0; found splits: validation"):
        opened(imagenet, "tfds:imagenet2012", split="train")
    for option in ({"label_base": 0}, {"label_file": Path("val.txt")}):
        with pytest.raises(UsageError, match="no --label"):
            opened(imagenet, "tfds:imagenet2012", **option)


def test_the_manual_files_are_named(tmp_path: Path, opened: Any) -> None:
    """For files that users have to download themselves: their names, their folder, and the command that follows."""
    with pytest.raises(InputError) as caught:
        opened(tmp_path, f"tfds:{IMAGENET}")
    step = caught.value.next_step
    for part in (str(tmp_path / "downloads" / "manual"), "ILSVRC2012_img_val.tar", ".download_and_prepare()'"):
        assert part in step


def test_the_command_in_an_error_prepares_the_data_set(imagenet: Path, tmp_path: Path, opened: Any) -> None:
    """It runs unchanged, and the data set can then be opened."""
    shutil.copytree(imagenet / "downloads", tmp_path / "downloads")
    with pytest.raises(InputError) as caught:
        opened(tmp_path, f"tfds:{IMAGENET}")
    command = caught.value.next_step.rpartition("then run python ")[2]
    subprocess.run(f"{sys.executable} {command}", shell=True, check=True, capture_output=True, timeout=300)
    assert len(opened(tmp_path, f"tfds:{IMAGENET}").pictures()) == COUNT


def test_imagenet2012_does_not_depend_on_the_number_of_shards(imagenet: Path, tmp_path: Path, opened: Any) -> None:
    """Prepared again with one shard, it has the same pictures and the same selection."""
    three, one = opened(imagenet, f"tfds:{IMAGENET}"), opened(prepare_imagenet(tmp_path, 1), f"tfds:{IMAGENET}")
    assert len(three.records.files) != len(one.records.files)
    assert set(three.pictures()) == set(one.pictures())
    assert select(three, 8, 9) == select(one, 8, 9)


@pytest.mark.parametrize(("name", "version", "split"), [(V2, "3.0.0", "test"), (IMAGENETTE, "1.0.0", "validation")])
def test_mock_data_is_read_as_tfds_reads_it(name: str, version: str, split: str, tmp_path: Path, opened: Any) -> None:
    """TFDS writes it in one shard and in four; bytes, labels and names are those that TFDS reads."""
    features, examples = mocked(name, split)
    for shards in (1, 4):
        folder = prepare(tmp_path / str(shards), name, features, {split: examples, "train": examples}, shards=shards)
        source = opened(folder, f"tfds:{name}")
        assert source.kind == source.name == f"tfds:{name}:{version}/{split}"
        assert_read_as_by_tfds(source, folder, name, split)
        assert all(picture.label for picture in source.pictures())
    sources = [opened(tmp_path / str(shards), f"tfds:{name}") for shards in (1, 4)]
    assert set(sources[0].pictures()) == set(sources[1].pictures())
    assert select(sources[0], 8, 9) == select(sources[1], 8, 9)


def test_errors_about_unusable_sets_say_why(tmp_path: Path, opened: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Another file format, no default split, classes that are not ImageNet's, no picture, two pictures."""
    import tensorflow_datasets as tfds

    features, examples = mocked(V2, "test")
    prepare(tmp_path / "array", V2, features, {"test": examples}, file_format="array_record")
    with pytest.raises(InputError, match="to be prepared as tfrecord; found array_record in"):
        opened(tmp_path / "array", f"tfds:{V2}")
    prepare(tmp_path / "splits", V2, features, {"one": examples, "two": examples})
    with pytest.raises(InputError, match=r"found splits: one, two; .*--split"):
        opened(tmp_path / "splits", f"tfds:{V2}")
    assert opened(tmp_path / "splits", f"tfds:{V2}", split="two").kind.endswith("/two")

    made = tfds.features
    animals = [{"image": row["image"], "label": row["label"] % 3} for row in examples]
    classes = made.ClassLabel(names=["cat", "n01440764", "dog"])
    prepare(tmp_path, "animals", made.FeaturesDict({"image": made.Image(), "label": classes}), {"train": animals})
    labels = [picture.label for picture in opened(tmp_path, "tfds:animals").pictures()]
    assert set(labels) == {None, 1}
    assert "classes that are not ImageNet's 1000, such as" in caplog.text

    image = made.Image()
    pairs = [{"image": row["image"], "other": row["image"]} for row in examples]
    prepare(tmp_path, "pairs", made.FeaturesDict({"image": image, "other": image}), {"train": pairs})
    with pytest.raises(InputError, match="one picture in each example; found image, other"):
        opened(tmp_path, "tfds:pairs")
    prepare(tmp_path, "words", made.FeaturesDict({"text": made.Text()}), {"train": [{"text": "a word"}]}, shards=1)
    with pytest.raises(InputError, match="one picture in each example; found none among text"):
        opened(tmp_path, "tfds:words")


@pytest.mark.slow
def test_the_command_line_accepts_a_data_set(imagenet: Path, tmp_path: Path) -> None:
    """With --images or IMAGENET_DIR. No output of TFDS or TensorFlow reaches the terminal."""
    where = {"TFDS_DATA_DIR": str(imagenet), "RECREATE_MODEL_CACHE": str(tmp_path / "cache")}
    for index, (images, surroundings) in enumerate(
        (("tfds:imagenet2012", where), ("auto", {**where, "IMAGENET_DIR": "tfds:imagenet2012"}))
    ):
        for command in ("quantize", "evaluate"):
            result = run(*small(command, tmp_path / str(index), images=images), "--quiet", **surroundings)
            assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        (written,) = (tmp_path / str(index)).glob("*/evaluate.json")
        assert '"source": "tfds:imagenet2012:5.1.0/validation"' in written.read_text()
        assert str(imagenet) not in written.read_text()


def test_an_unprepared_data_set_is_bad_input(tmp_path: Path) -> None:
    """One line with the command, status 3, nothing written."""
    result = run(*small("calibrate", tmp_path / "out", images=f"tfds:{IMAGENETTE}"), TFDS_DATA_DIR=str(tmp_path))
    assert_one_error(result, 3, "to be prepared in", "download_and_prepare()")
    assert_nothing_written(tmp_path / "out")


def test_a_folder_of_tfds_records_is_refused_with_advice(imagenet: Path) -> None:
    """Its features have other names than TF-Slim's; the error suggests tfds:NAME."""
    with pytest.raises(InputError, match=rf"no feature {SLIM.image} among file_name, image, label; .*tfds:NAME"):
        open_source(str(imagenet / "imagenet2012" / "5.1.0"), Reading())

"""TFRecords: any division into shards gives the same pictures, and every damaged byte is an error."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calibration.parallel.workers import Workers
from calibration.pictures import tfrecord
from calibration.pictures.folder import FolderSource
from calibration.pictures.inputs import Inputs
from calibration.pictures.opening import Reading, open_source
from calibration.pictures.record_index import SLIM
from calibration.pictures.records import RecordSet, RecordSource, open_records
from calibration.pictures.shards import check_complete, find_splits
from calibration.pictures.sources import StoredSource
from calibration.ranges.measure import measure
from calibration.selection import Selection, select
from recreate_model.network.labels import validation_classes
from recreate_model.recipe import Preprocess
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import InputError, UsageError
from tests import pictures, record_sets
from tests.conftest import SMALL_REQUEST, build
from tests.record_sets import plain
from tests.test_bad_input import assert_nothing_written, assert_one_error, run, small

TINY = [plain(f"picture {number}".encode(), number) for number in (0, 7, 12)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test."""
    monkeypatch.setenv("RECREATE_MODEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def opened(path: Path, **reading: Any) -> StoredSource:
    """The source that a user gets with `--images`."""
    return open_source(str(path), Reading(**reading))


def listing(source: StoredSource) -> dict[str, tuple[str, int | None]]:
    """Digest and label of each picture, by id."""
    return {picture.id: (picture.sha256, picture.label) for picture in source.pictures()}


def contents(selection: Selection) -> list[list[tuple[str, int | None]]]:
    """Digest and label of each selected picture, in order, without ids: those of a folder contain its name."""
    return [[(p.sha256, p.label) for p in part] for part in (selection.calibration, selection.evaluation)]


def single(path: Path, records: list[bytes], label_base: int | None = None) -> RecordSource:
    """A source of one file with these records."""
    record_sets.write_file(path, records)
    return open_records(RecordSet("tfrecord", str(path), (path,), SLIM), label_base)


# Framing and parsing


VALUES = (
    st.lists(st.binary(max_size=40), max_size=4)
    | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)
    | st.lists(st.floats(width=32, allow_nan=False), max_size=4)
)


@given(st.dictionaries(st.text(max_size=12), VALUES, max_size=6))
def test_an_example_is_read_as_tensorflow_wrote_it(features: dict[str, list[Any]]) -> None:
    """Features of bytes, integers and floats, with negative values and empty lists, under any names."""
    assert tfrecord.features(record_sets.example(features)) == features


@given(st.binary(max_size=80) | st.tuples(st.integers(0, 60), st.integers(1, 255)))
def test_bytes_that_are_not_an_example_give_features_or_a_value_error(how: bytes | tuple[int, int]) -> None:
    """Any bytes, and an example with one byte changed, raise no other exception."""
    data = how
    if isinstance(how, tuple):
        good = bytearray(TINY[1])
        good[how[0] % len(good)] ^= how[1]
        data = bytes(good)
    with contextlib.suppress(ValueError):
        assert all(isinstance(values, list) for values in tfrecord.features(data).values())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(st.binary(max_size=300), max_size=8))
def test_records_are_read_as_tensorflow_wrote_them(records: list[bytes], tmp_path: Path) -> None:
    """All records in order, and each one again by its offset."""
    path = record_sets.write_file(tmp_path / "any.tfrecord", records)
    found = list(tfrecord.records(path))
    assert [data for _, data in found] == records
    assert [tfrecord.record_at(path, 1, offset) for offset, _ in found] == records


def _boundaries(path: Path) -> list[int]:
    ends = [offset for offset, _ in tfrecord.records(path)]
    return [*ends, path.stat().st_size]


def test_every_changed_byte_is_noticed_and_its_record_named(tmp_path: Path) -> None:
    """For every byte of the file, the error names the damaged record and the byte at which it begins."""
    path = record_sets.write_file(tmp_path / "set.tfrecord", TINY)
    good, starts = path.read_bytes(), _boundaries(path)
    for position in range(len(good)):
        for changed in (good[position] ^ 0xFF, good[position] ^ 1 << position % 8):
            path.write_bytes(good[:position] + bytes([changed]) + good[position + 1 :])
            number = sum(start <= position for start in starts[:-1])
            with pytest.raises(InputError) as caught:
                open_records(RecordSet("tfrecord", "set", (path,), SLIM), None)
            assert f"record {number} of {path}, at byte {starts[number - 1]}," in caught.value.expected


def test_a_file_that_ends_inside_a_record_is_refused(tmp_path: Path) -> None:
    """A file cut between two records is a valid file of the records before the cut."""
    path = record_sets.write_file(tmp_path / "set.tfrecord", TINY)
    good, starts = path.read_bytes(), _boundaries(path)
    for length in range(1, len(good)):
        path.write_bytes(good[:length])
        if length in starts:
            source = open_records(RecordSet("tfrecord", "set", (path,), SLIM), None)
            assert len(source.pictures()) == starts.index(length)
        else:
            number = sum(start <= length for start in starts)
            with pytest.raises(InputError, match=r"file's end|the end of") as caught:
                open_records(RecordSet("tfrecord", "set", (path,), SLIM), None)
            assert f"record {number} of {path}, at byte {starts[number - 1]}," in caught.value.expected


def test_a_cut_between_records_is_noticed_where_the_count_is_known(tmp_path: Path) -> None:
    """A data set that states the number of records of a shard must have as many."""
    path = record_sets.write_file(tmp_path / "set.tfrecord", TINY)
    whole = RecordSet("tfrecord", "set", (path,), SLIM, counts=(3,))
    assert len(open_records(whole, None).pictures()) == 3
    path.write_bytes(path.read_bytes()[: _boundaries(path)[2]])
    with pytest.raises(InputError, match=rf"expected 3 records in {path}.*; found 2;"):
        open_records(whole, None)


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_a_compressed_file_is_refused(compression: str, tmp_path: Path) -> None:
    """The error names the compression. A record in such a file cannot be read by its offset."""
    path = record_sets.write_file(tmp_path / "validation.tfrecord", TINY, compression)
    with pytest.raises(
        InputError, match=f"without compression; found one that looks compressed with {compression.lower()}"
    ) as e:
        opened(path)
    assert e.value.status == 3


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A file of 64 MB is read one record at a time."""
    path = record_sets.write_file(tmp_path / "large.tfrecord", [bytes([number]) * (1 << 20) for number in range(64)])
    tracemalloc.start()
    try:
        assert sum(1 for _ in tfrecord.records(path)) == 64
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


# The division into shards does not matter


@pytest.fixture(scope="module")
def synset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures of six synsets."""
    return pictures.write_folder(tmp_path_factory.mktemp("synsets"), count=30)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shards=st.integers(1, 40), chance=st.randoms(use_true_random=False))
def test_pictures_do_not_depend_on_the_division_into_shards(
    shards: int, chance: random.Random, synset_folder: Path, tmp_path: Path
) -> None:
    """Ids, digests, labels and the selection are equal for any number of shards and any order of records."""
    folder = tmp_path / f"{shards}-{chance.random()}"
    records = record_sets.slim_of_folder(synset_folder)
    record_sets.write_shards(tmp_path / "one", "validation", records, 1)
    record_sets.write_shards(folder, "validation", chance.sample(records, len(records)), shards)
    one, other = opened(tmp_path / "one"), opened(folder)
    assert listing(one) == listing(other)
    assert len(listing(one)) == 30
    assert select(one, 11, 13) == select(other, 11, 13)
    shutil.rmtree(folder)


def test_records_are_selected_like_the_files_they_were_made_from(synset_folder: Path, tmp_path: Path) -> None:
    """TF-Slim's records and the synset folders give the same pictures in the same order."""
    record_sets.write_shards(tmp_path / "slim", "validation", record_sets.slim_of_folder(synset_folder), 4)
    source, folder = opened(tmp_path / "slim"), FolderSource(synset_folder)
    for seed in (0, 3):
        chosen, expected = select(source, 10, 15, seed), select(folder, 10, 15, seed)
        assert contents(chosen) == contents(expected)
    for picture in folder.pictures():
        assert source.encoded(picture.id.rpartition("/")[2]) == (synset_folder / picture.id).read_bytes()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shards=st.integers(1, 12), chance=st.randoms(use_true_random=False))
def test_pictures_without_names_do_not_depend_on_shards(shards: int, chance: random.Random, tmp_path: Path) -> None:
    """The published recipe's records have no file names; the digest of a picture is its id."""
    folder = tmp_path / f"{shards}-{chance.random()}"
    records = {digest_bytes(pictures.jpeg(n)): plain(pictures.jpeg(n), n) for n in range(12)}
    record_sets.write_shards(folder, "validation", chance.sample([*records.values()], 12), shards)
    source = opened(folder)
    assert listing(source) == {name: (name, n + 1) for n, name in enumerate(records)}
    shutil.rmtree(folder)


def test_the_published_layout_is_found_from_its_parent_folder(tmp_path: Path) -> None:
    """`data/validation_data/validation-*`, with any text after the dash."""
    folder = tmp_path / "data" / "validation_data"
    for number, name in enumerate(("validation-0", "validation-00001-of-00002x", "validation-b")):
        record_sets.write_file(folder / name, [plain(pictures.jpeg(number), number)])
    source = opened(tmp_path / "data")
    assert (source.kind, source.name, len(source.pictures())) == ("tfrecord", str(folder), 3)


def test_a_source_survives_pickling_and_reads_the_same(synset_folder: Path, tmp_path: Path) -> None:
    """Worker processes get a pickled copy."""
    record_sets.write_shards(tmp_path / "slim", "train", record_sets.slim_of_folder(synset_folder), 3)
    source = opened(tmp_path / "slim")
    copy = pickle.loads(pickle.dumps(source))
    assert copy.pictures() == source.pictures()
    for picture in source.pictures():
        pixels, digest = copy.read(picture.id)
        assert digest == picture.sha256 == source.digest(picture.id)
        assert (pixels == source.read(picture.id)[0]).all()


@pytest.mark.slow
def test_records_calibrate_to_the_bytes_of_the_folder(synset_folder: Path, tmp_path: Path) -> None:
    """A whole build with two processes gives the same INT8 model, ranges and figures as from the files."""
    record_sets.write_shards(tmp_path / "slim", "validation", record_sets.slim_of_folder(synset_folder), 4)
    results = []
    for images in (synset_folder, tmp_path / "slim"):
        request = replace(
            SMALL_REQUEST, images=str(images), calib=12, limit=10, jobs=2, out=tmp_path / f"of-{images.name}"
        )
        build(request, ("evaluate",))
        (folder,) = request.out.iterdir()
        figures = [
            line
            for line in (folder / "evaluate.json").read_text().splitlines()
            if not any(name in line for name in ('"source"', '"pictures_sha256"'))  # they depend on ids
        ]
        ranges = (folder / "calibration" / "ranges.json").read_bytes()
        results.append((next(folder.glob("*.tflite")).read_bytes(), ranges, figures))
    assert results[0] == results[1]


@pytest.mark.shared
def test_real_pictures_as_records_are_selected_like_the_files(shared: Path, tmp_path: Path) -> None:
    """700 pictures in seven shards: 500 to calibrate and 200 to evaluate, the same as from their folders."""
    folder = shared / "imagenet_sample"
    record_sets.write_shards(tmp_path / "slim", "validation", record_sets.slim_of_folder(folder), 7)
    chosen = select(opened(tmp_path / "slim"), 500, 200)
    expected = select(FolderSource(folder), 500, 200)
    assert len(chosen.calibration) == 500
    assert len(chosen.evaluation) == 200
    assert contents(chosen) == contents(expected)


def test_an_unreadable_picture_is_named_with_its_place(tmp_path: Path) -> None:
    """The name alone does not say in which record of which shard it is."""
    cut = pictures.jpeg(2)[:-900]
    source = single(
        tmp_path / "x.tfrecord", [plain(pictures.jpeg(1), 0), plain(cut, 1, **{"image/filename": b"cut.JPEG"})]
    )
    with pytest.raises(InputError, match=rf"cut\.JPEG \(record 2 of {tmp_path / 'x.tfrecord'}\) to be a complete JPEG"):
        source.read("cut.JPEG")


# Labels


def test_labels_are_those_of_the_synset(tmp_path: Path) -> None:
    """A synset is unambiguous; a number may count from 0 or from 1."""
    records = [
        record_sets.slim(pictures.jpeg(n), record_sets.synset(label), f"{n}.JPEG")
        for n, label in enumerate((2, 999, 500))
    ]
    source = single(tmp_path / "x.tfrecord", records)
    assert {p.id: p.label for p in source.pictures()} == {"0.JPEG": 2, "1.JPEG": 999, "2.JPEG": 500}


@pytest.mark.parametrize(
    ("numbers", "base", "classes"),
    [
        ((0, 5), None, (1, 6)),
        ((1000, 5), None, (1000, 5)),
        ((3, 5), 0, (4, 6)),
        ((3, 5), 1, (3, 5)),
    ],
)
def test_the_label_base_is_inferred_or_given(
    numbers: tuple[int, ...], base: int | None, classes: tuple[int, ...], tmp_path: Path
) -> None:
    """A label 0 or 1000 decides the base; otherwise --label-base does."""
    source = single(tmp_path / "x.tfrecord", [plain(b"%d" % n, n) for n in numbers], base)
    assert tuple(picture.label for picture in source.pictures()) == classes


def test_an_ambiguous_label_base_is_an_error(tmp_path: Path) -> None:
    """With the wrong base, every label would be wrong by one class."""
    with pytest.raises(InputError, match="--label-base 0 or --label-base 1"):
        single(tmp_path / "x.tfrecord", [plain(b"a", 3), plain(b"b", 5)])


def test_official_names_decide_the_label_base(tmp_path: Path) -> None:
    """The classes of the official validation pictures are known."""
    known = [(name, label) for name, label in list(validation_classes().items())[:4]]
    records = [plain(name.encode(), label - 1, **{"image/filename": name.encode()}) for name, label in known]
    assert {p.id: p.label for p in single(tmp_path / "x.tfrecord", records).pictures()} == dict(known)


def test_a_picture_may_have_no_label(tmp_path: Path) -> None:
    """-1, an empty feature and a missing one mean that it is unknown; an official name still gives the class."""
    official, label = next(iter(validation_classes().items()))
    empty = record_sets.example({"image/encoded": b"b", "image/class/label": []})
    records = [plain(b"a", -1), empty, plain(b"c", None), plain(b"d", -1, **{"image/filename": official.encode()})]
    labels = [picture.label for picture in single(tmp_path / "x.tfrecord", records).pictures()]
    assert labels == [None, None, None, label]


def test_a_set_without_labels_gives_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It can calibrate, but has no top-1. A set with some labels gives no warning."""
    single(tmp_path / "some.tfrecord", [plain(b"a", None), plain(b"b", 0)])
    assert caplog.records == []
    source = single(tmp_path / "none.tfrecord", [plain(b"a", None), plain(b"b", -1)])
    assert [picture.label for picture in source.pictures()] == [None, None]
    (warning,) = caplog.records
    assert "no picture in" in warning.getMessage()


@pytest.mark.parametrize(("records", "words"), [
    ([plain(b"a", 0), plain(b"b", 1001)], ("0..999", "1001 for " + digest_bytes(b"b"))),
    ([plain(b"a", 0), plain(b"b", -2)], ("0..999", "-2 for " + digest_bytes(b"b"))),
    ([plain(b"a", 0), plain(b"b", 1000)], ("which fit neither",)),
    ([plain(b"a", 0), record_sets.example({"image/encoded": b"b", "image/class/label": b"7"})],
     ("record 2 of", "image/class/label that is not a single integer")),
    ([record_sets.example({"image/encoded": b"b", "image/class/label": [7, 8]})], ("not a single integer",)),
    ([record_sets.example({"image": b"b", "label": 7})], ("no feature image/encoded among image, label", "tfds:NAME")),
    ([record_sets.example({})], ("no feature image/encoded among none",)),
    ([record_sets.example({"image/encoded": [b"a", b"b"]})], ("image/encoded that is not a single string",)),
    ([record_sets.example({"image/encoded": []})], ("image/encoded that is not a single string",)),
    ([plain(b"a", 0), b"\xff\xff no example"], ("record 2 of", "not a tf.train.Example")),
    ([plain(b"a", 0, **{"image/filename": b"\xff"})], ("image/filename that is not UTF-8",)),
    ([], ("no record in 1 file",)),
])  # fmt: skip
def test_invalid_records_are_refused(records: list[bytes], words: tuple[str, ...], tmp_path: Path) -> None:
    """Labels out of range, features of another type or count, records of other data, an empty set."""
    with pytest.raises(InputError) as caught:
        single(tmp_path / "x.tfrecord", records)
    for word in words:
        assert word in str(caught.value)


# Duplicate pictures


def test_a_duplicate_file_name_is_an_error(tmp_path: Path) -> None:
    """Both records are named, whether or not the pictures differ."""
    named = {"image/filename": b"same.JPEG"}
    record_sets.write_file(tmp_path / "validation-00000-of-00002", [plain(b"a", 0, **named)])
    record_sets.write_file(tmp_path / "validation-00001-of-00002", [plain(b"b", 0), plain(b"a", 0, **named)])
    with pytest.raises(InputError) as caught:
        opened(tmp_path)
    assert f"record 1 of {tmp_path / 'validation-00000-of-00002'}" in caught.value.found
    assert f"record 2 of {tmp_path / 'validation-00001-of-00002'}" in caught.value.found


def test_a_duplicate_picture_without_a_name_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If the labels agree it is one picture, and a warning counts the duplicates."""
    source = single(tmp_path / "x.tfrecord", [plain(b"a", 0), plain(b"b", 1), plain(b"a", 0), plain(b"a", 0)])
    assert len(source.pictures()) == 2
    (warning,) = caplog.records
    assert warning.getMessage().startswith("2 records in")


def test_a_duplicate_picture_with_two_labels_is_an_error(tmp_path: Path) -> None:
    """One of the labels must be wrong."""
    with pytest.raises(InputError, match=f"{digest_bytes(b'a')} as 0 and as 4"):
        single(tmp_path / "x.tfrecord", [plain(b"a", 0), plain(b"a", 4)])


# Files and splits


def fill(folder: Path, *names: str) -> Path:
    """A folder with a record file of each name; the pictures differ."""
    for name in names:
        record_sets.write_file(folder / name, [plain(name.encode(), 0)])
    return folder


@pytest.mark.parametrize(("names", "splits"), [
    (["train-00000-of-00001", "validation-00000-of-00001"], {"train": 1, "validation": 1}),
    (["imagenet_v2-test.tfrecord-00000-of-00001"], {"test": 1}),
    (["validation-00000-of-00002.tfrecord", "validation-00001-of-00002.tfrecord"], {"validation": 2}),
    (["val.tfrecord", "my-set-train.tfrecords"], {"val": 1, "train": 1}),
    (["part_01.tfrecord", "part_02.tfrecord"], {"part": 2}),
    (["validation-1", "validation-x"], {"validation": 2}),
    (["notes.txt", "train.csv", ".validation-00000-of-00001", "validation-1.idx", "a.tfrecord.idx"], {}),
], ids=str)  # fmt: skip
def test_splits_are_inferred_from_file_names(names: list[str], splits: dict[str, int], tmp_path: Path) -> None:
    """The names of TF-Slim, of TFDS and of the published recipe, and names with a suffix."""
    fill(tmp_path, *names)
    assert {split: len(files) for split, files in find_splits(tmp_path).items()} == splits


def test_the_split_is_chosen(tmp_path: Path) -> None:
    """The requested split, the only one, or validation; otherwise an error names --split and the splits."""
    only = fill(tmp_path / "only", "train-00000-of-00001")
    both = fill(tmp_path / "both", "train-00000-of-00001", "validation-00000-of-00001")
    neither = fill(tmp_path / "neither", "train-00000-of-00001", "test-00000-of-00001")
    digests = {name: digest_bytes(f"{name}-00000-of-00001".encode()) for name in ("train", "validation", "test")}
    assert [*listing(opened(only))] == [digests["train"]]
    assert [*listing(opened(both))] == [digests["validation"]]
    assert [*listing(opened(both, split="train"))] == [digests["train"]]
    assert [*listing(opened(neither, split="test"))] == [digests["test"]]
    with pytest.raises(InputError, match=r"found splits: test, train; .*--split"):
        opened(neither)
    with pytest.raises(InputError, match=r"expected split test in .*; found splits: train, validation"):
        opened(both, split="test")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    """The file names state the number of shards; missing shards of other splits do not matter."""
    fill(tmp_path, *(f"validation-{n:05d}-of-00008" for n in (0, 1, 2, 4, 5, 7)), "train-00000-of-00002")
    with pytest.raises(
        InputError, match=r"all 8 shards of validation; found 6: no validation-00003-of-00008, nor 1 other"
    ):
        opened(tmp_path)


def test_two_divisions_in_one_folder_are_an_error(tmp_path: Path) -> None:
    """They would hold the same pictures twice."""
    with pytest.raises(InputError, match="shards of 1 and of 2"):
        check_complete(find_splits(fill(tmp_path, "v-00000-of-00001", "v-00000-of-00002"))["v"])


def test_picture_files_are_preferred_to_records(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The published recipe leaves both in one folder. The warning says how to choose the records."""
    folder = tmp_path / "validation_data"
    fill(folder, "validation-00000-of-00001")
    (folder / "validation_images").mkdir()
    (folder / "validation_images" / "ILSVRC2012_val_00000001.JPEG").write_bytes(pictures.jpeg(1))
    assert opened(tmp_path).kind == "folder"
    (warning,) = caplog.records
    assert "For the records give --split validation" in warning.getMessage()
    assert opened(tmp_path, split="validation").kind == "tfrecord"
    assert len(caplog.records) == 1


def test_options_without_effect_are_invalid_usage(tmp_path: Path) -> None:
    """A label file for records; a split of a folder of pictures or of a single file."""
    records = fill(tmp_path / "records", "validation-00000-of-00001")
    folder = pictures.write_folder(tmp_path / "pictures", 2)
    for path, option in (
        (records, {"label_file": tmp_path / "val.txt"}),
        (records / "validation-00000-of-00001", {"split": "validation"}),
        (records / "validation-00000-of-00001", {"label_file": tmp_path / "val.txt"}),
        (folder, {"split": "validation"}),
    ):
        with pytest.raises(UsageError, match="expected no --"):
            opened(path, **option)
    with pytest.raises(InputError, match="No such file"):
        opened(tmp_path / "nothing", split="validation").pictures()


# Files that change, and the cache


@pytest.fixture
def listed(tmp_path: Path) -> tuple[Path, RecordSource]:
    """A set of three pictures of one size, and its source."""
    path = tmp_path / "validation.tfrecord"
    return path, single(path, [plain(bytes([n]) * 40, n) for n in range(3)])


def replaced(path: Path, records: list[bytes]) -> None:
    """Writes other records into a file and restores its modification time."""
    state = path.stat()
    record_sets.write_file(path, records)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_shard_that_disappears_is_named(listed: tuple[Path, RecordSource]) -> None:
    """It is removed after the listing and before a picture is read."""
    path, source = listed
    path.unlink()
    with pytest.raises(InputError, match=f"to read the records in {path}; found No such file"):
        source.encoded(digest_bytes(bytes([1]) * 40))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_shard_that_disappears_after_the_selection_stops_the_measurement(
    jobs: int, small_float: bytes, synset_folder: Path, tmp_path: Path
) -> None:
    """The error of a worker process arrives unchanged."""
    _, second, _ = record_sets.write_shards(
        tmp_path / "slim", "validation", record_sets.slim_of_folder(synset_folder), 3
    )
    source = opened(tmp_path / "slim")
    selection = select(source, 20, 0)
    second.unlink()
    with pytest.raises(InputError, match=f"to read the records in {second}; found No such file"):
        measure(small_float, Inputs(source, Preprocess(), 96), selection.calibration, Workers(jobs), lambda count: None)


@pytest.mark.parametrize("how", ["shorter", "damaged", "another picture", "no picture"])
def test_a_shard_that_changes_is_named(how: str, listed: tuple[Path, RecordSource]) -> None:
    """A record is checked again when it is read: it must hold the picture that was listed."""
    path, source = listed
    good = path.read_bytes()
    if how == "shorter":
        path.write_bytes(good[: len(good) // 2])
    elif how == "damaged":
        path.write_bytes(good.replace(bytes([2]) * 40, bytes([3]) * 40))
    elif how == "another picture":
        record_sets.write_file(path, [plain(bytes([n]) * 40, n) for n in (0, 1, 7)])
    else:
        record_sets.write_file(path, [*[plain(bytes([n]) * 40, n) for n in (0, 1)], record_sets.example({"x": b"y"})])
    with pytest.raises(InputError, match=f"record 3 of {path}, at byte"):
        source.read(digest_bytes(bytes([2]) * 40))


def test_a_manifest_of_other_pictures_is_refused(listed: tuple[Path, RecordSource]) -> None:
    """An id that the set does not have is an error about the input, not a crash."""
    with pytest.raises(InputError, match=r"n01440764/x\.JPEG in"):
        listed[1].encoded("n01440764/x.JPEG")


def kept_index(cache: Path) -> Path:
    """The only index in the cache."""
    (path,) = (cache / "indexes").iterdir()
    return path


def test_a_listed_set_is_not_read_again(listed: tuple[Path, RecordSource]) -> None:
    """The index is used while file names, sizes and times are unchanged. Reading would show a progress bar."""
    path, source = listed

    def bar(description: str, total: int | None) -> NoReturn:
        raise AssertionError(description)

    assert open_source(str(path), Reading(), bar).pictures() == source.pictures()


def test_a_changed_set_is_read_again(listed: tuple[Path, RecordSource], cache: Path) -> None:
    """Another time or size is enough, and the new index replaces the old one."""
    path, _ = listed
    replaced(path, [plain(bytes([n]) * 40, n) for n in (0, 5, 6)])
    os.utime(path, ns=(0, 1))
    assert {picture.id for picture in opened(path).pictures()} == {digest_bytes(bytes([n]) * 40) for n in (0, 5, 6)}
    kept_index(cache)


def test_a_replaced_file_of_the_same_size_and_time_is_listed_again(listed: tuple[Path, RecordSource]) -> None:
    """A copy that preserves times leaves such a file: equal size and time do not make the index valid."""
    path = listed[0]
    before = path.stat()
    replaced(path, [plain(bytes([n]) * 40, n) for n in (2, 1, 0)])
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    source = opened(path)
    for picture in source.pictures():
        assert digest_bytes(source.encoded(picture.id)) == picture.sha256


def test_a_damaged_index_is_made_again(listed: tuple[Path, RecordSource], cache: Path) -> None:
    """After a change of any byte, or with bytes missing, the set is listed again and the index restored."""
    path, source = listed
    kept = kept_index(cache)
    good = kept.read_bytes()
    damaged = [good[:n] + bytes([good[n] ^ 1]) + good[n + 1 :] for n in range(0, len(good), 7)]
    for data in [*damaged, good[:-1], b"", b"\n", b"x", digest_bytes(b"[]").encode() + b"\n[]"]:
        kept.write_bytes(data)
        assert opened(path).pictures() == source.pictures()
        assert kept.read_bytes() == good


def test_a_cache_that_cannot_be_written_is_not_an_error(tmp_path: Path, cache: Path) -> None:
    """The set is listed without an index."""
    cache.write_text("a file where the folder should be")
    assert len(single(tmp_path / "x.tfrecord", TINY).pictures()) == 3
    assert cache.is_file()


def test_a_synset_outside_the_thousand_is_refused(tmp_path: Path) -> None:
    """The number beside it belongs to another list of classes. The synset `?` means none, so the number counts."""
    other = {"image/class/synset": b"n99999999"}
    with pytest.raises(InputError, match="one of the 1000 synsets; found 'n99999999' for"):
        single(tmp_path / "x.tfrecord", [*TINY, plain(b"x", 5, **other)])
    (label,) = (
        p.label for p in single(tmp_path / "y.tfrecord", [plain(b"x", 0, **{"image/class/synset": b"?"})]).pictures()
    )
    assert label == 1


def test_a_shard_without_records_gives_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A copy that failed can leave an empty file, which is a valid file without records."""
    record_sets.write_shards(tmp_path, "validation", TINY, 2)
    open_source(str(tmp_path), Reading())
    assert caplog.text == ""
    (tmp_path / "validation-00001-of-00002").write_bytes(b"")
    open_source(str(tmp_path), Reading())
    assert "no record in" in caplog.text
    assert "validation-00001-of-00002; it may be truncated" in caplog.text


def test_options_do_not_enter_the_index(listed: tuple[Path, RecordSource], tmp_path: Path) -> None:
    """One index serves both values of --label-base."""
    path = listed[0]
    record_sets.write_file(path, [plain(b"a", 3)])
    assert [picture.label for picture in opened(path, label_base=0).pictures()] == [4]
    assert [picture.label for picture in opened(path, label_base=1).pictures()] == [3]


# The command line


@pytest.fixture
def errors(tmp_path: Path) -> dict[str, Path]:
    """Record files and folders that cannot be used."""
    good = record_sets.write_file(tmp_path / "good.tfrecord", TINY).read_bytes()
    cut = tmp_path / "cut.tfrecord"
    cut.write_bytes(good[:-5])
    range_ = record_sets.write_file(tmp_path / "range.tfrecord", [*TINY, plain(b"x", 1003)])
    empty = record_sets.write_file(tmp_path / "empty.tfrecord", [])
    return {"cut": cut, "range": range_, "empty": empty, "shards": fill(tmp_path / "s", "validation-00001-of-00002")}


@pytest.mark.parametrize(("kind", "words"), [
    ("cut", ("record 3 of", "5 bytes too early")),
    ("range", ("0..999", "1003 for")),
    ("empty", ("no record in 1 file",)),
    ("shards", ("no validation-00000-of-00002",)),
])  # fmt: skip
def test_bad_records_are_bad_input(kind: str, words: tuple[str, ...], errors: dict[str, Path], tmp_path: Path) -> None:
    """One line, status 3, and nothing written."""
    assert_one_error(run(*small("calibrate", tmp_path / "out", images=errors[kind])), 3, *words)
    assert_nothing_written(tmp_path / "out")


def test_a_split_of_procedural_pictures_is_invalid_usage(tmp_path: Path) -> None:
    """Status 2."""
    assert_one_error(run(*small("calibrate", tmp_path / "out", split="validation")), 2, "no --split with procedural")

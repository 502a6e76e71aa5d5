"""TFRecords: the same pictures however they are divided, every damaged byte noticed, and what each error says."""

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
    """A cache of the test's own."""
    monkeypatch.setenv("RECREATE_MODEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def opened(path: Path, **reading: Any) -> StoredSource:
    """The source a user gets."""
    return open_source(str(path), Reading(**reading))


def listing(source: StoredSource) -> dict[str, tuple[str, int | None]]:
    """Digest and label of each picture, by id."""
    return {picture.id: (picture.sha256, picture.label) for picture in source.pictures()}


def contents(selection: Selection) -> list[list[tuple[str, int | None]]]:
    """Digest and label of what calibrates and of what evaluates, in order: a folder's ids have the folder in them."""
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
    """Bytes, whole numbers and floats, negative and empty ones, under any names."""
    assert tfrecord.features(record_sets.example(features)) == features


@given(st.binary(max_size=80) | st.tuples(st.integers(0, 60), st.integers(1, 255)))
def test_bytes_that_are_no_example_are_refused(how: bytes | tuple[int, int]) -> None:
    """Any bytes, or an example with one of its bytes changed: features come out, or a ValueError, and nothing else."""
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
    """All of them in order, and each again by its offset."""
    path = record_sets.write_file(tmp_path / "any.tfrecord", records)
    found = list(tfrecord.records(path))
    assert [data for _, data in found] == records
    assert [tfrecord.record_at(path, 1, offset) for offset, _ in found] == records


def _boundaries(path: Path) -> list[int]:
    ends = [offset for offset, _ in tfrecord.records(path)]
    return [*ends, path.stat().st_size]


def test_every_changed_byte_is_noticed_and_its_record_named(tmp_path: Path) -> None:
    """Whichever byte of the file is another, the error says in which record, and at which byte that begins."""
    path = record_sets.write_file(tmp_path / "set.tfrecord", TINY)
    good, starts = path.read_bytes(), _boundaries(path)
    for position in range(len(good)):
        for changed in (good[position] ^ 0xFF, good[position] ^ 1 << position % 8):
            path.write_bytes(good[:position] + bytes([changed]) + good[position + 1 :])
            number = sum(start <= position for start in starts[:-1])
            with pytest.raises(InputError) as caught:
                open_records(RecordSet("tfrecord", "set", (path,), SLIM), None)
            assert f"record {number} of {path}, at byte {starts[number - 1]}," in caught.value.expected


def test_every_cut_is_noticed_but_for_those_between_records(tmp_path: Path) -> None:
    """A file cut inside a record is refused; one cut between two is a whole file of the records before."""
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


def test_a_cut_between_records_is_noticed_where_the_number_is_known(tmp_path: Path) -> None:
    """Data sets that say how many records a shard has are held to it."""
    path = record_sets.write_file(tmp_path / "set.tfrecord", TINY)
    whole = RecordSet("tfrecord", "set", (path,), SLIM, counts=(3,))
    assert len(open_records(whole, None).pictures()) == 3
    path.write_bytes(path.read_bytes()[: _boundaries(path)[2]])
    with pytest.raises(InputError, match=rf"expected 3 records in {path}.*; found 2;"):
        open_records(whole, None)


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_a_compressed_file_is_refused_by_name(compression: str, tmp_path: Path) -> None:
    """TensorFlow reads these only where it is told to; a record cannot be found again in one."""
    path = record_sets.write_file(tmp_path / "validation.tfrecord", TINY, compression)
    with pytest.raises(
        InputError, match=f"without compression; found one that looks compressed with {compression.lower()}"
    ) as e:
        opened(path)
    assert e.value.status == 3


def test_memory_stays_flat(tmp_path: Path) -> None:
    """A file of 64 MB is read a record at a time."""
    path = record_sets.write_file(tmp_path / "large.tfrecord", [bytes([number]) * (1 << 20) for number in range(64)])
    tracemalloc.start()
    try:
        assert sum(1 for _ in tfrecord.records(path)) == 64
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


# The same pictures, however they are divided


@pytest.fixture(scope="module")
def synset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures of six synsets."""
    return pictures.write_folder(tmp_path_factory.mktemp("synsets"), count=30)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shards=st.integers(1, 40), chance=st.randoms(use_true_random=False))
def test_the_division_into_shards_does_not_show(
    shards: int, chance: random.Random, synset_folder: Path, tmp_path: Path
) -> None:
    """Ids, digests, labels and the selection are those of any other division, in any order of the records."""
    folder = tmp_path / f"{shards}-{chance.random()}"
    records = record_sets.slim_of_folder(synset_folder)
    record_sets.write_shards(tmp_path / "one", "validation", records, 1)
    record_sets.write_shards(folder, "validation", chance.sample(records, len(records)), shards)
    one, other = opened(tmp_path / "one"), opened(folder)
    assert listing(one) == listing(other)
    assert len(listing(one)) == 30
    assert select(one, 11, 13) == select(other, 11, 13)
    shutil.rmtree(folder)


def test_the_selection_is_that_of_the_pictures_as_files(synset_folder: Path, tmp_path: Path) -> None:
    """TF-Slim's records and the synset folders they were made from choose the same pictures, in the same order."""
    record_sets.write_shards(tmp_path / "slim", "validation", record_sets.slim_of_folder(synset_folder), 4)
    source, folder = opened(tmp_path / "slim"), FolderSource(synset_folder)
    for seed in (0, 3):
        chosen, expected = select(source, 10, 15, seed), select(folder, 10, 15, seed)
        assert contents(chosen) == contents(expected)
    for picture in folder.pictures():
        assert source.encoded(picture.id.rpartition("/")[2]) == (synset_folder / picture.id).read_bytes()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shards=st.integers(1, 12), chance=st.randoms(use_true_random=False))
def test_pictures_without_names_do_not_depend_on_shards_either(
    shards: int, chance: random.Random, tmp_path: Path
) -> None:
    """The published recipe's records have no file names; the digest of the picture is the id."""
    folder = tmp_path / f"{shards}-{chance.random()}"
    records = {digest_bytes(pictures.jpeg(n)): plain(pictures.jpeg(n), n) for n in range(12)}
    record_sets.write_shards(folder, "validation", chance.sample([*records.values()], 12), shards)
    source = opened(folder)
    assert listing(source) == {name: (name, n + 1) for n, name in enumerate(records)}
    shutil.rmtree(folder)


def test_the_published_layout_is_found_from_the_folder_above(tmp_path: Path) -> None:
    """`data/validation_data/validation-*`, whatever follows the dash."""
    folder = tmp_path / "data" / "validation_data"
    for number, name in enumerate(("validation-0", "validation-00001-of-00002x", "validation-b")):
        record_sets.write_file(folder / name, [plain(pictures.jpeg(number), number)])
    source = opened(tmp_path / "data")
    assert (source.kind, source.name, len(source.pictures())) == ("tfrecord", str(folder), 3)


def test_a_source_survives_pickling_and_reads_the_same(synset_folder: Path, tmp_path: Path) -> None:
    """Workers get a copy."""
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
    """The whole build over two processes: the same INT8 model, ranges and figures as from the files."""
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
            if not any(name in line for name in ('"source"', '"pictures_sha256"'))  # they tell of ids
        ]
        ranges = (folder / "calibration" / "ranges.json").read_bytes()
        results.append((next(folder.glob("*.tflite")).read_bytes(), ranges, figures))
    assert results[0] == results[1]


@pytest.mark.shared
def test_real_pictures_as_records_are_chosen_like_the_files(shared: Path, tmp_path: Path) -> None:
    """700 pictures in seven shards: 500 to calibrate and 200 to evaluate, the same as from their folders."""
    folder = shared / "imagenet_sample"
    record_sets.write_shards(tmp_path / "slim", "validation", record_sets.slim_of_folder(folder), 7)
    chosen = select(opened(tmp_path / "slim"), 500, 200)
    expected = select(FolderSource(folder), 500, 200)
    assert len(chosen.calibration) == 500
    assert len(chosen.evaluation) == 200
    assert contents(chosen) == contents(expected)


def test_an_unreadable_picture_is_named_with_its_place(tmp_path: Path) -> None:
    """Nobody finds a picture in a shard by its name alone."""
    cut = pictures.jpeg(2)[:-900]
    source = single(
        tmp_path / "x.tfrecord", [plain(pictures.jpeg(1), 0), plain(cut, 1, **{"image/filename": b"cut.JPEG"})]
    )
    with pytest.raises(InputError, match=rf"cut\.JPEG \(record 2 of {tmp_path / 'x.tfrecord'}\) to be a complete JPEG"):
        source.read("cut.JPEG")


# Labels


def test_labels_are_those_of_the_synset(tmp_path: Path) -> None:
    """TF-Slim's synset tells more than a number whose base nobody knows."""
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
def test_the_first_class_is_found_out_or_told(
    numbers: tuple[int, ...], base: int | None, classes: tuple[int, ...], tmp_path: Path
) -> None:
    """A 0 or a 1000 tells; otherwise --label-base does."""
    source = single(tmp_path / "x.tfrecord", [plain(b"%d" % n, n) for n in numbers], base)
    assert tuple(picture.label for picture in source.pictures()) == classes


def test_nothing_that_tells_the_first_class_is_an_error(tmp_path: Path) -> None:
    """Every accuracy would be wrong by one class."""
    with pytest.raises(InputError, match="--label-base 0 or --label-base 1"):
        single(tmp_path / "x.tfrecord", [plain(b"a", 3), plain(b"b", 5)])


def test_official_names_tell_the_first_class(tmp_path: Path) -> None:
    """The classes of the official validation pictures are known."""
    known = [(name, label) for name, label in list(validation_classes().items())[:4]]
    records = [plain(name.encode(), label - 1, **{"image/filename": name.encode()}) for name, label in known]
    assert {p.id: p.label for p in single(tmp_path / "x.tfrecord", records).pictures()} == dict(known)


def test_a_picture_may_have_no_label(tmp_path: Path) -> None:
    """-1, an empty feature and none at all say that nobody knows; an official name knows better."""
    official, label = next(iter(validation_classes().items()))
    empty = record_sets.example({"image/encoded": b"b", "image/class/label": []})
    records = [plain(b"a", -1), empty, plain(b"c", None), plain(b"d", -1, **{"image/filename": official.encode()})]
    labels = [picture.label for picture in single(tmp_path / "x.tfrecord", records).pictures()]
    assert labels == [None, None, None, label]


def test_a_set_without_labels_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They calibrate; but whoever expects a top-1 should know at once, and not from a card."""
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
def test_what_a_record_cannot_mean_is_said(records: list[bytes], words: tuple[str, ...], tmp_path: Path) -> None:
    """Labels out of range, features of another type or number, records of something else, an empty set."""
    with pytest.raises(InputError) as caught:
        single(tmp_path / "x.tfrecord", records)
    for word in words:
        assert word in str(caught.value)


# Pictures that stand twice


def test_a_file_name_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    """Both places are named, whatever the pictures are."""
    named = {"image/filename": b"same.JPEG"}
    record_sets.write_file(tmp_path / "validation-00000-of-00002", [plain(b"a", 0, **named)])
    record_sets.write_file(tmp_path / "validation-00001-of-00002", [plain(b"b", 0), plain(b"a", 0, **named)])
    with pytest.raises(InputError) as caught:
        opened(tmp_path)
    assert f"record 1 of {tmp_path / 'validation-00000-of-00002'}" in caught.value.found
    assert f"record 2 of {tmp_path / 'validation-00001-of-00002'}" in caught.value.found


def test_a_nameless_picture_that_stands_twice_is_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With one label it is one picture, and a warning counts the others."""
    source = single(tmp_path / "x.tfrecord", [plain(b"a", 0), plain(b"b", 1), plain(b"a", 0), plain(b"a", 0)])
    assert len(source.pictures()) == 2
    (warning,) = caplog.records
    assert warning.getMessage().startswith("2 records in")


def test_a_nameless_picture_with_two_labels_is_an_error(tmp_path: Path) -> None:
    """One of them must be wrong."""
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
def test_splits_are_told_by_names(names: list[str], splits: dict[str, int], tmp_path: Path) -> None:
    """TF-Slim's, TFDS's, the published recipe's, and a suffix."""
    fill(tmp_path, *names)
    assert {split: len(files) for split, files in find_splits(tmp_path).items()} == splits


def test_the_split_is_chosen(tmp_path: Path) -> None:
    """The only one, else validation, else the one asked for, else an error that names the flag and the splits."""
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
    """The names say how many there were; other splits do not matter."""
    fill(tmp_path, *(f"validation-{n:05d}-of-00008" for n in (0, 1, 2, 4, 5, 7)), "train-00000-of-00002")
    with pytest.raises(
        InputError, match=r"all 8 shards of validation; found 6: no validation-00003-of-00008, nor 1 other"
    ):
        opened(tmp_path)


def test_two_divisions_in_one_folder_are_an_error(tmp_path: Path) -> None:
    """They would be the same pictures twice."""
    with pytest.raises(InputError, match="shards of 1 and of 2"):
        check_complete(find_splits(fill(tmp_path, "v-00000-of-00001", "v-00000-of-00002"))["v"])


def test_pictures_come_before_records(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As the published recipe leaves them: both in one folder. The warning says how to have the records."""
    folder = tmp_path / "validation_data"
    fill(folder, "validation-00000-of-00001")
    (folder / "validation_images").mkdir()
    (folder / "validation_images" / "ILSVRC2012_val_00000001.JPEG").write_bytes(pictures.jpeg(1))
    assert opened(tmp_path).kind == "folder"
    (warning,) = caplog.records
    assert "For the records give --split validation" in warning.getMessage()
    assert opened(tmp_path, split="validation").kind == "tfrecord"
    assert len(caplog.records) == 1


def test_options_that_say_nothing_are_bad_usage(tmp_path: Path) -> None:
    """A label file for records, a split of a folder of pictures or of a single file."""
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
    """Writes other records into a file, and gives it the time it had."""
    state = path.stat()
    record_sets.write_file(path, records)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_shard_that_disappears_is_named(listed: tuple[Path, RecordSource]) -> None:
    """Between listing and reading anything can happen."""
    path, source = listed
    path.unlink()
    with pytest.raises(InputError, match=f"to read the records in {path}; found No such file"):
        source.encoded(digest_bytes(bytes([1]) * 40))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_shard_that_disappears_half_way_ends_the_measuring(
    jobs: int, small_float: bytes, synset_folder: Path, tmp_path: Path
) -> None:
    """It was there when the pictures were chosen; the error comes out of a worker process whole."""
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
    """A record is checked again when it is read; the picture must be the one that was listed."""
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
    """An id the set does not have is bad input, not a crash."""
    with pytest.raises(InputError, match=r"n01440764/x\.JPEG in"):
        listed[1].encoded("n01440764/x.JPEG")


def kept_index(cache: Path) -> Path:
    """The one index in the cache."""
    (path,) = (cache / "indexes").iterdir()
    return path


def test_a_listed_set_is_not_read_again(listed: tuple[Path, RecordSource]) -> None:
    """While names, sizes and times are the same, the index is believed."""
    path, source = listed

    def bar(description: str, total: int | None) -> NoReturn:
        raise AssertionError(description)

    assert open_source(str(path), Reading(), bar).pictures() == source.pictures()


def test_a_changed_set_is_read_again(listed: tuple[Path, RecordSource], cache: Path) -> None:
    """Another time or size is enough, and no second index is left."""
    path, _ = listed
    replaced(path, [plain(bytes([n]) * 40, n) for n in (0, 5, 6)])
    os.utime(path, ns=(0, 1))
    assert {picture.id for picture in opened(path).pictures()} == {digest_bytes(bytes([n]) * 40) for n in (0, 5, 6)}
    kept_index(cache)


def test_a_file_of_the_same_size_and_time_is_listed_anew(listed: tuple[Path, RecordSource]) -> None:
    """As a copy that keeps times leaves it: the index is not believed because the two agree."""
    path = listed[0]
    before = path.stat()
    replaced(path, [plain(bytes([n]) * 40, n) for n in (2, 1, 0)])
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    source = opened(path)
    for picture in source.pictures():
        assert digest_bytes(source.encoded(picture.id)) == picture.sha256


def test_a_damaged_index_is_made_again(listed: tuple[Path, RecordSource], cache: Path) -> None:
    """Every byte of it counts: whichever is another, or missing, the set is listed anew and the index restored."""
    path, source = listed
    kept = kept_index(cache)
    good = kept.read_bytes()
    damaged = [good[:n] + bytes([good[n] ^ 1]) + good[n + 1 :] for n in range(0, len(good), 7)]
    for data in [*damaged, good[:-1], b"", b"\n", b"x", digest_bytes(b"[]").encode() + b"\n[]"]:
        kept.write_bytes(data)
        assert opened(path).pictures() == source.pictures()
        assert kept.read_bytes() == good


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, cache: Path) -> None:
    """It costs time and nothing else."""
    cache.write_text("a file where the folder should be")
    assert len(single(tmp_path / "x.tfrecord", TINY).pictures()) == 3
    assert cache.is_file()


def test_a_synset_that_is_none_of_the_thousand_is_refused(tmp_path: Path) -> None:
    """The number beside it counts other classes, and was taken for one of these."""
    other = {"image/class/synset": b"n99999999"}
    with pytest.raises(InputError, match="one of the 1000 synsets; found 'n99999999' for"):
        single(tmp_path / "x.tfrecord", [*TINY, plain(b"x", 5, **other)])
    (label,) = (
        p.label for p in single(tmp_path / "y.tfrecord", [plain(b"x", 0, **{"image/class/synset": b"?"})]).pictures()
    )
    assert label == 1


def test_a_shard_without_a_record_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A copy that failed leaves a file of no bytes, which is a whole file of no records."""
    record_sets.write_shards(tmp_path, "validation", TINY, 2)
    open_source(str(tmp_path), Reading())
    assert caplog.text == ""
    (tmp_path / "validation-00001-of-00002").write_bytes(b"")
    open_source(str(tmp_path), Reading())
    assert "no record in" in caplog.text
    assert "validation-00001-of-00002; it may be truncated" in caplog.text


def test_options_do_not_enter_the_index(listed: tuple[Path, RecordSource], tmp_path: Path) -> None:
    """The same index serves whatever --label-base says."""
    path = listed[0]
    record_sets.write_file(path, [plain(b"a", 3)])
    assert [picture.label for picture in opened(path, label_base=0).pictures()] == [4]
    assert [picture.label for picture in opened(path, label_base=1).pictures()] == [3]


# The command line


@pytest.fixture
def errors(tmp_path: Path) -> dict[str, Path]:
    """Sets that cannot be used."""
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


def test_a_split_of_procedural_pictures_is_bad_usage(tmp_path: Path) -> None:
    """Status 2."""
    assert_one_error(run(*small("calibrate", tmp_path / "out", split="validation")), 2, "no --split with procedural")

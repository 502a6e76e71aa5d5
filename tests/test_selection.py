"""Selection: which pictures calibrate and which evaluate, and the manifest that repeats a selection."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.manifest import read_manifest, to_json
from calibration.pictures.folder import FolderSource
from calibration.pictures.sources import ProceduralSource
from calibration.selection import select, select_procedural, spread
from recreate_model.network.labels import wnids
from recreate_model.recipe import Picture
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import InputError
from tests import pictures

IDS = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 50)), unique=True, min_size=1, max_size=60).map(
    lambda pairs: [Picture(f"{folder}/{number}.JPEG") for folder, number in pairs]
)


@given(IDS, st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_the_file_system(found: list[Picture], chance: random.Random) -> None:
    """Pictures that are listed in another order are taken in the same order."""
    assert spread(chance.sample(found, len(found))) == spread(found)


@given(IDS)
def test_the_order_is_spread_over_the_classes(found: list[Picture]) -> None:
    """The classes take turns: each one with pictures left has a turn before any has its next."""
    order = spread(found)
    assert sorted(picture.id for picture in order) == sorted(picture.id for picture in found)
    turns: dict[str, int] = {}
    for picture in order:
        folder = picture.id.partition("/")[0]
        turns[folder] = turns.get(folder, 0) + 1
        rest = {p.id.partition("/")[0] for p in order[order.index(picture) + 1 :]}
        assert all(turns.get(other, 0) >= turns[folder] - 1 for other in rest)


def test_no_picture_calibrates_and_evaluates(picture_folder: Path) -> None:
    """Calibration takes from the front of the order, evaluation from its back; each picture has its digest."""
    selection = select(FolderSource(picture_folder), calib=7, limit=100)
    assert (len(selection.calibration), len(selection.evaluation)) == (7, 5)
    assert not set(selection.calibration) & set(selection.evaluation)
    for picture in (*selection.calibration, *selection.evaluation):
        assert picture.sha256 == digest_bytes((picture_folder / picture.id).read_bytes())


def test_a_larger_calibration_keeps_the_earlier_pictures(picture_folder: Path) -> None:
    """A larger --calib appends pictures; the evaluation stays the same while there are enough."""
    source = FolderSource(picture_folder)
    few, more = (select(source, calib=count, limit=4) for count in (3, 8))
    assert more.calibration[:3] == few.calibration
    assert more.evaluation == few.evaluation


def test_evaluation_is_spread_over_the_classes(tmp_path: Path) -> None:
    """A class that has most of the pictures takes one turn in each round, as the others do."""
    for index in range(30):
        folder = tmp_path / wnids()[0 if index < 20 else index]
        folder.mkdir(exist_ok=True)
        (folder / f"{index}.JPEG").write_bytes(pictures.jpeg(index))
    chosen = select(FolderSource(tmp_path), calib=5, limit=8).evaluation
    assert len({picture.id.partition("/")[0] for picture in chosen}) >= 6


def test_a_copy_of_a_calibration_picture_does_not_evaluate(tmp_path: Path) -> None:
    """Nor does a picture that a range table was measured on."""
    for index in range(6):
        (tmp_path / f"{index}.jpg").write_bytes(pictures.jpeg(index // 2))
    selection = select(FolderSource(tmp_path), calib=2, limit=6)
    used = {picture.sha256 for picture in selection.calibration}
    assert not used & {picture.sha256 for picture in selection.evaluation}
    assert select(FolderSource(tmp_path), 0, 6, excluded=used).calibration == ()
    excluded = select(FolderSource(tmp_path), 0, 6, excluded=used).evaluation
    assert len(excluded) == 6 - 2 * len(used)


def test_procedural_evaluation_does_not_depend_on_calibration() -> None:
    """The two use separate, fixed series of pictures."""
    few, more = (select_procedural(ProceduralSource(), calib=count, limit=4) for count in (3, 800))
    assert few.evaluation == more.evaluation
    assert not set(more.calibration) & set(more.evaluation)


def test_fewer_pictures_than_requested_is_an_error_with_both_counts(picture_folder: Path) -> None:
    """Twelve pictures cannot give thirteen."""
    with pytest.raises(InputError, match=r"expected 13 pictures.*found 12"):
        select(FolderSource(picture_folder), calib=13, limit=0)


@given(IDS, st.integers(0, 3))
def test_a_seed_gives_one_order_and_another_seed_another(found: list[Picture], seed: int) -> None:
    """Every seed orders the same pictures, each in its own way."""
    assert spread(found, seed) == spread(found[::-1], seed)
    assert sorted(p.id for p in spread(found, seed)) == sorted(p.id for p in found)
    many = [Picture(f"a/{number}.JPEG") for number in range(40)]
    assert spread(many, seed) != spread(many, seed + 1)


@given(IDS, st.integers(0, 3))
def test_backwards_takes_the_other_end_of_every_class(found: list[Picture], seed: int) -> None:
    """The order within each class is reversed."""
    for folder in {picture.id[0] for picture in found}:
        forwards, backwards = (
            [p for p in spread(found, seed, backwards=turned) if p.id[0] == folder] for turned in (False, True)
        )
        assert forwards == backwards[::-1]


@given(IDS)
def test_the_order_does_not_depend_on_the_folders_or_shards(found: list[Picture]) -> None:
    """If classes are known, the same file names in other folders, or in none, have the same order."""
    labeled = [replace(p, label=ord(p.id[0]), id=f"{p.id[0]}/{p.id.replace('/', '_')}") for p in found]
    moved = [replace(p, id=p.id.rpartition("/")[2]) for p in labeled]
    assert [p.id for p in spread(moved)] == [p.id.rpartition("/")[2] for p in spread(labeled)]


def test_overlap_is_counted(picture_folder: Path) -> None:
    """Pictures that do not evaluate because they calibrate are counted, by content."""
    source = FolderSource(picture_folder)
    assert select(source, calib=2, limit=4).overlap == 0
    short = select(source, calib=10, limit=12)
    assert (len(short.evaluation), short.overlap) == (2, 10)
    again = select(source, 0, 12, excluded={p.sha256 for p in short.calibration})
    assert (len(again.evaluation), again.overlap) == (2, 10)


# The manifest


@pytest.fixture
def manifest(picture_folder: Path, tmp_path: Path) -> Path:
    """A manifest of five pictures of the folder, as `calibrate` writes it."""
    path = tmp_path / "manifest.json"
    path.write_text(to_json(select(FolderSource(picture_folder), 5, 0).calibration, {"source": "folder"}))
    return path


def test_a_manifest_selects_its_pictures(picture_folder: Path, manifest: Path) -> None:
    """The same pictures calibrate in the same order, and none of them evaluates."""
    source = FolderSource(picture_folder)
    again = select(source, read_manifest(manifest), limit=12)
    assert again.calibration == select(source, 5, 0).calibration
    assert not set(again.calibration) & set(again.evaluation)
    assert (len(again.evaluation), again.overlap) == (7, 5)


def test_every_missing_or_changed_picture_is_named(picture_folder: Path, manifest: Path, tmp_path: Path) -> None:
    """One that is missing, one with other content and one of another class, all in one line."""
    folder = tmp_path / "copy"
    shutil.copytree(picture_folder, folder)
    gone, changed, moved, *_ = read_manifest(manifest)
    (folder / gone.id).unlink()
    (folder / changed.id).write_bytes(pictures.jpeg(99))
    document = json.loads(manifest.read_text())
    document["pictures"][2]["label"] = 5
    manifest.write_text(json.dumps(document))
    with pytest.raises(InputError) as error:
        select(FolderSource(folder), read_manifest(manifest), limit=0)
    expected = f"missing: {gone.id}; changed: {changed.id}, {moved.id} (class {moved.label} instead of 5)"
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_manifest_of_another_source_is_recognized(picture_folder: Path, manifest: Path, tmp_path: Path) -> None:
    """The same pictures under other names: the error shows one name of each source, not all of them."""
    names = [picture.id for picture in read_manifest(manifest)]
    for name in names:
        (tmp_path / name.rpartition("/")[2]).write_bytes((picture_folder / name).read_bytes())
    with pytest.raises(InputError, match=r"found none of them: .* instead of n.*/.*, for example; done") as caught:
        select(FolderSource(tmp_path), read_manifest(manifest), limit=0)
    assert sum(name in str(caught.value) for name in names) == 1


def test_a_manifest_of_procedural_pictures_selects_them() -> None:
    """A listed picture does not evaluate, and an id of another source is refused."""
    source = ProceduralSource()
    (listed,) = source.pictures(1_000_000, 1)
    selection = select_procedural(source, [listed], 3)
    assert selection.calibration == (listed,)
    assert (len(selection.evaluation), selection.overlap) == (2, 1)
    with pytest.raises(InputError, match="ids of procedural pictures"):
        source.read("n01440764/a.JPEG")


def test_another_seed_makes_other_procedural_pictures() -> None:
    """The id contains the seed, and so does the key of a build."""
    (first,), (other,) = (ProceduralSource(seed).pictures(0, 1) for seed in (0, 1))
    assert first.id != other.id
    digest, same = (ProceduralSource(seed).read(other.id)[1] for seed in (0, 1))
    assert digest == same != ProceduralSource().read(first.id)[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="other/1"), "format 'other/1'"),
        (lambda d: d.pop("pictures"), "no 'pictures'"),
        (lambda d: d["pictures"].clear(), "an empty list"),
        (lambda d: d["pictures"].append(d["pictures"][0]), "listed twice"),
        (lambda d: d["pictures"][0].update(sha256="ab"), "instead of an id and a SHA-256"),
        (lambda d: d["pictures"][0].update(sha256=3), "instead of an id and a SHA-256"),
        (lambda d: d["pictures"][0].update(id=3), "instead of an id and a SHA-256"),
        (lambda d: d["pictures"][0].update(label="cat"), "label 'cat'"),
        (lambda d: d["pictures"][0].pop("label"), "no 'label'"),
    ],
)
def test_an_invalid_manifest_is_refused(change: object, message: str, manifest: Path) -> None:
    """The message names the fault in one line."""
    document = json.loads(manifest.read_text())
    change(document)  # type: ignore[operator]
    manifest.write_text(json.dumps(document))
    with pytest.raises(InputError, match=f"to be a list of pictures.*{message}"):
        read_manifest(manifest)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_files_that_are_not_a_manifest_are_refused(content: bytes, manifest: Path) -> None:
    """Other JSON documents, incomplete JSON, other bytes and a missing file."""
    manifest.write_bytes(content)
    with pytest.raises(InputError, match="to be a list of pictures"):
        read_manifest(manifest)
    with pytest.raises(InputError, match="No such file"):
        read_manifest(manifest.parent / "missing.json")

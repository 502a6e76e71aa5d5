"""Folders of pictures: which files are pictures, and how their classes are inferred."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.pictures.class_labels import Label, class_ids, known_class
from calibration.pictures.folder import FolderSource, read_label_file
from calibration.pictures.opening import Reading, open_source
from recreate_model.network.labels import validation_classes, wnids
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import InputError, UsageError
from tests import pictures

# Official validation pictures and their classes, 1..1000, as the data set's own table has them.
OFFICIAL = {"ILSVRC2012_val_00000001.JPEG": 66, "ILSVRC2012_val_00000002.JPEG": 971}


def test_labels_come_from_the_synset_folders(picture_folder: Path) -> None:
    """A class id is the position of its synset among the 1000, from 1; 0 is the background."""
    for picture in FolderSource(picture_folder).pictures():
        assert picture.label == wnids().index(picture.id.partition("/")[0]) + 1


def test_other_folders_and_flat_pictures_have_no_label(tmp_path: Path) -> None:
    """Pictures in a folder that is not a synset, or in none, have no label; other files are ignored."""
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "a.JPG").write_bytes(pictures.jpeg(1))
    (tmp_path / "b.png").write_bytes(pictures.png(1))
    (tmp_path / "synsets.txt").write_text("not a picture")
    (tmp_path / "._b.png").write_bytes(b"notes on a picture")
    found = FolderSource(tmp_path).pictures()
    assert sorted((picture.id, picture.label) for picture in found) == [("b.png", None), ("cats/a.JPG", None)]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    """An empty folder and a missing one have different errors."""
    with pytest.raises(InputError, match="found none there"):
        FolderSource(tmp_path).pictures()
    with pytest.raises(InputError, match="No such file or directory"):
        FolderSource(tmp_path / "missing").pictures()


def _flat(root: Path, rows: str | None, names: list[str]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(pictures.jpeg(index))
    if rows is not None:
        (root / "val.txt").write_text(rows)
    return root


def _labels(source: FolderSource) -> dict[str, int | None]:
    return {picture.id: picture.label for picture in source.pictures()}


@pytest.mark.parametrize(
    "rows",
    [
        "a.JPEG 0\nb.JPEG 998\n",
        "a.JPEG n01440764\nb.JPEG n13133613\n",
        "a.JPEG,0\n\n  b.JPEG\t998",
        "x/a.JPEG 0\nb.JPEG 998",
        "\ufeffa.JPEG 0\nb.JPEG 998",
    ],
    ids=["from 0", "synsets", "commas, tabs and empty rows", "with folders", "with a byte order mark"],
)
def test_val_txt_gives_flat_pictures_their_classes(rows: str, tmp_path: Path) -> None:
    """Its labels are numbers from 0 or synsets; rows about pictures that are not there are ignored."""
    assert wnids()[998] == "n13133613"
    root = _flat(tmp_path, rows + "\nc.JPEG 5", ["a.JPEG", "b.JPEG"])
    if "n0" in rows:
        root.joinpath("val.txt").write_text(rows)
    assert _labels(FolderSource(root)) == {"a.JPEG": 1, "b.JPEG": 999}


def test_a_label_of_1000_means_that_labels_count_from_1(tmp_path: Path) -> None:
    """Counted from 0, the last label is 999."""
    root = _flat(tmp_path, "a.JPEG 1\nb.JPEG 1000\n", ["a.JPEG", "b.JPEG"])
    assert _labels(FolderSource(root)) == {"a.JPEG": 1, "b.JPEG": 1000}


def test_ambiguous_labels_are_refused_until_a_base_is_given(tmp_path: Path) -> None:
    """Without a 0 or a 1000, a guess could be wrong by one class for every picture."""
    root = _flat(tmp_path, "a.JPEG 7\nb.JPEG 8\n", ["a.JPEG", "b.JPEG"])
    with pytest.raises(InputError, match=r"found 2 labels from 7 to 8, which fit both.*--label-base 0"):
        FolderSource(root).pictures()
    assert _labels(FolderSource(root, label_base=0)) == {"a.JPEG": 8, "b.JPEG": 9}
    assert _labels(FolderSource(root, label_base=1)) == {"a.JPEG": 7, "b.JPEG": 8}


@pytest.mark.parametrize("base", [0, 1])
def test_official_pictures_decide_the_base(base: int, tmp_path: Path) -> None:
    """Their classes are known, so a label file of a few of them is not ambiguous; a wrong base is refused."""
    rows = "".join(f"{name} {label - 1 + base}\n" for name, label in OFFICIAL.items())
    root = _flat(tmp_path, rows, list(OFFICIAL))
    assert _labels(FolderSource(root)) == OFFICIAL
    with pytest.raises(InputError, match=f"counted from {base}"):
        FolderSource(root, label_base=1 - base).pictures()


def test_official_pictures_need_no_label_file(tmp_path: Path) -> None:
    """The classes of the 50,000 validation pictures are known by name."""
    assert _labels(FolderSource(_flat(tmp_path, None, list(OFFICIAL)))) == OFFICIAL
    assert known_class("other.JPEG") is None


def test_the_known_classes_are_those_of_the_data_set() -> None:
    """TensorFlow Datasets has the same table for all 50,000, as synsets in the order of the file names."""
    import tensorflow_datasets

    path = Path(tensorflow_datasets.__file__).parent / "datasets" / "imagenet2012" / "validation_labels.txt"
    theirs = [wnids().index(wnid) + 1 for wnid in path.read_text().split()]
    known = validation_classes()
    assert [known[name] for name in sorted(known)] == theirs


def test_labels_in_the_order_of_the_development_kit_are_refused(tmp_path: Path) -> None:
    """ILSVRC2012_validation_ground_truth.txt looks like a label file, but numbers the classes in another order."""
    root = _flat(tmp_path, "".join(f"{name} {490 + i}\n" for i, name in enumerate(OFFICIAL)), list(OFFICIAL))
    with pytest.raises(InputError, match=r"found 49\d for ILSVRC2012_val_0.*, whose class is .*another order"):
        FolderSource(root).pictures()


@pytest.mark.parametrize("wrong", ["ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000013.JPEG"])
def test_one_wrong_label_among_official_pictures_is_named(wrong: str, tmp_path: Path) -> None:
    """It is the only one that contradicts the others."""
    rows = {**{name: label - 1 for name, label in list(validation_classes().items())[:20]}}
    rows[wrong] += 1
    root = _flat(tmp_path, "".join(f"{name} {label}\n" for name, label in rows.items()), list(rows))
    with pytest.raises(InputError, match=f"found .* for {wrong}, whose class is"):
        FolderSource(root).pictures()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.JPEG 0\nb.JPEG 1001\n", "found 1001 for b.JPEG"),
        ("a.JPEG 0\nb.JPEG 1000\n", "found 2 labels from 0 to 1000, which fit neither"),
        ("a.JPEG 0\nb.JPEG\n", "row 2 of .* to be a file name and a class number or synset; found 'b.JPEG'"),
        ("a.JPEG 0\nb.JPEG -1\n", "found 'b.JPEG -1'"),
        ("a.JPEG 0\nb.JPEG n99999999\n", "found 'b.JPEG n99999999'"),
        (f"a.JPEG 0\nb.JPEG {'9' * 5000}\n", "row 2 of .* to be a file name and a class number or synset"),
        ("a.JPEG 0\nx/b.JPEG 1\ny/b.JPEG 2\n", "found none for b.JPEG, and b.JPEG in several folders"),
        ("a.JPEG 0\na.JPEG 1\n", "each picture once.*found a.JPEG again in row 2"),
        ("a.JPEG 0\n", "a row for each picture.*found none for b.JPEG"),
        ("", "found none for"),
    ],
)
def test_a_label_file_that_does_not_fit_is_refused(rows: str, message: str, tmp_path: Path) -> None:
    """A label that is out of range, invalid, duplicate or missing: the error names the row or the picture."""
    with pytest.raises(InputError, match=message):
        FolderSource(_flat(tmp_path, rows, ["a.JPEG", "b.JPEG"])).pictures()


def test_a_row_that_matches_two_pictures_is_refused(tmp_path: Path) -> None:
    """The file name alone does not say which is meant; rows with folders do."""
    root = _flat(tmp_path, "a.JPEG 0\n", ["x/a.JPEG", "y/a.JPEG"])
    with pytest.raises(InputError, match=r"found none for x/a\.JPEG, and a\.JPEG in several folders"):
        FolderSource(root).pictures()
    (root / "val.txt").write_text("x/a.JPEG 0\ny/a.JPEG 1\n")
    assert _labels(FolderSource(root)) == {"x/a.JPEG": 1, "y/a.JPEG": 2}


def test_label_options_without_effect_are_refused(picture_folder: Path, tmp_path: Path) -> None:
    """Synset folders need neither a label file nor a base; nor do pictures without labels."""
    for options in ({"label_file": tmp_path / "missing.txt"}, {"label_base": 0}):
        with pytest.raises(UsageError, match="no --label"):
            FolderSource(picture_folder, **options).pictures()
    with pytest.raises(UsageError, match="no --label-base where no label is a number"):
        FolderSource(_flat(tmp_path, None, ["a.JPEG"]), label_base=1).pictures()


def test_a_circular_link_is_named(tmp_path: Path) -> None:
    """The error names the link, as the folder above it does contain pictures."""
    (_flat(tmp_path, None, ["a.JPEG"]) / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"to be a folder of pictures; found Too many levels of .*: \S*/loop; done"):
        FolderSource(tmp_path).pictures()


def test_hidden_folders_are_ignored(tmp_path: Path) -> None:
    """Desktop environments keep thumbnails of the pictures in them."""
    assert _labels(FolderSource(_flat(tmp_path, None, ["a.JPEG", ".thumbnails/a.JPEG"]))) == {"a.JPEG": None}


def test_a_label_file_in_another_folder_can_be_named(tmp_path: Path) -> None:
    """Caffe leaves it beside the folder. A file that is missing or not text is refused."""
    root = _flat(tmp_path / "val", None, ["a.JPEG"])
    (tmp_path / "val.txt").write_text("a.JPEG 0")
    assert _labels(FolderSource(root, tmp_path / "val.txt")) == {"a.JPEG": 1}
    with pytest.raises(InputError, match=r"missing\.txt to be a text file of labels; found No such file"):
        FolderSource(root, tmp_path / "missing.txt").pictures()
    with pytest.raises(InputError, match="bytes that are not UTF-8"):
        FolderSource(root, root / "a.JPEG").pictures()


def test_the_published_recipes_layout_is_known(tmp_path: Path) -> None:
    """data/validation_data/{val.txt,validation_images/}: both `data` and the folder below it can be given."""
    names = [f"validation_images/{name}" for name in OFFICIAL]
    rows = "".join(f"{name} {label - 1}\n" for name, label in OFFICIAL.items())
    _flat(tmp_path / "data" / "validation_data", rows, names)
    for folder in (tmp_path / "data", tmp_path / "data" / "validation_data"):
        found = open_source(str(folder), Reading()).pictures()
        assert sorted((picture.id, picture.label) for picture in found) == sorted(
            zip(names, OFFICIAL.values(), strict=True)
        )


@given(st.lists(st.integers(0, 999), min_size=1), st.sampled_from([0, 1]))
def test_a_given_base_shifts_every_label(numbers: list[int], base: int) -> None:
    """Class ids are 1..1000 for both bases."""
    raw: dict[str, Label] = {str(index): number + base for index, number in enumerate(numbers)}
    assert list(class_ids(raw, base, "it").values()) == [number + 1 for number in numbers]


@given(st.lists(st.integers(-2, 1002), min_size=1, max_size=30))
def test_a_base_is_inferred_only_where_exactly_one_fits(numbers: list[int]) -> None:
    """Labels are refused, or lie within 1..1000 by the only base that allows it."""
    raw: dict[str, Label] = {str(index): number for index, number in enumerate(numbers)}
    fits = [shift for shift in (0, 1) if all(1 <= number + shift <= 1000 for number in numbers)]
    try:
        found = list(class_ids(raw, None, "it").values())
    except InputError:
        assert len(fits) != 1 or not {0, 1000} & set(numbers)
    else:
        assert [found[0] - numbers[0]] == fits


def test_a_source_survives_pickling_and_gives_content_and_digest(picture_folder: Path) -> None:
    """Worker processes get a pickled copy."""
    source: FolderSource = pickle.loads(pickle.dumps(FolderSource(picture_folder)))
    (first, *_) = source.pictures()
    pixels, digest = source.read(first.id)
    assert pixels.ndim == 3
    assert digest == source.digest(first.id) == digest_bytes((picture_folder / first.id).read_bytes())


def test_file_names_in_rows_may_contain_spaces_and_commas(tmp_path: Path) -> None:
    """The label is the last word of a row."""
    (tmp_path / "rows.txt").write_text("my cat.JPEG 281\ncat,dog.JPEG, 5\n")
    assert read_label_file(tmp_path / "rows.txt") == {"my cat.JPEG": 281, "cat,dog.JPEG": 5}

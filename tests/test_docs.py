"""The documents: their code blocks run, their commands parse, their links and paths lead somewhere.

The scheme of marks is described in `documents.py`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
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
# Pages whose blocks have no marks yet. A page whose blocks are all marked fails here until it is taken out.
WITHOUT_MARKS = ("README.md", "docs/design.md")
# Files of the project, and not those of a build, which has a folder `calibration` as well.
PLACES = r"(?:recreate_model|pipeline|calibration(?!/\w+\.json)|tests|benchmarks|requirements|docs)/[\w./-]+"
# What documents write where the program takes certain words only.
PLACEHOLDERS = {"STAGE": "quantize", "CROP": "squash", "VERDICT": "IDENTICAL"}


def scripts(slow: bool) -> list[str]:
    """Pages with a script that runs among the slow tests, or with one that does not."""
    return [
        page
        for page in PAGES
        if page not in WITHOUT_MARKS and any(block.runs and ("slow" in block.options) == slow for block in blocks(page))
    ]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.xfail(strict=True, reason="has no marks yet"))
        if page in WITHOUT_MARKS
        else page
        for page in PAGES
    ],
)
def test_every_block_is_run_or_marked(page: str) -> None:
    """With the place of each that is neither, as an editor opens it."""
    faults = [f"{block.place}: {fault}" for block in blocks(page) if (fault := block.fault())]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_understood(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the program's own parser: an option that does not exist fails, in a sentence too."""
    refused = [f"{' '.join(words)}: {error}" for words in commands(page) if (error := refusal(words, capsys))]
    assert not refused, "\n".join(refused)


@pytest.mark.parametrize("page", scripts(slow=False))
def test_scripts_run(page: str, folder: Path) -> None:
    """Every script of the page that takes seconds, from top to bottom, on the small build."""
    for block in blocks(page):
        if block.file or "slow" not in block.options:
            take(block, folder)


@pytest.mark.slow
@pytest.mark.parametrize("page", scripts(slow=True))
def test_slow_scripts_run(page: str, folder: Path) -> None:
    """All scripts of the page: the slow ones may use what the others made."""
    for block in blocks(page):
        take(block, folder)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """To a file of the project, and to a heading in it."""
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
def test_files_that_are_named_exist(page: str) -> None:
    """A module that was renamed is renamed in the documents."""
    named = re.findall(rf"`({PLACES})`|(?:python|pytest) ({PLACES})", (ROOT / page).read_text(encoding="utf-8"))
    assert not [path for pair in named for path in pair if path and not (ROOT / path).exists()]


def test_a_block_of_output_is_told_from_a_script() -> None:
    """The marks, one by one."""

    def fault(language: str, mark: str = "") -> str:
        return Block("page.md", 1, language, mark, "").fault()

    assert not fault("sh")
    assert not fault("python", "run: slow")
    assert not fault("text")
    assert not fault("sh", "not run: needs the official checkpoint")
    assert not fault("ini", "file: my.ini")
    assert "language" in fault("")
    assert "why" in fault("sh", "not run:")
    assert "neither" in fault("ini")
    assert "fast" in fault("sh", "run: fast")


def test_options_for_the_small_build_contradict_none_that_was_typed() -> None:
    """A given model has no checkpoint, a range table no pictures to calibrate on."""
    assert "--checkpoint" not in small_arguments(["all", "--of", "model.tflite"])
    assert "--calib" not in small_arguments(["quantize", "--ranges", "table.json"])
    assert small_arguments(["all", "--checkpoint", "official"])[-14:].count("seeded") == 1
    assert small_arguments(["attest", "--check", "file"]) == ["attest", "--check", "file"]


# What the scripts run on


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the parser says against a command; empty if nothing."""
    try:
        cli._parse(["pipeline", *(PLACEHOLDERS.get(word, word) for word in words)])
    except SystemExit as stop:
        return capsys.readouterr().err if stop.code else ""
    return ""


@pytest.fixture
def folder(finished_build: Request, small_archive: Path, picture_folder: Path, tmp_path: Path) -> Path:
    """A folder with a small build, and with whatever the documents call a model, an archive or pictures."""
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
    # Without the package around it: code is the project's own.
    (tmp_path / "calibration").mkdir()
    os.symlink(ROOT / "calibration" / "recorded", tmp_path / "calibration" / "recorded")
    shim(tmp_path / "bin")
    return tmp_path


def shim(folder: Path) -> None:
    """Puts commands named `python` and `recreate-model` there, which work on the small build."""
    folder.mkdir()
    for name, module in (("python", ""), ("recreate-model", "-m pipeline ")):
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.document_python {module}"$@"\n')
        (folder / name).chmod(0o755)


def take(block: Block, folder: Path) -> None:
    """Writes a block that is a file, and runs one that is a script, unless a program that it needs is missing."""
    if block.file:
        (folder / block.file).write_text(on_small_build(block.text), encoding="utf-8")
    if not block.runs or not all(map(shutil.which, block.tools)):
        return
    tools = os.pathsep.join((str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": tools, "PYTHONPATH": str(ROOT), "RECREATE_MODEL_CACHE": str(folder / "cache")}
    environment.pop("IMAGENET_DIR", None)
    interpreter = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
    finished = subprocess.run(
        [*interpreter, on_small_build(block.text)],
        cwd=folder / "artifacts" / NAME if IN_BUILD_FOLDER in block.options else folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert finished.returncode == 0, f"{block.place}\n{block.text}\n{finished.stdout}\n{finished.stderr}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

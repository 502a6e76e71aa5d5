"""Code blocks of the documents: where they are, how they are marked, and the small build that they run on.

A comment on the line before a block says what becomes of it:

    <!-- not run: needs the official checkpoint -->   it is not run, and this is why
    <!-- run: slow -->                                it runs among the slow tests
    <!-- run: in the build folder -->                 it runs in the folder of the small build, not above it
    <!-- run: needs jq -->                            it is skipped where there is no such program
    <!-- file: my.ini -->                             it is a file, written for the blocks below it

The words after `run:` can be combined, divided by commas. Blocks of `sh` and `python` run without a mark, too. Blocks
of `text` are output or usage lines, and need no mark. Every other block needs one.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = tuple(
    page.relative_to(ROOT).as_posix()
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
    if page.exists()
)
RUNNABLE = ("sh", "python")
OUTPUT = "text"
IN_BUILD_FOLDER = "in the build folder"
_OPTIONS = re.compile(rf"slow|{IN_BUILD_FOLDER}|needs [\w.-]+")
_FENCE = re.compile(r"^( *)```(\w*)$")
_MARK = re.compile(r"^ *<!-- *((?:not run|run|file): *.*?) *-->$")

# What makes any command of the documents one on the small build of tests/conftest.py.
SMALL_OPTIONS = {
    "--model": "0.35_96",
    "--checkpoint": "seeded",
    "--images": "procedural",
    "--calib": "6",
    "--limit": "5",
    "--targets": "ethos-u55-128",
    "--jobs": "1",
}
_ON_NO_BUILD = {"diff": (), "recover": ("--model", "--checkpoint"), "prove": ("--model", "--checkpoint")}
_PROGRAMS = (["python", "-m", "pipeline"], ["recreate-model"])


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: path of the page, from the project's folder.
        line: number of its first line, the fence.
        language: the word after the fence; empty for none.
        mark: what the comment before it says, such as `run: slow`; empty for none.
        text: the lines between the fences, without the indentation of a list.
    """

    page: str
    line: int
    language: str
    mark: str
    text: str

    @property
    def place(self) -> str:
        """The page and the line, as an editor opens them."""
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether it is a script that is to be run."""
        return self.language in RUNNABLE and not self.mark.startswith(("not run:", "file:"))

    @property
    def file(self) -> str:
        """Name of the file that it is; empty for none."""
        return self.mark.removeprefix("file:").strip() if self.mark.startswith("file:") else ""

    @property
    def options(self) -> tuple[str, ...]:
        """The words after `run:`."""
        return tuple(map(str.strip, self.mark[4:].split(","))) if self.mark.startswith("run:") else ()

    @property
    def tools(self) -> tuple[str, ...]:
        """Programs that it needs beside the project's environment."""
        return tuple(option.removeprefix("needs ") for option in self.options if option.startswith("needs "))

    def fault(self) -> str:
        """What is wrong with its mark or language; empty if nothing is."""
        if not self.language:
            return "has no language; output is `text`"
        if self.mark.startswith("not run:"):
            return "" if len(self.mark.removeprefix("not run:").split()) > 1 else "does not say why it is not run"
        if self.file or (self.language == OUTPUT and not self.mark):
            return ""
        if self.language not in RUNNABLE:
            return f"of {self.language} is neither run nor marked"
        unknown = [option for option in self.options if not _OPTIONS.fullmatch(option)]
        return f"has a mark that means nothing: {', '.join(unknown)}" if unknown else ""


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, from top to bottom."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    found, number = [], 0
    while number < len(lines):
        if opening := _FENCE.match(lines[number]):
            end = next(i for i in range(number + 1, len(lines)) if lines[i].strip() == "```")
            mark = _MARK.match(lines[number - 1]) if number else None
            text = textwrap.dedent("\n".join(lines[number + 1 : end]) + "\n")
            found.append(Block(page, number + 1, opening[2], mark[1] if mark else "", text))
            number = end
        number += 1
    return found


def prose(page: str) -> str:
    """A page without its blocks."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[list[str]]:
    """The arguments of every command of the pipeline on a page: in scripts, after a `$` in output, and in sentences."""
    lines = [
        re.sub(r"^\$ ", "", line)
        for block in blocks(page)
        for line in block.text.replace("\\\n", " ").splitlines()
        if block.language == "sh" or line.startswith("$ ")
    ]
    written = re.findall(r"`(?:python -m pipeline|recreate-model) ([^`]*)`", prose(page))
    # A sentence may name a command alone, which may need more than its name.
    in_sentences = [text if len(text.split()) > 1 else f"{text} --help" for text in written]
    lines += [f"python -m pipeline {' '.join(text.split())}" for text in in_sentences]
    return [found for line in lines for found in _commands(line)]


def _commands(line: str) -> list[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    simple: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("();<>|&"):
            simple.append([])
        else:
            simple[-1].append(word)
    return [words[len(program) :] for words in simple for program in _PROGRAMS if words[: len(program)] == program]


def on_small_build(text: str) -> str:
    """The same script for the smallest network and for pictures that are there."""
    text = text.replace("1.0_224", "0.35_96").replace("1_0_224", "0_35_96")
    return re.sub(r"/data/[\w/.-]+|\btfds:[\w/.:-]+", "FOLDER", text)


def small_arguments(arguments: list[str]) -> list[str]:
    """The arguments of a command of the pipeline, for the small build."""
    command, typed = arguments[0], {word.partition("=")[0] for word in arguments[1:]}
    if "--check" in typed or "--help" in typed or command in ("check", "aarch64"):
        return arguments
    options = {name: SMALL_OPTIONS[name] for name in _ON_NO_BUILD.get(command, tuple(SMALL_OPTIONS))}
    # What names weights, pictures or targets is kept; how many pictures there are is not.
    for name in ("--checkpoint", "--images", "--targets"):
        if name in typed and "official" not in arguments:
            options.pop(name, None)
    for name in ("--model", "--checkpoint", "--calib") if "--of" in typed else ():
        options.pop(name, None)
    if typed & {"--ranges", "--manifest"}:
        options.pop("--calib", None)
    return [*arguments, *(word for option in options.items() for word in option)]

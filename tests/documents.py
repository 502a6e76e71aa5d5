"""Code blocks of the documents: where they are, how they are marked, and the small build that they run on.

A comment on the line before a block says how it is tested:

    <!-- not run: needs the official checkpoint -->   it is not run, for this reason
    <!-- run: slow -->                                it runs with the slow tests
    <!-- run: in the build folder -->                 it runs in the folder of the small build
    <!-- run: needs jq -->                            it is skipped if there is no such program
    <!-- run: by tests/test_api.py -->                another test runs it
    <!-- file: my.ini -->                             it is written to this file, for the blocks below it

Words after `run:` can be combined, separated by commas. Blocks of `sh` and `python` run without a mark; the Python
blocks of a page are one script. Blocks of `text` are output or usage lines and need no mark. Every other block needs
one. A script that installs or fetches something never runs.
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
SLOW = "slow"
IN_BUILD_FOLDER = "in the build folder"
_INSTALLS = re.compile(r"^ *(?:sudo|apt-get|pip|python -m pip|make|curl|wget|git) ", flags=re.MULTILINE)
_FENCE = re.compile(r"^( *)```(\w*)$")
_MARK = re.compile(r"^ *<!-- *((?:not run|run|file): *.*?) *-->$")

# Options that make any command of the documents use the small build of tests/conftest.py.
SMALL_OPTIONS = {
    "--model": "0.35_96",
    "--checkpoint": "seeded",
    "--images": "procedural",
    "--calib": "6",
    "--limit": "5",
    "--targets": "ethos-u55-128",
    "--jobs": "1",
}
# Commands that accept only some of them, or none.
_FEWER_OPTIONS: dict[str, tuple[str, ...]] = {
    "diff": (),
    "check": (),
    "aarch64": (),
    "recover": ("--model", "--checkpoint"),
    "prove": ("--model", "--checkpoint"),
}
_PROGRAMS = (["python", "-m", "pipeline"], ["recreate-model"])


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: path of the page, relative to the project's folder.
        line: number of the line with the opening fence.
        language: the word after the fence, or an empty string.
        mark: text of the comment before the block, such as `run: slow`, or an empty string.
        text: the lines between the fences, without the indentation of a list.
    """

    page: str
    line: int
    language: str
    mark: str
    text: str

    @property
    def place(self) -> str:
        """Page and line, in the form that editors open."""
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether tests/test_docs.py runs it as a script."""
        marked = self.mark.startswith(("not run:", "file:"))
        return self.language in RUNNABLE and not marked and not self._values("by")

    @property
    def is_slow(self) -> bool:
        """Whether it runs with the slow tests."""
        return SLOW in self.options

    @property
    def file(self) -> str:
        """Name of the file that it is written to, or an empty string."""
        return self.mark.removeprefix("file:").strip() if self.mark.startswith("file:") else ""

    @property
    def options(self) -> tuple[str, ...]:
        """The words after `run:`."""
        return tuple(map(str.strip, self.mark[4:].split(","))) if self.mark.startswith("run:") else ()

    @property
    def tools(self) -> tuple[str, ...]:
        """Programs that it needs in addition to the project's environment."""
        return self._values("needs")

    def fault(self) -> str:
        """What is wrong with its language or mark, or an empty string."""
        if not self.language:
            return "has no language; output is `text`"
        if self.mark.startswith("not run:"):
            return "" if len(self.mark.removeprefix("not run:").split()) > 1 else "does not say why it is not run"
        if self.file or (self.language == OUTPUT and not self.mark):
            return ""
        if missing := [path for path in self._values("by") if not (ROOT / path).is_file()]:
            return f"is run by a test that does not exist: {missing[0]}"
        known = (SLOW, IN_BUILD_FOLDER, *(f"{word} {name}" for word in ("needs", "by") for name in self._values(word)))
        if unknown := [option for option in self.options if option not in known]:
            return f"has an unknown mark: {', '.join(unknown)}"
        if self.language not in RUNNABLE and not self._values("by"):
            return f"({self.language}) is neither run nor marked"
        if self.runs and _INSTALLS.search(self.text):
            return "installs or fetches something, so it must be marked as not run"
        return ""

    def _values(self, word: str) -> tuple[str, ...]:
        return tuple(option[len(word) + 1 :] for option in self.options if option.startswith(f"{word} "))


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
    """Arguments of every pipeline command on a page: in scripts, after `$` in output, and in inline code."""
    lines = [
        re.sub(r"^\$ ", "", line)
        for block in blocks(page)
        for line in block.text.replace("\\\n", " ").splitlines()
        if block.language == "sh" or line.startswith("$ ")
    ]
    inline = re.findall(r"`(?:python -m pipeline|recreate-model) ([^`]*)`", prose(page))
    # Inline code may name a command alone, without the arguments that the command requires.
    inline = [text if len(text.split()) > 1 else f"{text} --help" for text in inline]
    lines += [f"python -m pipeline {' '.join(text.split())}" for text in inline]
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
    """A script of the documents, rewritten for the smallest network and for pictures that exist."""
    text = text.replace("1.0_224", "0.35_96").replace("1_0_224", "0_35_96")
    return re.sub(r"/data/[\w/.-]+|\btfds:[\w/.:-]+", "FOLDER", text)


def small_arguments(arguments: list[str]) -> list[str]:
    """Arguments of a pipeline command, with those appended that make it work on the small build."""
    typed = {word.partition("=")[0] for word in arguments}
    if typed & {"--check", "--help", "--version"}:
        return arguments
    options = {name: SMALL_OPTIONS[name] for name in _FEWER_OPTIONS.get(arguments[0], tuple(SMALL_OPTIONS))}
    # Options that name weights, pictures or targets are kept; numbers of pictures are replaced.
    kept = typed & {"--checkpoint", "--images", "--targets"} if "official" not in arguments else set()
    if "--of" in typed:
        kept |= {"--model", "--checkpoint", "--calib"}
    if typed & {"--ranges", "--manifest"}:
        kept |= {"--calib"}
    return [*arguments, *(word for name in options if name not in kept for word in (name, options[name]))]

"""What the commands print: on terminals of several widths, and into a pipe."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import sys
import termios
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.console import Block, Verbatim, plain_lines, terminal_lines
from pipeline.engine.runner import Freshness, Outcome
from pipeline.engine.store import LOCK_FILE
from pipeline.engine.work import PLATFORMS_FILE, PROVENANCE_FILE
from pipeline.interface import cli
from pipeline.interface.views import results, status
from pipeline.interface.views import rows as rows_view
from pipeline.interface.views.stages import StageLines
from pipeline.platforms.evidence import Agreement, Evidence, as_json
from pipeline.request.opened import Opened
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from tests.conftest import NoBars
from tests.test_bad_input import run, small

WIDTHS = (80, 120)
NAME = "mobilenet_v2_0.35_96_seeded_INT8"
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

# The layout of a table

words = st.text("abcdefghij", min_size=1, max_size=16)
paths = st.lists(words, min_size=1, max_size=6).map("/".join)
cells = st.lists(st.one_of(words, paths), max_size=12).map(" ".join)
tables = st.integers(1, 5).flatmap(
    lambda count: st.tuples(
        st.lists(words, min_size=count, max_size=count),
        st.lists(st.lists(cells, min_size=count, max_size=count), max_size=4),
    )
)


@given(tables, st.sampled_from((40, 80, 120)))
def test_no_table_is_wider_than_the_terminal_and_no_word_is_split(
    table: tuple[list[str], list[list[str]]], width: int
) -> None:
    """Only a path may be split, and only after a slash."""
    columns, rows = table
    lines = terminal_lines(("", columns, rows), width)
    assert max(map(len, lines), default=0) <= width
    whole = {word for cell in (*columns, *(cell for row in rows for cell in row)) for word in cell.split()}
    pieces = {
        "/".join(parts[first:last]) + ("/" if last < len(parts) else "")
        for parts in (word.split("/") for word in whole)
        for first in range(len(parts))
        for last in range(first + 1, len(parts) + 1)
    }
    for line in lines:
        for piece in line.split():
            # In a list, a colon follows the name of a column.
            assert piece in pieces or piece.strip("-") == "" or piece.removesuffix(":") in columns


def test_a_pipe_gets_one_line_for_each_row_with_tabs_between_cells() -> None:
    """There is a header line, no title and no rule; line breaks and tabs in cells become spaces."""
    table: Block = ("a title", ("name", "bytes>"), [("one\nor two", "1,000"), ("a\ttab", "")])
    assert plain_lines(table) == ["name\tbytes", "one or two\t1,000", "a tab\t"]
    assert plain_lines(("", ("", ""), [("build", "here")])) == ["build\there"]
    assert plain_lines("a line " * 50) == ["a line " * 50]


def test_a_table_wider_than_the_terminal_becomes_a_list() -> None:
    """The first cell of a row is a heading; below it is a line for each other column that has a value."""
    digest = "0" * 64
    lines = terminal_lines(("", ("file", "left", "right"), [("a.c", digest, digest), ("b.c", "", digest)]), 80)
    assert lines == ["a.c", f"    left: {digest}", f"    right: {digest}", "b.c", f"    right: {digest}"]


def test_a_command_to_copy_is_never_wrapped() -> None:
    """Other lines wrap at spaces."""
    command = "python -m pipeline " + "option " * 20
    assert terminal_lines(Verbatim(command), 80) == [command]
    assert max(map(len, terminal_lines(command, 80))) <= 80


# The commands


def screen(width: int, *arguments: object) -> tuple[str, int]:
    """What a command shows on a terminal of that width, without escape sequences, and its exit status."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    shown: list[bytes] = []

    def read() -> None:
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:
                return
            if not data:
                return
            shown.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    with pytest.MonkeyPatch.context() as patch, os.fdopen(theirs, "w", encoding="utf-8") as stream:
        patch.setattr(sys, "stdout", stream)
        patch.setenv("COLUMNS", str(width))
        patch.setenv("TERM", "xterm")
        found = cli._dispatch(cli._parse(["pipeline", *map(str, arguments)]))
    reader.join()
    os.close(ours)
    return ESCAPE.sub("", b"".join(shown).decode()).replace("\r\n", "\n"), found


def on_build(command: str, request: Request, *more: object) -> list[object]:
    """A command line for a small build."""
    same = {"calib": request.calib, "limit": request.limit, "targets": request.targets}
    return [*small(command, request.out, **same), *more]


def _model(request: Request) -> Path:
    return request.out / NAME / f"{NAME}.tflite"


def _about_a_file(command: str, request: Request) -> list[object]:
    # Not in the folder of builds, which other tests list.
    table = request.out.parent / "table.json"
    more = ["--out", request.out, "--output", table] if command == "recover" else []
    return [command, _model(request), "--model", request.model, "--checkpoint", "seeded", *more]


COMMANDS: dict[str, Callable[[Request], list[object]]] = {
    "all": lambda request: on_build("all", request),
    "all --files": lambda request: on_build("all", request, "--files"),
    "status": lambda request: on_build("status", request),
    "explain": lambda request: ["explain", "card", *on_build("status", request)[1:]],
    "verify": lambda request: on_build("verify", request),
    "evaluate": lambda request: on_build("evaluate", request),
    "vela": lambda request: on_build("vela", request),
    "vela --sram": lambda request: [*on_build("vela", request), "--sram", 400],
    "attest --check": lambda request: ["attest", "--check", request.out / NAME / PROVENANCE_FILE],
    "diff": lambda request: ["diff", _model(request), _model(request).parent / "float" / f"{NAME[:-5]}_float.tflite"],
    "recover": lambda request: _about_a_file("recover", request),
    "prove": lambda request: _about_a_file("prove", request),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_fits_the_terminal(name: str, finished_build: Request) -> None:
    """No line is wider than the terminal, except for commands to copy."""
    for width in WIDTHS:
        shown, found = screen(width, *COMMANDS[name](finished_build))
        assert found == (1 if name == "diff" else 0)
        lines = [line for line in shown.splitlines() if not line.startswith(("  --targets", "  python"))]
        assert lines
        assert [line for line in lines if len(line) > width] == []


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="no qemu-system-arm here")
@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="no arm-none-eabi-gcc here")
def test_firmware_fits_the_terminal(finished_build: Request) -> None:
    """Its labels wrap at spaces."""
    shown, _ = screen(80, *on_build("firmware", finished_build, "--board", "mps3-an547"))
    assert max(map(len, shown.splitlines())) <= 80


LONG = Evidence(
    "Cortex-A",
    "ran",
    "LiteRT with XNNPACK as AArch64 code, compared with XNNPACK on this machine",
    "qemu-aarch64, cortex-a53 (emulated)",
    ("ai-edge-litert 2.3.0", "qemu-aarch64 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)"),
    Agreement(1, 1, "same class", undecided=19, difference=0.0),
    20,
    0.08,
    note="seconds are the emulator's",
    missing="a board",
)


@pytest.mark.parametrize("width", WIDTHS)
def test_platforms_has_four_columns_and_a_note_for_each_row(width: int, small_build: Request) -> None:
    """Tools that an earlier note names are not listed again."""
    recipe, machine = resolve(small_build, NoBars(), may_fetch=False)
    folder = machine.out / recipe.folder
    failed = Evidence("Mali GPU", "not run", "the delegate", fault="a crash")
    document = {"pictures": "procedural", "rows": [as_json(LONG), as_json(LONG), as_json(failed)]}
    (folder / PLATFORMS_FILE).write_text(json.dumps(document))
    table, notes, _ = results.blocks("platforms", folder, recipe)
    for block in (table, notes):
        assert max(map(len, terminal_lines(block, width))) <= width
    assert table[1] == ("platform", "evidence", "what ran", "agreement")
    said = dict(notes[2])  # type: ignore[arg-type]
    assert said["[1]"].startswith("ai-edge-litert 2.3.0, qemu-aarch64 7.2.22")
    assert said["[2]"] == "tools as [1]; 20 pictures, 0.080 s; seconds are the emulator's; missing: a board"
    assert said["[3]"] == "failed: a crash"
    figure = results.figure("platforms", folder, recipe, {PLATFORMS_FILE: ""})
    assert figure == "1 failed, 2 ran"


def test_a_build_ends_with_a_summary(finished_build: Request) -> None:
    """Model, size, SHA-1, top-1, the fastest Ethos-U, the card; the files are listed only on request."""
    result = run(*on_build("all", finished_build))
    assert (result.returncode, result.stderr) == (0, "")
    summary = [line.split("\t") for line in result.stdout.splitlines()]
    assert all(len(row) == 2 for row in summary)
    assert [name for name, _ in summary] == [
        "build", "model", "SHA-1", "verify", "top-1", "Ethos-U", "Cortex-M", "card", "provenance", "files", "state",
        "warning",
    ]  # fmt: skip
    found = dict(summary)
    assert found["verify"] == "12 match, 5 not claimed"
    assert found["top-1"] == "none claimed: the weights are untrained"
    assert re.fullmatch(r"fastest ethos-u55-128: [\d.,]+ inferences/s, as Vela estimates", found["Ethos-U"])
    assert re.fullmatch(r"[\d,]+ bytes of arena for cortex_m/standalone/", found["Cortex-M"])
    assert found["files"].endswith("; --files lists them")
    listed = run(*on_build("all", finished_build, "--files")).stdout.splitlines()
    assert listed[0] == "stage\tfile\tbytes\tSHA-1"
    assert [row.split("\t")[3] for row in listed if row.split("\t")[1] == f"{NAME}.tflite"] == [found["SHA-1"]]


def test_the_results_of_a_stage_are_shown_when_it_is_named(finished_build: Request) -> None:
    """`all` shows only their figures."""
    assert "property\tverdict\tvalue\twhy\n" in run(*on_build("verify", finished_build)).stdout
    assert "property\t" not in run(*on_build("all", finished_build)).stdout


def test_the_status_of_a_build_that_does_not_exist_is_one_line(finished_build: Request, tmp_path: Path) -> None:
    """It names the other builds in the folder, or the command that makes one."""
    other = on_build("status", finished_build)
    other[other.index("0.35_96")] = "0.5_96"
    result = run(*other)
    assert result.returncode == 0
    (line,) = result.stdout.splitlines()
    assert line.startswith("There is no build in ")
    assert f"Builds in {finished_build.out}: {NAME}." in line
    rows = [Freshness("fetch", "missing", ("never built",))]
    (line,) = status.status_blocks(tmp_path / "build", rows)
    assert str(line).endswith("has no builds. Make one: python -m pipeline all")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / LOCK_FILE).write_text("{}")
    assert status.status_blocks(tmp_path / "build", rows) == [
        ("", ("stage", "state", "why"), [("fetch", "missing", "never built")])
    ]


def test_the_command_that_builds_with_recovered_ranges_names_the_folder(finished_build: Request) -> None:
    """The folder is that of --out, as it was typed."""
    shown = run(*_about_a_file("recover", finished_build)).stdout
    assert shown.splitlines()[-1].endswith(f"--out {finished_build.out}")


def test_stages_that_ran_have_a_line_each_and_the_others_share_one(
    finished_build: Request, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line has the figure of its stage. A stage that is up to date but fails has its own line."""
    recipe, machine = resolve(finished_build, NoBars(), may_fetch=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    lines = StageLines(Opened(finished_build, recipe, machine), show=True)
    for name in ("fetch", "freeze", "calibrate"):
        lines.ends(Outcome(name, "reused", "", {}, holds=True))
    lines.begins(Freshness("quantize", "stale", ()))
    model = {f"{NAME}.tflite": ""}
    lines.ends(Outcome("quantize", "built", "", model, holds=True))
    lines.ends(Outcome("verify", "reused", "", {"verify.json": ""}, holds=False))
    lines.flush()
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "up to date: fetch, freeze, calibrate"
    assert re.fullmatch(r"quantize +built +[\d,]+ bytes +0\.\d s", second)
    assert re.fullmatch(r"verify +failed +12 match, 5 not claimed +up to date", third)
    assert max(map(len, (first, second, third))) <= 80


def row(verdict: str, found: str, expected: str) -> dict[str, str]:
    return {"what": f"{NAME}.tflite", "verdict": verdict, "found": found, "expected": expected, "why": "the file"}


def test_digests_that_differ_are_shown_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a narrow terminal the table has only their first digits."""
    rows: Sequence[dict[str, str]] = [row("match", "a" * 64, "a" * 64), row("differs", "a" * 64, "a" * 63 + "b")]
    monkeypatch.setattr(rows_view, "is_wide", lambda: False)
    table, counted, line = rows_view.blocks("a title", rows, NAME)
    assert counted == "1 differs, 1 match."
    assert [cells[:3] for cells in table[2]] == [
        ("*.tflite", "match", "a" * 10),
        ("*.tflite", "differs", f"{'a' * 10}, expected {'a' * 10}"),
    ]
    assert line == f"{NAME}.tflite: found {'a' * 64}, expected {'a' * 63}b"
    assert rows_view.counts(rows) == "1 differs, 1 match"

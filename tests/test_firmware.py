"""Bare-metal images, compiled by the Arm compiler and run by QEMU: they pass, and any error makes them fail.

The tests claim nothing about the speed of a device: QEMU counts instructions, not cycles.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline.c_array import label_sources, model_sources
from pipeline.console import NoBars
from pipeline.cortex_m.firmware import image
from pipeline.cortex_m.firmware.boards import BOARDS, Board, board
from pipeline.cortex_m.standalone.emit import runtime_sources
from pipeline.engine.work import LABELS_FILE, model_file
from pipeline.interface import cli
from pipeline.interface.commands import firmware
from pipeline.interface.views import firmware as firmware_view
from pipeline.platforms import cortex_m
from pipeline.platforms.evidence import Subject
from pipeline.platforms.subject import subject
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from recreate_model.support.errors import CheckError, ResourceError, ToolError, UsageError
from recreate_model.tflite.interpret import Runner
from tests.conftest import build, contents
from tests.operator_models import operator_model
from tests.test_bad_input import NAMESPACE, assert_nothing_written, assert_one_error, can_mount, run, small

Edit = Callable[[str], str]

ROOT = Path(__file__).parents[1]
NAMES = [each.name for each in BOARDS]
# The fast tests run the small network on one board, and a tiny model on every board.
ONE_FAST = [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])]
OCTAL = re.compile(r"\\[0-3][0-7][0-7]")


def missing() -> str:
    """Why this machine cannot build an image or run it, with the package to install. Empty if it can."""
    try:
        image.check_tools()
    except ResourceError as error:
        return str(error)
    return ""


needs_tools = pytest.mark.skipif(bool(missing()), reason=missing() or "nothing is missing")


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A model, the sources of its image, and the results expected of the image."""

    name: str
    sources: Mapping[str, str]
    subject: Subject
    labels: list[str]

    def edited(self, file: str, edit: Edit) -> Case:
        """The same case with one file changed."""
        text = edit(self.sources[file])
        assert text != self.sources[file]
        return dataclasses.replace(self, sources={**self.sources, file: text})

    def built(self, board: Board, folder: Path) -> Path:
        return image.build_image(board, self.sources, self.name, folder)

    def ran(self, board: Board, folder: Path) -> image.Run:
        return image.run_image(board, self.built(board, folder), self.subject.inputs, 120)

    def differing(self, board: Board, folder: Path) -> list[str]:
        """The properties that do not match."""
        table = firmware_view.rows(self.ran(board, folder), self.subject, self.labels)
        return [row.what for row in table if row.verdict != "match"]


@pytest.fixture(scope="session")
def tiny() -> Case:
    """A model of a few thousand bytes, with random pictures. Building and running it takes less than a second."""
    model, name = operator_model("residual"), "tiny.tflite"
    labels = [f"class {number}, the {number}th" for number in range(7)]
    inputs = np.random.default_rng(0).integers(-128, 128, (2, 24, 20, 3)).astype(np.int8)
    runner = Runner(model, "reference")
    expected = np.concatenate([runner.run(picture[np.newaxis])[0] for picture in inputs])
    sources = {**model_sources(model, name), **runtime_sources(model, name), **label_sources(labels)}
    return Case(name, sources, Subject(name, model, inputs, expected), labels)


def case_of(request: Request, count: int) -> Case:
    """The files of a finished build, and the first pictures that it evaluates."""
    recipe, machine = resolve(request, NoBars(), may_fetch=False)
    folder = machine.out / recipe.name
    files = {path: folder / path for path in contents(folder)}
    checked = subject(recipe, machine, files[model_file(recipe)].read_bytes(), count)
    labels = files[LABELS_FILE].read_text(encoding="utf-8").splitlines()
    return Case(model_file(recipe), image.sources_of(files), checked, labels)


@pytest.fixture(scope="session")
def small_network(finished_build: Request) -> Case:
    return case_of(finished_build, 3)


@pytest.fixture(scope="session")
def whole_network(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The full-size network with seeded weights."""
    out = tmp_path_factory.mktemp("whole")
    request = Request(checkpoint="seeded", images="procedural", calib=10, limit=3, jobs=1, out=out)
    build(request, image.STAGES_NEEDED)
    return case_of(request, 3)


# Correct images


@needs_tools
@pytest.mark.parametrize("name", ONE_FAST)
def test_the_small_network_is_bit_exact(name: str, small_network: Case, tmp_path: Path) -> None:
    """The array, the scores, and the five best classes with their labels match for three pictures."""
    ran = small_network.ran(board(name), tmp_path)
    table = firmware_view.rows(ran, small_network.subject, small_network.labels)
    assert [(row.what, row.verdict) for row in table] == [
        ("CRC-32 of the array", "match"),
        ("scores", "match"),
        ("five best", "match"),
    ]
    assert ran.outputs.shape == (3, 1001)
    assert [len(best) for best in ran.best] == [5, 5, 5]
    assert all(one.label == small_network.labels[one.number] for best in ran.best for one in best)
    assert 10e6 < min(ran.instructions) <= max(ran.instructions) < 200e6


@needs_tools
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_full_size_network_is_bit_exact(name: str, whole_network: Case, tmp_path: Path) -> None:
    """One inference takes less than 1.3e9 instructions."""
    assert whole_network.subject.inputs.shape == (3, 224, 224, 3)
    ran = whole_network.ran(board(name), tmp_path)
    table = firmware_view.rows(ran, whole_network.subject, whole_network.labels)
    assert [row.verdict for row in table] == ["match"] * 3
    assert max(ran.instructions) < 1.3e9


@needs_tools
@pytest.mark.parametrize("each", BOARDS, ids=NAMES)
def test_a_tiny_model_is_bit_exact_on_every_board(each: Board, tiny: Case, tmp_path: Path) -> None:
    """Models with other sizes and labels than MobileNetV2 work as well."""
    assert tiny.differing(each, tmp_path) == []


@needs_tools
@pytest.mark.parametrize("each", BOARDS, ids=NAMES)
def test_sections_are_placed_where_the_board_has_memory(each: Board, tiny: Case, tmp_path: Path) -> None:
    """The vectors are at 0, model and weights at the address of the board, and writable data in RAM."""
    elf = tiny.built(each, tmp_path)
    listing = subprocess.run(["arm-none-eabi-objdump", "-h", elf], capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^ *\d+ (\.\S+) +([0-9a-f]{8})  ([0-9a-f]{8})", listing, re.MULTILINE)
    section = {name: (int(address, 16), int(size, 16)) for name, size, address in rows}
    assert section[".text"][0] == 0
    address, size = section[".model"]
    assert address == each.model_address
    assert len(tiny.subject.model) < size < 2 * len(tiny.subject.model)
    assert 0x20000000 <= section[".bss"][0] < 0x20080000
    symbols = subprocess.run(["arm-none-eabi-nm", elf], capture_output=True, text=True, check=True).stdout
    assert f"{each.model_address:08x}" in symbols
    assert re.search(r"^00000000 \w vectors$", symbols, re.MULTILINE)


@needs_tools
def test_the_same_sources_give_the_same_image(tiny: Case, tmp_path: Path) -> None:
    """The image is the same in every folder: it contains no path, no time and no name of a temporary file."""
    one, two = (tiny.built(BOARDS[0], tmp_path / name) for name in ("one", "another/place"))
    assert one.read_bytes() == two.read_bytes()
    assert str(tmp_path).encode() not in one.read_bytes()


# Errors that are detected


def flipped_escape(number: int) -> Edit:
    """Flips the lowest bit of the octal escape at `number` percent of a text."""

    def edit(text: str) -> str:
        found = list(OCTAL.finditer(text))
        match = found[len(found) * number // 100]
        changed = f"\\{int(match[0][1:], 8) ^ 1:03o}"
        return text[: match.start()] + changed + text[match.end() :]

    return edit


@needs_tools
@pytest.mark.parametrize("percent", [0, 50, 99])
def test_one_changed_bit_of_the_array_changes_its_crc(percent: int, tiny: Case, tmp_path: Path) -> None:
    """The scores do not change, because the standalone runtime has its own copy of the weights."""
    damaged = tiny.edited("tiny.c", flipped_escape(percent))
    assert damaged.differing(BOARDS[0], tmp_path) == ["CRC-32 of the array"]


@needs_tools
def test_a_changed_weight_changes_the_scores(tiny: Case, tmp_path: Path) -> None:
    """The array does not change."""

    def off_by_64(text: str) -> str:
        return OCTAL.sub(lambda match: f"\\{int(match[0][1:], 8) ^ 0o100:03o}", text, count=1)

    found = tiny.edited("tiny_constants.c", off_by_64).differing(BOARDS[0], tmp_path)
    assert "scores" in found
    assert "CRC-32 of the array" not in found


@needs_tools
def test_a_wrong_label_is_detected_among_the_five_best(tiny: Case, tmp_path: Path) -> None:
    """The label of the best class has one more character."""
    label = tiny.labels[int(tiny.subject.expected[0].argmax())]
    mislabeled = tiny.edited("labels.c", lambda text: text.replace(f'"{label}"', f'"{label}?"'))
    assert mislabeled.differing(BOARDS[0], tmp_path) == ["five best"]


@needs_tools
def test_an_address_without_memory_is_detected_by_the_crc(tiny: Case, tmp_path: Path) -> None:
    """Reading there gives arbitrary data and no fault on this board. The board therefore computes the CRC itself."""
    misplaced = dataclasses.replace(board("mps2-an500"), model_address=0x21000000)
    assert "CRC-32 of the array" in tiny.differing(misplaced, tmp_path)


@needs_tools
def test_a_difference_ends_the_command_with_status_1(
    finished_build: Request, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table names the difference, and the error the next step. The build itself is correct, and is kept."""
    original = image.sources_of

    def mislabeled(files: Mapping[str, Path]) -> dict[str, str]:
        sources = original(files)
        return {**sources, "labels.c": re.sub(r'",$', '?",', sources["labels.c"], flags=re.MULTILINE)}

    monkeypatch.setattr(image, "sources_of", mislabeled)
    arguments = [str(part) for part in command(finished_build, "--json")]
    with pytest.raises(CheckError, match=r"expected five best to be 1 of 1 pictures; found 0 of 1.*--keep FOLDER"):
        firmware.run(cli._parse(["pipeline", *arguments]))
    assert json.loads(capsys.readouterr().out)["holds"] is False


@needs_tools
def test_a_damaged_array_fails_the_check_of_the_platform(
    tiny: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The row has no tick, although every score is correct."""
    damaged = tiny.edited("tiny.c", flipped_escape(50))
    monkeypatch.setattr(image, "sources_of", lambda build: damaged.sources)
    rows = cortex_m.check(tiny.subject, {})
    assert [row.device.split(" ")[0] for row in rows] == NAMES
    for row in rows:
        assert row.agreement is not None
        assert row.agreement.hits == row.agreement.n == 2
        assert "the array's CRC-32 is" in row.fault
        assert not row.holds
        assert not row.ticks


# Errors on the board


def patched(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Changes the source of the firmware."""
    original = image._package_file

    def data(file: str) -> str:
        text = original(file)
        assert file != "firmware.c" or old in text
        return text.replace(old, new)

    monkeypatch.setattr(image, "_package_file", data)


@needs_tools
@pytest.mark.parametrize("each", BOARDS, ids=NAMES)
def test_a_fault_is_reported(each: Board, tiny: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The board executes an undefined instruction, reports a fault and stops. The run ends with an error."""
    patched(monkeypatch, "model_run();", '__asm__ volatile("udf #0"); model_run();')
    with pytest.raises(ToolError, match=f"to finish on {each.name} .*; found crc32 [0-9a-f]+ fault; .*next: report it"):
        tiny.ran(each, tmp_path)


@needs_tools
def test_a_board_that_stops_early_is_reported(tiny: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops without an error after one of two pictures. The second one is reported as missing."""
    patched(monkeypatch, "for (picture = 0; ", "for (picture = 0; picture < 1 && ")
    with pytest.raises(ToolError, match="the results of 2 pictures; found run times of 1 pictures and classes of 1"):
        tiny.ran(BOARDS[0], tmp_path)


@needs_tools
def test_a_source_that_does_not_compile_is_reported(tiny: Case, tmp_path: Path) -> None:
    """The error is one line with the compiler's message."""
    broken = tiny.edited("tiny_run.c", lambda text: text + "int oops = ;\n")
    with pytest.raises(ToolError, match=r"arm-none-eabi-gcc to build an image for mps3-an547; found .*oops"):
        broken.built(BOARDS[0], tmp_path)


@needs_tools
def test_an_endless_loop_ends_at_the_time_limit(tiny: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulator is stopped, and none of its processes remains."""
    patched(monkeypatch, "    check();\n    stop(0);", "    for (;;)\n        ;\n    check();\n    stop(0);")
    elf = tiny.built(BOARDS[0], tmp_path)
    with pytest.raises(ToolError, match=r"found a timeout after 2 s; .*next: give a longer --time-limit, or fewer"):
        image.run_image(BOARDS[0], elf, tiny.subject.inputs, 2)
    assert not [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(tmp_path)]


# The command


def command(request: Request, *more: object, **flags: object) -> list[object]:
    """The command for the build of `request`."""
    same = {"board": NAMES[0], "calib": request.calib, "limit": request.limit, "targets": request.targets}
    return [*small("firmware", request.out, **{**same, **flags}), *more]


@needs_tools
def test_tables_show_the_results_and_the_tools(finished_build: Request) -> None:
    """They compare the CRC-32, scores and labels, and show the emulator and compiler with their versions."""
    result = run(*command(finished_build, pictures=2))
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(
        r"on mps3-an547 \(Cortex-M55\), emulated: arm-none-eabi-gcc \d+\.\S+, qemu-system-arm \d+\.",
        " ".join(result.stdout.split()),
    )
    assert re.search(r"CRC-32 of the array\tmatch\t[0-9a-f]{8}\t", result.stdout)
    assert re.search(r"scores\tmatch\t2 of 2 bit-exact", result.stdout)
    assert re.search(r"five best\tmatch\t2 of 2 pictures", result.stdout)
    assert len(re.findall(r"^[01]?\t\d+\t-?\d+\t\S", result.stdout, re.MULTILINE)) == 10
    assert "The emulator counts instructions, not cycles." in result.stdout


@needs_tools
def test_json_contains_what_the_tables_show(finished_build: Request) -> None:
    """It is one document, with the classes that the reference kernels give for every picture."""
    document = json.loads(run(*command(finished_build, "--json", pictures=2)).stdout)
    assert (document["board"], document["core"], document["holds"]) == ("mps3-an547", "Cortex-M55", True)
    assert document["pictures"] == "procedural"
    assert [row["verdict"] for row in document["rows"]] == ["match"] * 3
    case = case_of(finished_build, 2)
    assert [run["best"][0]["number"] for run in document["runs"]] == case.subject.expected.argmax(axis=1).tolist()
    assert all(run["instructions"] > 10e6 for run in document["runs"])
    assert document["seconds"] > 0


@needs_tools
@pytest.mark.slow
def test_a_missing_build_is_made(tmp_path: Path) -> None:
    """Only the stages that the image needs run, in the given folder. The second run finds them up to date."""
    out = tmp_path / "else" / "where"
    arguments = small("firmware", out, board=NAMES[1], limit=1)
    assert run(*arguments).returncode == 0
    (folder,) = out.iterdir()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix}
    assert (folder / "cortex_m" / "standalone").is_dir()
    assert not (folder / "README.md").exists()
    assert run(*arguments).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix} == before


@needs_tools
def test_kept_sources_give_the_kept_image(finished_build: Request, tmp_path: Path) -> None:
    """`--keep` keeps all files. A second board adds its own, and the image of the first stays. Nothing is printed."""
    kept = tmp_path / "new" / "kept"
    for name in NAMES[:2]:
        result = run(*command(finished_build, board=name, keep=kept), "--quiet")
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    files = {path.name for path in kept.iterdir()}
    assert {"mps3-an547.elf", "mps3-an547.ld", "mps2-an500.elf", "mps2-an500.ld", "firmware.c", "labels.c"} <= files
    assert not [name for name in files if name.startswith(".")]
    before = (kept / "mps3-an547.elf").read_bytes()
    again = case_of(finished_build, 1).built(BOARDS[0], tmp_path / "again")
    assert again.read_bytes() == before


@needs_tools
def test_keep_does_not_overwrite_a_file_of_the_user(finished_build: Request, tmp_path: Path) -> None:
    """A folder that has a file with the name of a source and other content is refused."""
    (tmp_path / "labels.c").write_text("mine")
    assert_one_error(run(*command(finished_build, keep=tmp_path)), 3, "labels.c", "other content", "another --keep")
    assert [path.name for path in tmp_path.iterdir()] == ["labels.c"]


@needs_tools
def test_keep_refuses_a_path_that_is_not_a_folder(finished_build: Request, tmp_path: Path) -> None:
    """The path is a file, or is below a file. Neither the file nor the build changes."""
    (tmp_path / "file").write_text("mine")
    assert_one_error(run(*command(finished_build, keep=tmp_path / "file")), 3, "a folder at", "--keep")
    assert_one_error(run(*command(finished_build, keep=tmp_path / "file" / "more")), 4, "Not a directory", "--keep")
    assert (tmp_path / "file").read_text() == "mine"


@needs_tools
@pytest.mark.skipif(not can_mount(), reason="this machine does not let users mount a file system")
def test_keep_in_a_read_only_folder_is_a_resource_error(finished_build: Request, tmp_path: Path) -> None:
    """The file system is a real one. The error suggests another folder."""
    script = f'mount -t tmpfs -o ro tmpfs {tmp_path} && exec "$@"'
    result = run(*command(finished_build, keep=tmp_path), prefix=(*NAMESPACE, "sh", "-c", script, "sh"))
    assert_one_error(result, 4, f"to write to {tmp_path}", "Read-only file system", "give another --keep")


@needs_tools
def test_a_full_temporary_folder_is_a_resource_error(finished_build: Request, tmp_path: Path) -> None:
    """The error names TMPDIR, which the user can change."""
    if not can_mount():
        pytest.skip("this machine does not let users mount a file system")
    script = f'mount -t tmpfs -o size=100k tmpfs {tmp_path} && TMPDIR={tmp_path} exec "$@"'
    result = run(*command(finished_build), prefix=(*NAMESPACE, "sh", "-c", script, "sh"))
    assert_one_error(result, 4, "No space left on device", "give another TMPDIR")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            {"board": "mps3-an574"},
            (
                "--board to be one of mps3-an547 (Cortex-M55), mps2-an500 (Cortex-M7), mps2-an386 (Cortex-M4)",
                "give mps3-an547",
            ),
        ),
        ({"board": "an386"}, ("'an386'", "give mps2-an386")),
        ({"board": "raspberry"}, ("'raspberry'", "give mps3-an547")),
        ({"board": None}, ("found no --board",)),
        ({"pictures": 0}, ("--pictures to be at least 1", "found 0")),
        ({"pictures": "one"}, ("--pictures", "'one'")),
        ({"time-limit": 0}, ("--time-limit to be at least 1", "found 0")),
        ({"time-limit": 99_999_999}, ("--time-limit to be at most 86400, a day", "found 99999999")),
        ({"time-limit": "nan"}, ("--time-limit", "'nan'")),
    ],
    ids=str,
)
def test_impossible_values_are_invalid_usage(flags: dict[str, object], words: tuple[str, ...], tmp_path: Path) -> None:
    """The status is 2, and nothing is built, even if tools are missing."""
    arguments = small("firmware", tmp_path / "out", **{"board": NAMES[0], **flags})
    assert_one_error(run(*arguments), 2, *words)
    assert_nothing_written(tmp_path)


def test_every_board_is_found_by_its_name() -> None:
    assert [board(name) for name in NAMES] == list(BOARDS)
    with pytest.raises(UsageError, match="give mps2-an500"):
        board("mps2-an50")


# Tools that are missing or fail. PATH has only these stand-ins.


def tools(folder: Path, **scripts: str) -> str:
    """Makes a folder with these programs, to be used as PATH. `gcc` and `qemu` stand for the long names."""
    names = {"gcc": image.COMPILER, "qemu": image.EMULATOR}
    folder.mkdir()
    for name, script in scripts.items():
        path = folder / names[name]
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return str(folder)


HAS_NEWLIB = "echo /usr/lib/arm-none-eabi/newlib/libc.a"
VERSION = "echo QEMU emulator version 7.2.1"


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ({}, ("arm-none-eabi-gcc", "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi")),
        ({"qemu": VERSION}, ("arm-none-eabi-gcc", "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi")),
        ({"gcc": HAS_NEWLIB}, ("qemu-system-arm", "apt-get install qemu-system-arm")),
        ({"gcc": "echo libc.a", "qemu": VERSION}, ("libc.a", "apt-get install libnewlib-arm-none-eabi")),
    ],
    ids=["nothing", "no compiler", "no emulator", "no newlib"],
)
def test_a_missing_tool_is_named_with_its_package(
    there: dict[str, str], words: tuple[str, ...], tmp_path: Path
) -> None:
    """The status is 4, and nothing is built."""
    path = tools(tmp_path / "bin", **there)
    result = run(*small("firmware", tmp_path / "out", board=NAMES[0]), PATH=path)
    assert_one_error(result, 4, *words, "nothing was built")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("there", [{}, {"gcc": HAS_NEWLIB}, {"gcc": "echo libc.a", "qemu": VERSION}], ids=str)
def test_a_missing_tool_gives_the_platform_no_evidence(
    there: dict[str, str], tiny: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row says that the model ran or failed, there is no tick, and the package is named."""
    monkeypatch.setenv("PATH", tools(tmp_path / "bin", **there))
    (row,) = cortex_m.check(tiny.subject, {})
    assert (row.platform, row.status, row.ticks, row.holds) == ("Cortex-M", "not run", False, True)
    assert "apt-get install" in row.missing


@needs_tools
def test_an_emulator_that_hangs_is_stopped(finished_build: Request, tmp_path: Path) -> None:
    """The status is 5, and the process has ended. The stand-in sleeps, because no image makes the real one hang."""
    marker = "54321.5"  # seconds, by which the process is found
    compiler = f'exec {shutil.which(image.COMPILER)} "$@"'
    path = tools(tmp_path / "bin", gcc=compiler, qemu=f"exec {shutil.which('sleep')} {marker}")
    searched = f"{path}{os.pathsep}{os.environ['PATH']}"
    result = run(*command(finished_build, **{"time-limit": 1}), PATH=searched)
    assert_one_error(result, 5, "mps3-an547", "a timeout after 1 s", "give a longer --time-limit")
    assert not [process for process in psutil.process_iter(["cmdline"]) if marker in (process.info["cmdline"] or [])]


@needs_tools
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo done", "run times of 0 pictures and classes of 0"),
        ("exit 3", "no output, and exit status 3"),
        ("echo unsupported machine type >&2; exit 1", "unsupported machine type"),
        ("kill -SEGV $$", "exit status -11"),
    ],
)
def test_unexpected_output_of_the_emulator_is_reported(
    script: str, words: str, tiny: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in is like another version of QEMU. The error has its output, and no score is invented."""
    elf = tiny.built(BOARDS[0], tmp_path / "c")
    monkeypatch.setenv("PATH", tools(tmp_path / "bin", qemu=script))
    with pytest.raises(ToolError, match=re.escape(words)):
        image.run_image(BOARDS[0], elf, tiny.subject.inputs, 20)

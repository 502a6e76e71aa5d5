"""Stage `platforms`: what counts as evidence, when the card uses it, and that no platform has a tick without it.

The fast tests replace the checks of Cortex-A, Cortex-M and Mali with stand-ins, as the tools of the real ones cannot be
made to fail on demand. The last test runs the real ones; each also has its own tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import check
from pipeline.claims.claim import holds
from pipeline.console import NoBars
from pipeline.engine import golden, keys, runner
from pipeline.engine.stages import ALL, STAGES
from pipeline.engine.work import PLATFORMS_FILE, PROVENANCE_FILE, model_file
from pipeline.interface import cli
from pipeline.platforms import cortex_a, cortex_m, cortex_m_tflm, mali
from pipeline.platforms.evidence import (
    DECIDED,
    FARTHEST,
    PLATFORMS,
    STATUSES,
    Agreement,
    Evidence,
    as_json,
    bit_exact,
    close,
    from_json,
    same_class,
)
from pipeline.platforms.subject import subject
from pipeline.provenance import check as provenance_check
from pipeline.provenance.read import read_statement
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from recreate_model.support.arrays import Array
from recreate_model.support.errors import CheckError, InputError, PipelineError, ResourceError, ToolError
from recreate_model.tflite.interpret import Runner
from tests.conftest import build
from tests.test_bad_input import run, small
from tests.test_card import TICK, readme, row, tiny_model

NAME = "mobilenet_v2_0.35_96_seeded_INT8"
EVERYTHING = tuple(stage.name for stage in ALL)
Check = Callable[..., list[Evidence]]

EMULATED = Evidence(
    "Cortex-A", "ran", "emulated kernels", "qemu (emulated)", ("LiteRT 9.9",), Agreement(20, 20, "bit-exact"), 1.5
)
BOARD = Evidence("Cortex-M", "ran", "bare-metal code", "a board", ("gcc 9.9", "qemu 9.9"), Agreement(3, 3, "bit-exact"))
HOST = Evidence("Cortex-M", "analyzed", "TFLM", "this machine", agreement=Agreement(20, 20, "bit-exact"))
NO_GPU = Evidence("Mali GPU", "not run", "the delegate", missing="a Vulkan device: `apt-get install it`")
DIFFERING = replace(BOARD, device="another board", agreement=Agreement(2, 3, "bit-exact"))


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Check]:
    """Stand-ins for the checks, which a test may replace. That of Ethos-U is the real one; it reads Vela's output."""
    given: dict[str, Check] = {
        "cortex_a": lambda *_: [EMULATED],
        "cortex_m": lambda *_: [BOARD],
        "cortex_m_tflm": lambda *_: [HOST],
        "mali": lambda *_: [NO_GPU],
    }
    for module, name in ((cortex_a, "cortex_a"), (cortex_m, "cortex_m"), (cortex_m_tflm, "cortex_m_tflm")):
        monkeypatch.setattr(module, "check", lambda *args, name=name: given[name](*args))
    monkeypatch.setattr(mali, "check", lambda *args: given["mali"](*args))
    return given


def fails(error: PipelineError) -> Check:
    def failing(*_: object) -> list[Evidence]:
        raise error

    return failing


def folder(request: Request) -> Path:
    assert request.out is not None
    return request.out / NAME


def platforms(request: Request) -> Any:
    return json.loads((folder(request) / PLATFORMS_FILE).read_text())


def card_row(request: Request, platform: str) -> list[str]:
    return row((folder(request) / "README.md").read_text(), platform)


def states(outcomes: Sequence[runner.Outcome]) -> dict[str, str]:
    return {outcome.stage: outcome.state for outcome in outcomes}


def left_out(request: Request) -> list[str]:
    recipe, machine = resolve(request, NoBars(), may_fetch=False)
    return runner.left_out(ALL, recipe, machine)


def chain(request: Request) -> list[str]:
    return [link.parts.stage for link in read_statement(folder(request) / PROVENANCE_FILE).chain]


def attested(request: Request) -> bool:
    return holds(provenance_check.rows(read_statement(folder(request) / PROVENANCE_FILE), folder(request), None))


def command(name: str, request: Request, *more: object, **flags: object) -> int:
    """Runs the command line in this process, so that the stand-ins apply. Returns the exit status."""
    same = {"calib": request.calib, "limit": request.limit, "targets": request.targets}
    arguments = [*small(name, request.out, **{**same, **flags}), *more]
    return cli._dispatch(cli._parse(["pipeline", *map(str, arguments)]))


# Comparing outputs


def test_a_picture_with_a_wrong_byte_is_not_bit_exact() -> None:
    """Pictures are counted, not bytes: two wrong bytes of one picture count once."""
    expected = np.arange(12, dtype=np.int8).reshape(3, 4)
    outputs = expected.copy()
    assert bit_exact(outputs, expected) == Agreement(3, 3, "bit-exact")
    outputs[1, 2] ^= 1
    outputs[1, 3] ^= 1
    assert bit_exact(outputs, expected) == Agreement(2, 3, "bit-exact")
    assert str(bit_exact(outputs, expected)) == "2 of 3 bit-exact"


def test_any_class_with_the_best_score_is_the_same_class() -> None:
    """Outputs that are all equal mean the first class, so they do not agree with everything."""
    expected = np.array([[1, 9, 9, 0], [5, 1, 1, 1], [0, 0, 0, 7]], np.int8)
    assert same_class(np.array([[0, 0, 3, 0], [2, 0, 0, 0], [0, 0, 0, 1]], np.int8), expected).hits == 3
    assert same_class(np.array([[4, 3, 3, 0], [2, 0, 0, 0], [0, 0, 1, 0]], np.int8), expected).hits == 1
    assert same_class(np.zeros((3, 4), np.int8), expected) == Agreement(1, 3, "same class")


def scores(winners: list[int], lead: int, generator: np.random.Generator) -> Array:
    """Returns outputs like those of a softmax, int8 (pictures, 50).

    Args:
        winners: best class of each picture.
        lead: levels between the best and the second best class.
        generator: for the low scores of the other classes.
    """
    values = generator.integers(-128, -120, (len(winners), 50))
    for picture, winner in enumerate(winners):
        values[picture, winner], values[picture, (winner + 7) % 50] = lead // 2, lead // 2 - lead
    return values.astype(np.int8)


@given(st.integers(0, 2**32 - 1), st.integers(0, 128))
def test_correct_kernels_are_close_on_any_pictures(seed: int, lead: int) -> None:
    """Scores may be up to ten levels off, and the class may change where the lead is small."""
    generator = np.random.default_rng(seed)
    expected = scores(generator.integers(0, 50, 20).tolist(), lead, generator)
    noise = generator.integers(-10, 11, expected.shape) * (generator.random(expected.shape) < 0.2)
    found = close(np.clip(expected + noise, -128, 127).astype(np.int8), expected)
    assert found.holds
    assert found.n + found.undecided == 20


@given(st.integers(0, 2**32 - 1), st.integers(0, 128))
def test_wrong_kernels_are_not_close_even_if_every_class_is_undecided(seed: int, lead: int) -> None:
    """Their outputs belong to other pictures, or to other classes."""
    generator = np.random.default_rng(seed)
    expected = scores(generator.permutation(50)[:20].tolist(), lead, generator)
    assert not close(np.roll(expected, 1, axis=0), expected).holds
    assert not close(np.roll(expected, 1, axis=1), expected).holds


def test_one_different_decided_class_is_not_close() -> None:
    """Even if all other scores are equal."""
    generator = np.random.default_rng(3)
    expected = scores([*range(20)], DECIDED + 2, generator)
    outputs = expected.copy()
    outputs[4, 40] = expected[4].max() + 1
    found = close(outputs, expected)
    assert (found.hits, found.n, found.holds) == (19, 20, False)
    assert found.difference is not None
    assert found.difference < 0.1
    # With one level less, no class is claimed.
    expected = scores([*range(20)], DECIDED, generator)
    assert close(expected, expected) == Agreement(0, 0, "same class", 20, 0.0)


def test_close_outputs_are_described_in_one_phrase() -> None:
    """It has the claimed classes, the number of undecided ones, and the difference of the scores."""
    found = Agreement(17, 17, "same class", 3, 0.0213)
    assert str(found) == "17 of 17 same class, 3 undecided, scores 0.02 apart"
    assert found.holds
    assert not replace(found, difference=FARTHEST + 0.01).holds


def test_a_subject_has_the_first_evaluation_pictures(finished_build: Request) -> None:
    """They are quantized, and come with the outputs of the reference kernels."""
    recipe, machine = resolve(finished_build, NoBars(), may_fetch=False)
    model = (folder(finished_build) / model_file(recipe)).read_bytes()
    few, all_of_them = (subject(recipe, machine, model, count) for count in (3, 5))
    assert (few.inputs.shape, few.inputs.dtype, few.expected.shape) == ((3, 96, 96, 3), np.int8, (3, 1001))
    np.testing.assert_array_equal(few.inputs, all_of_them.inputs[:3])
    reference = Runner(model, "reference")
    for picture, expected in zip(few.inputs, few.expected, strict=True):
        np.testing.assert_array_equal(reference.run(picture[np.newaxis])[0][0], expected)
    assert len(np.unique(few.expected, axis=0)) == 3
    assert (few.name, few.trained) == (NAME, False)


def test_a_subject_falls_back_to_procedural_pictures(finished_build: Request, picture_folder: Path) -> None:
    """Its source says so. The folder has twelve pictures, and the subject asks for thirteen."""
    own = replace(finished_build, images=str(picture_folder), calib=4, limit=8)
    recipe, machine = resolve(own, NoBars(), may_fetch=False)
    model = (folder(finished_build) / model_file(recipe)).read_bytes()
    assert subject(recipe, machine, model, 5).source == "folder"
    assert subject(recipe, machine, model, 13).source == "procedural"


# Evidence

WORDS = st.text(max_size=12)
AGREEMENTS = st.builds(
    lambda n, missed, kind, undecided, difference: Agreement(max(n - missed, 0), n, kind, undecided, difference),
    st.integers(1, 50),
    st.integers(0, 3),
    st.sampled_from(["bit-exact", "same class"]),
    st.integers(0, 20),
    st.none() | st.floats(0, 2),
)


def evidence(platform: str | None = None, statuses: Sequence[str] = STATUSES) -> st.SearchStrategy[Evidence]:
    """Returns a strategy for rows of every kind, including ones that no check makes."""
    return st.builds(
        Evidence,
        platform=st.just(platform) if platform else st.sampled_from(PLATFORMS),
        status=st.sampled_from(statuses),
        what=WORDS,
        device=WORDS,
        tools=st.lists(WORDS, max_size=3).map(tuple),
        agreement=st.none() | AGREEMENTS,
        seconds=st.none() | st.floats(0, 1e6),
        note=WORDS,
        missing=WORDS,
        fault=st.just("") | WORDS,
    )


@given(evidence())
def test_evidence_survives_json(one: Evidence) -> None:
    """Every field does; the document also has the derived values `holds` and `ticks`."""
    document = json.loads(json.dumps(as_json(one)))
    assert from_json(document) == one
    assert document.keys() - {"holds", "ticks"} == {part.name for part in fields(Evidence)}
    assert (document["holds"], document["ticks"]) == (one.holds, one.ticks)


@given(evidence())
def test_a_tick_needs_code_that_ran_or_was_compiled_and_agrees(one: Evidence) -> None:
    """One output that differs, or one fault, removes it."""
    if one.ticks:
        assert one.status in ("ran", "compiled")
        assert not one.fault
        assert one.agreement is None or one.agreement.holds
        assert not replace(one, fault="it broke").ticks
        assert not replace(one, agreement=Agreement(4, 5, "same class")).ticks
        assert not replace(one, status="analyzed").ticks


@given(st.lists(evidence("Mali GPU", ("analyzed", "not run")), max_size=4), st.lists(evidence("Ethos U"), max_size=2))
def test_the_card_has_no_tick_without_evidence(weak: list[Evidence], other: list[Evidence]) -> None:
    """`analyzed` and `not run` are not enough, whatever the evidence for another platform is."""
    assert row(readme(tiny_model(), evidence=[*other, *weak]), "Mali GPU")[0] != TICK


@given(st.lists(evidence("Cortex-M"), min_size=1, max_size=5))
def test_the_card_has_a_tick_if_one_row_has_it_and_none_fails(rows: list[Evidence]) -> None:
    """And only then: a passed check does not hide a failed one."""
    mark = row(readme(tiny_model(), evidence=rows), "Cortex-M")[0]
    assert (mark == TICK) == (any(each.ticks for each in rows) and all(each.holds for each in rows))
    assert (mark == "check failed") == (not all(each.holds for each in rows))


def test_the_card_has_all_of_a_row_but_its_seconds() -> None:
    """The seconds differ in every run, and the card must not."""
    full = replace(EMULATED, note="slow", missing="a device", fault="it stopped")
    assert full.sentence == (
        "ran: emulated kernels on qemu (emulated), 20 of 20 bit-exact; failed: it stopped; missing: a device"
    )
    card = readme(tiny_model(), evidence=[full])
    assert f"| {full.platform} | emulated kernels | LiteRT 9.9 | slow |" in card.splitlines()
    assert readme(tiny_model(), evidence=[replace(full, seconds=99.0)]) == card


# When the stage runs


def test_all_does_not_run_platforms(small_build: Request, checks: dict[str, Check]) -> None:
    """Nor does any other stage, although two read its file."""
    checks["mali"] = fails(ToolError(expected="not to be run", found="it was", next_step="nothing"))
    outcomes = build(small_build, EVERYTHING, force=EVERYTHING)
    assert "platforms" not in states(outcomes)
    assert not (folder(small_build) / PLATFORMS_FILE).exists()
    assert left_out(small_build) == []
    for stage in STAGES:
        assert "platforms" not in stage.needs


def test_platforms_runs_every_time_it_is_requested(small_build: Request, checks: dict[str, Check]) -> None:
    """Its result depends on the tools of this machine, which are not part of the key, so it is never reused."""
    for sentence in ("the first time", "the second time"):
        checks["mali"] = lambda *_, sentence=sentence: [replace(NO_GPU, note=sentence)]
        (outcome,) = [each for each in build(small_build, ("platforms",)) if each.stage == "platforms"]
        assert (outcome.state, outcome.holds) == ("built", True)
        assert sentence in [each["note"] for each in platforms(small_build)["rows"]]
    assert outcome.why == "it depends on the tools of this machine"


def test_golden_digests_do_not_include_platforms(small_build: Request, checks: dict[str, Check]) -> None:
    """Nor do they include files that depend on it, as tools differ between machines."""
    before = check.recorded(folder(small_build))
    build(small_build, ("platforms",))
    assert check.recorded(folder(small_build)).keys() == before.keys()
    assert PLATFORMS_FILE not in check.digests(folder(small_build))
    assert PLATFORMS_FILE not in golden.PATH.read_text()


# When the card uses evidence


def test_evidence_goes_into_the_card_and_the_provenance(small_build: Request, checks: dict[str, Check]) -> None:
    """In the statement it comes after the stages it depends on; the statement holds, and the next run reuses all."""
    assert card_row(small_build, "Cortex-M") == ["not measured", ""]
    build(small_build, ("platforms",))
    assert {name for name, state in states(build(small_build)).items() if state == "built"} == {"card", "attest"}
    assert card_row(small_build, "Cortex-A") == [TICK, EMULATED.sentence]
    assert card_row(small_build, "Cortex-M") == [TICK, f"{BOARD.sentence}<br>{HOST.sentence}"]
    assert card_row(small_build, "Mali GPU") == ["not measured", NO_GPU.sentence]
    assert card_row(small_build, "Ethos U")[0] == TICK
    stages = chain(small_build)
    assert stages.index("standalone") < stages.index("platforms") < stages.index("card")
    statement = read_statement(folder(small_build) / PROVENANCE_FILE)
    assert PLATFORMS_FILE in statement.files.keys() - statement.subjects
    assert attested(small_build)
    assert left_out(small_build) == []
    assert set(states(build(small_build)).values()) == {"reused"}


def test_changed_evidence_makes_the_card_stale(
    small_build: Request, checks: dict[str, Check], capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says so, and `all` brings the card up to date."""
    build(small_build, ("platforms",))
    build(small_build)
    checks["cortex_m"] = lambda *_: []
    assert command("platforms", small_build) == 0
    assert "stale: card, attest; `all` brings them up to date" in capsys.readouterr().out
    build(small_build)
    assert card_row(small_build, "Cortex-M") == ["analyzed", HOST.sentence]
    assert attested(small_build)


def test_evidence_of_another_model_is_not_used(
    small_build: Request, checks: dict[str, Check], capsys: pytest.CaptureFixture[str]
) -> None:
    """Another calibration gives another model: the card and the statement leave the evidence out, and `all` says so."""
    build(small_build, ("platforms",))
    build(small_build)
    assert command("all", small_build, calib=7) == 0
    assert (
        "platforms ran on other files, so the card leaves it out; run platforms again, then `all`"
        in capsys.readouterr().out
    )
    assert card_row(small_build, "Cortex-A") == ["not measured", ""]
    assert "platforms" not in chain(small_build)
    assert attested(small_build)
    # A new run gives evidence about this model.
    other = replace(small_build, calib=7)
    build(other, ("platforms",))
    build(other)
    assert card_row(other, "Cortex-A")[0] == TICK
    assert left_out(other) == []


@pytest.mark.parametrize("damage", ["one more tick", "gone"])
def test_a_changed_or_missing_evidence_file_is_not_used(
    damage: str, small_build: Request, checks: dict[str, Check], capsys: pytest.CaptureFixture[str]
) -> None:
    """The card is written without it, and `all` and `status` say so."""
    checks["mali"] = lambda *_: [replace(NO_GPU, missing="", status="analyzed")]
    build(small_build, ("platforms",))
    build(small_build)
    path = folder(small_build) / PLATFORMS_FILE
    if damage == "gone":
        path.unlink()
    else:
        path.write_text(path.read_text().replace('"analyzed"', '"ran"'))
    assert command("status", small_build) == 0
    assert f"{PLATFORMS_FILE} is missing or changed" in capsys.readouterr().out
    assert command("all", small_build) == 0
    assert "platforms ran on other files, so the card leaves it out" in capsys.readouterr().out
    assert card_row(small_build, "Mali GPU") == ["not measured", ""]
    assert "platforms" not in chain(small_build)
    assert attested(small_build)


def test_evidence_of_older_code_is_not_used(
    small_build: Request, checks: dict[str, Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check whose code changed must run again."""
    build(small_build, ("platforms",))
    build(small_build)
    original = keys._source_digest
    changed = "pipeline.platforms.jobs"
    monkeypatch.setattr(keys, "_source_digest", lambda name: "0" * 64 if name == changed else original(name))
    outcomes = build(small_build)
    assert states(outcomes)["card"] == "built"
    assert card_row(small_build, "Cortex-A") == ["not measured", ""]
    assert left_out(small_build) == ["platforms"]


# Failures


def test_different_outputs_give_a_row_without_a_tick(
    small_build: Request, checks: dict[str, Check], capsys: pytest.CaptureFixture[str]
) -> None:
    """The status is 1 with one line; the board that agrees keeps its tick, and the card says that a check failed."""
    checks["cortex_m"] = lambda *_: [BOARD, DIFFERING]
    with pytest.raises(CheckError, match="every claim of `platforms` to hold"):
        command("platforms", small_build)
    said = capsys.readouterr()
    assert f"Cortex-M\tfailed\t{DIFFERING.what}" in said.out
    document = platforms(small_build)
    assert not document["holds"]
    boards = [each for each in document["rows"] if each["platform"] == "Cortex-M" and each["status"] == "ran"]
    assert [(each["holds"], each["ticks"]) for each in boards] == [(True, True), (False, False)]
    assert command("all", small_build, "--quiet") == 0
    mark, sentence = card_row(small_build, "Cortex-M")
    assert mark == "check failed"
    assert "2 of 3 bit-exact" in sentence
    assert card_row(small_build, "Cortex-A")[0] == TICK


@pytest.mark.parametrize("kind", [ToolError, InputError, ResourceError])
@pytest.mark.parametrize("name", ["cortex_a", "cortex_m", "cortex_m_tflm", "mali"])
def test_a_check_that_fails_does_not_affect_the_other_rows(
    name: str, kind: type[PipelineError], checks: dict[str, Check], small_build: Request
) -> None:
    """Its own row has what was expected and what was found, without a tick."""
    others = {EMULATED, BOARD, HOST, NO_GPU} - set(checks[name]())
    (lost,) = checks[name]()
    checks[name] = fails(kind(expected="an emulator to end", found="a crash", next_step="report it"))
    outcomes = build(small_build, ("platforms",))
    assert [outcome.stage for outcome in outcomes if not outcome.holds] == ["platforms"]
    rows = [from_json(each) for each in platforms(small_build)["rows"]]
    assert others < set(rows)
    assert Evidence(lost.platform, "not run", "an emulator to end", fault="a crash") in rows
    assert [each.platform for each in rows] == sorted((each.platform for each in rows), key=PLATFORMS.index)
    assert len(rows) == 5


def test_a_defect_in_a_check_is_not_written_as_evidence(small_build: Request, checks: dict[str, Check]) -> None:
    """An exception that is not a PipelineError is a bug of this program, so it is raised."""

    def defect(*_: object) -> list[Evidence]:
        raise ZeroDivisionError

    checks["mali"] = defect
    with pytest.raises(ZeroDivisionError):
        build(small_build, ("platforms",))
    assert not (folder(small_build) / PLATFORMS_FILE).exists()


# Output


def test_json_has_every_column_of_the_table(
    small_build: Request, checks: dict[str, Check], capsys: pytest.CaptureFixture[str]
) -> None:
    """Platform, evidence, what ran, device, tools, agreement, time, and what is missing."""
    full = replace(EMULATED, note="slow there", missing="more RAM", pictures=20, seconds=1.25)
    checks["cortex_a"] = lambda *_: [full]
    assert command("platforms", small_build, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    found = document["results"]["platforms"]
    assert found == platforms(small_build)
    assert (found["pictures"], found["holds"], found["build"]) == ("procedural", True, NAME)
    shown = found["rows"][0]
    assert shown == {**asdict(full), "tools": ["LiteRT 9.9"], "holds": True, "ticks": True}
    assert command("platforms", small_build) == 0
    text = capsys.readouterr().out
    assert "platform\tevidence\twhat ran\tagreement\n" in text
    assert "Cortex-A\tran\temulated kernels; qemu (emulated) [1]\t20 of 20 bit-exact\n" in text
    assert "[1]\tLiteRT 9.9; 20 pictures, 1.250 s; slow there; missing: more RAM\n" in text
    assert "Pictures: procedural." in text
    assert "No figure is that of a real device." in text


# The real checks


@pytest.mark.slow
def test_the_real_checks_of_the_small_network(small_build: Request) -> None:
    """All checks with the tools of this machine: what runs agrees, a missing tool is named, and the card has both."""
    arguments = small("platforms", small_build.out, calib=small_build.calib, limit=small_build.limit)
    arguments += ["--targets", small_build.targets]
    result = run(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    rows = [from_json(each) for each in json.loads(result.stdout)["results"]["platforms"]["rows"]]
    assert {each.platform for each in rows} == set(PLATFORMS)
    for each in rows:
        assert each.holds, each.sentence
        assert each.status != "not run" or each.missing or each.note
        assert each.status != "ran" or (each.device and each.tools)
    boards = [each for each in rows if each.platform == "Cortex-M" and each.what.startswith("the standalone")]
    if boards[0].status == "ran":
        assert [each.agreement for each in boards] == [Agreement(3, 3, "bit-exact")] * 3
        assert all("emulated" in each.device and "instructions" in each.note for each in boards)
    else:
        assert "apt-get install" in boards[0].missing
    (npu,) = [each for each in rows if each.platform == "Ethos U"]
    assert (npu.status, "no NPU ran" in npu.note) == ("compiled", True)
    assert run("all", *arguments[1:], "--quiet").returncode == 0
    for platform in PLATFORMS:
        mark, sentence = card_row(small_build, platform)
        assert (mark == TICK) == any(each.ticks for each in rows if each.platform == platform)
        assert sentence.count("<br>") == sum(each.platform == platform for each in rows) - 1
    assert run("attest", "--check", folder(small_build) / PROVENANCE_FILE).returncode == 0

"""Stage `platforms`: what counts as evidence, when it is believed, and that nothing has a tick without it.

In the fast tests stand-ins take the place of the checks of Cortex-A, Cortex-M and Mali: the real ones need tools that
cannot be made to fail at will. The last test runs the real ones; each has tests of its own, too.
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
from pipeline.claims.rows import holds
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
PARTED = replace(BOARD, device="another board", agreement=Agreement(2, 3, "bit-exact"))


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Check]:
    """Stand-ins for the checks, which a test may replace; Ethos-U's reads what Vela wrote, and is the real one."""
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
    """The command line, in this process, where the stand-ins are."""
    same = {"calib": request.calib, "limit": request.limit, "targets": request.targets}
    arguments = [*small(name, request.out, **{**same, **flags}), *more]
    return cli._dispatch(cli._parse(["pipeline", *map(str, arguments)]))


# What is compared


def test_one_byte_of_a_picture_is_not_bit_exact() -> None:
    """Pictures are counted, not bytes."""
    expected = np.arange(12, dtype=np.int8).reshape(3, 4)
    outputs = expected.copy()
    assert bit_exact(outputs, expected) == Agreement(3, 3, "bit-exact")
    outputs[1, 2] ^= 1
    outputs[1, 3] ^= 1
    assert bit_exact(outputs, expected) == Agreement(2, 3, "bit-exact")
    assert str(bit_exact(outputs, expected)) == "2 of 3 bit-exact"


def test_a_class_that_shares_the_best_score_is_the_same_class() -> None:
    """Any of the best will do; outputs that are all alike name the first, and do not agree with everything."""
    expected = np.array([[1, 9, 9, 0], [5, 1, 1, 1], [0, 0, 0, 7]], np.int8)
    assert same_class(np.array([[0, 0, 3, 0], [2, 0, 0, 0], [0, 0, 0, 1]], np.int8), expected).hits == 3
    assert same_class(np.array([[4, 3, 3, 0], [2, 0, 0, 0], [0, 0, 1, 0]], np.int8), expected).hits == 1
    assert same_class(np.zeros((3, 4), np.int8), expected) == Agreement(1, 3, "same class")


def scores(winners: list[int], lead: int, generator: np.random.Generator) -> Array:
    """Outputs as of a softmax: a winner for each picture, `lead` levels before the next, and little for the rest."""
    values = generator.integers(-128, -120, (len(winners), 50))
    for picture, winner in enumerate(winners):
        values[picture, winner], values[picture, (winner + 7) % 50] = lead // 2, lead // 2 - lead
    return values.astype(np.int8)


@given(st.integers(0, 2**32 - 1), st.integers(0, 128))
def test_right_kernels_are_close_whatever_the_pictures_are(seed: int, lead: int) -> None:
    """Scores up to ten levels off, and a class that changes in a tie, prove nothing wrong."""
    generator = np.random.default_rng(seed)
    expected = scores(generator.integers(0, 50, 20).tolist(), lead, generator)
    noise = generator.integers(-10, 11, expected.shape) * (generator.random(expected.shape) < 0.2)
    found = close(np.clip(expected + noise, -128, 127).astype(np.int8), expected)
    assert found.holds
    assert found.n + found.undecided == 20


@given(st.integers(0, 2**32 - 1), st.integers(0, 128))
def test_wrong_kernels_are_not_close_even_where_every_class_is_undecided(seed: int, lead: int) -> None:
    """Outputs of other pictures, or the right ones of other classes."""
    generator = np.random.default_rng(seed)
    expected = scores(generator.permutation(50)[:20].tolist(), lead, generator)
    assert not close(np.roll(expected, 1, axis=0), expected).holds
    assert not close(np.roll(expected, 1, axis=1), expected).holds


def test_one_decided_class_that_parts_is_enough() -> None:
    """However near all other scores are."""
    generator = np.random.default_rng(3)
    expected = scores([*range(20)], DECIDED + 2, generator)
    outputs = expected.copy()
    outputs[4, 40] = expected[4].max() + 1
    found = close(outputs, expected)
    assert (found.hits, found.n, found.holds) == (19, 20, False)
    assert found.difference is not None
    assert found.difference < 0.1
    # One level less is no lead that is claimed.
    expected = scores([*range(20)], DECIDED, generator)
    assert close(expected, expected) == Agreement(0, 0, "same class", 20, 0.0)


def test_what_is_close_is_said_in_a_few_words() -> None:
    """The classes claimed, how many are not, and the scores."""
    found = Agreement(17, 17, "same class", 3, 0.0213)
    assert str(found) == "17 of 17 same class, 3 undecided, scores 0.02 apart"
    assert found.holds
    assert not replace(found, difference=FARTHEST + 0.01).holds


def test_a_subject_is_the_pictures_that_evaluate(finished_build: Request) -> None:
    """The first of them, quantized; beside them what the reference kernels make of each."""
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


def test_a_subject_with_too_few_pictures_has_procedural_ones(finished_build: Request, picture_folder: Path) -> None:
    """And says so: twelve pictures of a folder cannot be thirteen."""
    own = replace(finished_build, images=str(picture_folder), calib=4, limit=8)
    recipe, machine = resolve(own, NoBars(), may_fetch=False)
    model = (folder(finished_build) / model_file(recipe)).read_bytes()
    assert subject(recipe, machine, model, 5).source == "folder"
    assert subject(recipe, machine, model, 13).source == "procedural"


# What evidence is

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
    """Rows of every kind, such as no check makes among them."""
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
def test_evidence_comes_back_from_json(one: Evidence) -> None:
    """Every field, through real text; what follows from it stands beside it."""
    document = json.loads(json.dumps(as_json(one)))
    assert from_json(document) == one
    assert document.keys() - {"holds", "ticks"} == {part.name for part in fields(Evidence)}
    assert (document["holds"], document["ticks"]) == (one.holds, one.ticks)


@given(evidence())
def test_a_tick_takes_code_that_ran_or_was_compiled_and_agrees(one: Evidence) -> None:
    """One output that parts, or one fault, is enough to lose it."""
    if one.ticks:
        assert one.status in ("ran", "compiled")
        assert not one.fault
        assert one.agreement is None or one.agreement.holds
        assert not replace(one, fault="it broke").ticks
        assert not replace(one, agreement=Agreement(4, 5, "same class")).ticks
        assert not replace(one, status="analyzed").ticks


@given(st.lists(evidence("Mali GPU", ("analyzed", "not run")), max_size=4), st.lists(evidence("Ethos U"), max_size=2))
def test_the_card_has_no_tick_without_evidence(weak: list[Evidence], other: list[Evidence]) -> None:
    """Whatever is known of another platform, analyzed and not run are never enough."""
    assert row(readme(tiny_model(), evidence=[*other, *weak]), "Mali GPU")[0] != TICK


@given(st.lists(evidence("Cortex-M"), min_size=1, max_size=5))
def test_the_card_has_a_tick_where_one_row_earns_it_and_none_fails(rows: list[Evidence]) -> None:
    """Exactly there: a check that failed is never hidden behind one that did not."""
    mark = row(readme(tiny_model(), evidence=rows), "Cortex-M")[0]
    assert (mark == TICK) == (any(each.ticks for each in rows) and all(each.holds for each in rows))
    assert (mark == "check failed") == (not all(each.holds for each in rows))


def test_the_card_tells_all_but_the_time() -> None:
    """What ran, where, how well, what is missing and what failed; below with what; seconds are others every time."""
    told = replace(EMULATED, note="slow", missing="a device", fault="it stopped")
    assert told.sentence == (
        "ran: emulated kernels on qemu (emulated), 20 of 20 bit-exact; failed: it stopped; missing: a device"
    )
    card = readme(tiny_model(), evidence=[told])
    assert f"| {told.platform} | emulated kernels | LiteRT 9.9 | slow |" in card.splitlines()
    assert readme(tiny_model(), evidence=[replace(told, seconds=99.0)]) == card


# When it runs


def test_all_does_not_run_it(small_build: Request, checks: dict[str, Check]) -> None:
    """Nor does any other stage, although two want its file."""
    checks["mali"] = fails(ToolError(expected="not to be run", found="it was", next_step="nothing"))
    outcomes = build(small_build, EVERYTHING, force=EVERYTHING)
    assert "platforms" not in states(outcomes)
    assert not (folder(small_build) / PLATFORMS_FILE).exists()
    assert left_out(small_build) == []
    for stage in STAGES:
        assert "platforms" not in stage.needs


def test_it_runs_whenever_it_is_named(small_build: Request, checks: dict[str, Check]) -> None:
    """It looks at the tools of this machine, which no key can know: it is never taken from the last time."""
    for sentence in ("the first time", "the second time"):
        checks["mali"] = lambda *_, sentence=sentence: [replace(NO_GPU, note=sentence)]
        (outcome,) = [each for each in build(small_build, ("platforms",)) if each.stage == "platforms"]
        assert (outcome.state, outcome.holds) == ("built", True)
        assert sentence in [each["note"] for each in platforms(small_build)["rows"]]
    assert outcome.why == "it depends on the tools of this machine"


def test_golden_holds_nothing_of_it(small_build: Request, checks: dict[str, Check]) -> None:
    """Neither its file nor what follows from it: tools differ between machines."""
    before = check.recorded(folder(small_build))
    build(small_build, ("platforms",))
    assert check.recorded(folder(small_build)).keys() == before.keys()
    assert PLATFORMS_FILE not in check.digests(folder(small_build))
    assert PLATFORMS_FILE not in golden.PATH.read_text()


# What is believed


def test_what_was_found_goes_into_the_card_and_the_provenance(small_build: Request, checks: dict[str, Check]) -> None:
    """Every row, behind what it was made from; the statement holds, and the next run has nothing to do."""
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


def test_a_second_look_that_finds_something_else_makes_the_card_again(
    small_build: Request, checks: dict[str, Check], capsys: pytest.CaptureFixture[str]
) -> None:
    """Looked at alone, the command says that the card is behind."""
    build(small_build, ("platforms",))
    build(small_build)
    checks["cortex_m"] = lambda *_: []
    assert command("platforms", small_build) == 0
    assert "stale: card, attest; `all` brings them up to date" in capsys.readouterr().out
    build(small_build)
    assert card_row(small_build, "Cortex-M") == ["analyzed", HOST.sentence]
    assert attested(small_build)


def test_evidence_of_another_model_is_not_believed(
    small_build: Request, checks: dict[str, Check], capsys: pytest.CaptureFixture[str]
) -> None:
    """Calibrated otherwise it is another model: the card and the statement have none of it, and `all` says so."""
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
    # Run again, it is about this model.
    other = replace(small_build, calib=7)
    build(other, ("platforms",))
    build(other)
    assert card_row(other, "Cortex-A")[0] == TICK
    assert left_out(other) == []


@pytest.mark.parametrize("damage", ["one more tick", "gone"])
def test_a_file_that_was_changed_by_hand_is_not_believed(
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


def test_evidence_of_other_code_is_not_believed(
    small_build: Request, checks: dict[str, Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that was written anew has not been run yet."""
    build(small_build, ("platforms",))
    build(small_build)
    original = keys._source_digest
    changed = "pipeline.platforms.jobs"
    monkeypatch.setattr(keys, "_source_digest", lambda name: "0" * 64 if name == changed else original(name))
    outcomes = build(small_build)
    assert states(outcomes)["card"] == "built"
    assert card_row(small_build, "Cortex-A") == ["not measured", ""]
    assert left_out(small_build) == ["platforms"]


# What fails


def test_outputs_that_part_are_a_row_without_a_tick(
    small_build: Request, checks: dict[str, Check], capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1, one line of error; the board that agrees keeps its row, and the card says that a check failed."""
    checks["cortex_m"] = lambda *_: [BOARD, PARTED]
    with pytest.raises(CheckError, match="every claim of `platforms` to hold"):
        command("platforms", small_build)
    said = capsys.readouterr()
    assert f"Cortex-M\tfailed\t{PARTED.what}" in said.out
    document = platforms(small_build)
    assert not document["holds"]
    boards = [each for each in document["rows"] if each["platform"] == "Cortex-M" and each["status"] == "ran"]
    assert [(each["holds"], each["ticks"]) for each in boards] == [(True, True), (False, False)]
    assert command("all", small_build, "--quiet") == 0
    mark, told = card_row(small_build, "Cortex-M")
    assert mark == "check failed"
    assert "2 of 3 bit-exact" in told
    assert card_row(small_build, "Cortex-A")[0] == TICK


@pytest.mark.parametrize("kind", [ToolError, InputError, ResourceError])
@pytest.mark.parametrize("name", ["cortex_a", "cortex_m", "cortex_m_tflm", "mali"])
def test_a_check_that_breaks_off_leaves_the_others_their_rows(
    name: str, kind: type[PipelineError], checks: dict[str, Check], small_build: Request
) -> None:
    """Its own row says what was expected and what happened, without a tick."""
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


def test_a_defect_in_a_check_is_no_evidence(small_build: Request, checks: dict[str, Check]) -> None:
    """What is not an error of the family is ours, and is not written down as a platform's."""

    def defect(*_: object) -> list[Evidence]:
        raise ZeroDivisionError

    checks["mali"] = defect
    with pytest.raises(ZeroDivisionError):
        build(small_build, ("platforms",))
    assert not (folder(small_build) / PLATFORMS_FILE).exists()


# What is shown


def test_json_has_every_column_of_the_table(
    small_build: Request, checks: dict[str, Check], capsys: pytest.CaptureFixture[str]
) -> None:
    """Platform, evidence, what ran where and with what, agreement, time, and what it does not show."""
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
    """All of them on the tools of this machine: what runs agrees, what is missing is named, and the card has it."""
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
        mark, told = card_row(small_build, platform)
        assert (mark == TICK) == any(each.ticks for each in rows if each.platform == platform)
        assert told.count("<br>") == sum(each.platform == platform for each in rows) - 1
    assert run("attest", "--check", folder(small_build) / PROVENANCE_FILE).returncode == 0

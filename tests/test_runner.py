"""Reuse and repair: stages that are up to date are reused; stale, damaged and unfinished ones run again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipeline.console import NoBars
from pipeline.engine import runner
from pipeline.engine.keys import key_parts
from pipeline.engine.stages import ALL, STAGES
from pipeline.engine.store import LOCK_FILE, Store
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from tests.conftest import SMALL_REQUEST, build, contents

ROOT = Path(__file__).parents[1]
NAME = "mobilenet_v2_0.35_96_seeded_INT8"


def _states(outcomes: list[runner.Outcome]) -> dict[str, str]:
    return {outcome.stage: outcome.state for outcome in outcomes}


def _built(outcomes: list[runner.Outcome]) -> set[str]:
    return {outcome.stage for outcome in outcomes if outcome.state == "built"}


def _command(request: Request, *arguments: str) -> list[str]:
    return [
        sys.executable, "-m", "pipeline", "all", "--model", request.model, "--checkpoint", request.checkpoint,
        "--images", request.images, "--calib", str(request.calib), "--limit", str(request.limit),
        "--targets", request.targets, "--out", str(request.out), "--jobs", str(request.jobs), *arguments,
    ]  # fmt: skip


def test_a_second_run_does_nothing(small_build: Request) -> None:
    """Every stage is reused, and no file is touched."""
    folder = small_build.out / NAME
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix}
    assert set(_states(build(small_build)).values()) == {"reused"}
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix} == before


def test_a_fresh_build_gives_the_same_bytes(finished_build: Request, tmp_path: Path) -> None:
    """The same request in another folder gives the same artifacts."""
    build(replace(finished_build, out=tmp_path))
    assert contents(tmp_path) == contents(finished_build.out)


def test_a_change_of_calib_reruns_only_the_stages_that_depend_on_it(small_build: Request) -> None:
    """The float model and the labels do not depend on the pictures."""
    outcomes = build(replace(small_build, calib=7))
    assert _states(outcomes)["freeze"] == _states(outcomes)["labels"] == "reused"
    assert {"calibrate", "card"} <= _built(outcomes)
    assert "recipe pictures: 6 entries" in next(o.why for o in outcomes if o.stage == "calibrate")


def test_a_change_of_limit_reruns_only_the_evaluation_and_its_reports(small_build: Request) -> None:
    """Fewer evaluation pictures change the evaluation, the card and the provenance, and nothing else."""
    assert _built(build(replace(small_build, limit=3))) == {"evaluate", "card", "attest"}


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        (f"{NAME}.tflite", "quantize"),
        ("calibration/ranges.json", "calibrate"),
        ("ethos_u/vela.json", "vela"),
        ("labels.txt", "labels"),
        ("README.md", "card"),
    ],
)
@pytest.mark.parametrize("damage", ["one bit", "cut", "gone"])
def test_a_damaged_artifact_is_made_again(path: str, stage: str, damage: str, small_build: Request) -> None:
    """After a flipped bit, a truncated file or a missing one, its stage runs again and gives the same bytes."""
    folder = small_build.out / NAME
    before = contents(folder)
    data = bytearray(before[path])
    if damage == "gone":
        (folder / path).unlink()
    else:
        data[len(data) // 2] ^= 1
        (folder / path).write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    outcomes = build(small_build)
    assert _built(outcomes) == {stage}
    assert f"{path} is missing or changed" in next(o.why for o in outcomes if o.stage == stage)
    assert contents(folder) == before


def test_files_of_a_target_no_longer_requested_are_removed(small_build: Request) -> None:
    """Neither its files nor its folder remain."""
    build(replace(small_build, targets="ethos-u65-256"))
    folders = [path.name for path in (small_build.out / NAME / "ethos_u").iterdir() if path.is_dir()]
    assert folders == ["ethos-u65-256"]


def test_force_runs_the_named_stage_alone(small_build: Request) -> None:
    """The stages that it needs are reused, and its output is the same."""
    before = contents(small_build.out)
    outcomes = build(small_build, ("quantize",), force=("quantize",))
    assert _built(outcomes) == {"quantize"}
    assert contents(small_build.out) == before


def test_a_record_cannot_remove_a_file_outside_the_build(small_build: Request) -> None:
    """A path in the lock that leads out of the build folder makes the whole lock invalid."""
    precious = small_build.out / "precious.txt"
    precious.write_text("mine")
    lock = small_build.out / NAME / LOCK_FILE
    document = json.loads(lock.read_text())
    document["stages"]["labels"]["outputs"]["../precious.txt"] = "0" * 64
    lock.write_text(json.dumps(document))
    assert Store(small_build.out / NAME).records() == {}
    build(small_build, ("labels",))
    assert precious.read_text() == "mine"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": "other"}', '{"format": "build-lock/1", "stages": {"fetch": 3}}']
)
def test_a_damaged_lock_makes_its_stages_run_again(text: str, small_build: Request) -> None:
    """A stage without a record runs again although its files are there, and gives the same bytes."""
    before = contents(small_build.out)
    (small_build.out / NAME / LOCK_FILE).write_text(text)
    outcomes = build(small_build, ("labels",))
    assert _built(outcomes) == {"labels"}
    assert contents(small_build.out) == before


def test_the_lock_holds_no_time_host_or_path(small_build: Request) -> None:
    """Running a stage again does not change the lock."""
    path = small_build.out / NAME / LOCK_FILE
    before = path.read_text()
    build(small_build, force=("fetch", "labels"))
    assert path.read_text() == before
    assert str(small_build.out) not in before
    assert os.uname().nodename not in before


def test_a_changed_module_makes_its_stages_stale(small_build: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code is part of the key: the stages that reach the changed module are stale, and those that need them."""
    from pipeline.engine import keys

    original = keys._source_digest
    monkeypatch.setattr(
        keys, "_source_digest", lambda name: "0" if name == "pipeline.claims.verify" else original(name)
    )
    recipe, machine = resolve(small_build, NoBars(), may_fetch=False)
    rows = {row.stage: row for row in runner.inspect(ALL, recipe, machine)}
    assert rows["verify"].state == "stale"
    assert "code pipeline.claims.verify" in rows["verify"].reasons[0]
    (reason,) = rows["card"].reasons
    assert reason.startswith("verify: code pipeline.claims.verify")
    assert {name for name, row in rows.items() if row.state == "fresh"} == {stage.name for stage in ALL} - {
        "verify",
        "card",
        "attest",
    }


def test_keys_include_every_module_that_a_stage_imports() -> None:
    """Modules imported inside functions count too; modules of other stages do not."""
    recipe, _ = resolve(SMALL_REQUEST, NoBars(), may_fetch=False)
    by_name = {stage.name: stage for stage in STAGES}
    code = key_parts(by_name["calibrate"], recipe, {}).code
    assert {"calibration.ranges.measure", "calibration.pictures.procedural", "recreate_model.tflite.interpret"} <= set(
        code
    )
    assert not {
        "pipeline.ethos_u.vela",
        "pipeline.card.card",
        "pipeline.interface.cli",
        "pipeline.engine.runner",
    } & set(code)


def test_imports_for_the_type_checker_are_not_in_a_key() -> None:
    """`engine.work`, which every stage imports, names picture sources in annotations only."""
    recipe, _ = resolve(SMALL_REQUEST, NoBars(), may_fetch=False)
    for stage in STAGES:
        code = key_parts(stage, recipe, {}).code
        pictures = {"calibration.pictures.sources", "calibration.pictures.preprocess"} & set(code)
        assert bool(pictures) == (stage.name in ("calibrate", "evaluate", "cortex-m", "platforms")), stage.name


def test_two_runs_at_once_do_not_harm_each_other(tmp_path: Path, finished_build: Request) -> None:
    """Both report that they wait for the lock, then finish one after the other; the files are those of one run."""
    request = replace(SMALL_REQUEST, out=tmp_path)
    with Store(tmp_path / NAME).exclusive(on_wait=lambda: None):
        runs = [
            subprocess.Popen(_command(request), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for run in runs:
            assert run.stderr is not None
            assert "another run is using" in run.stderr.readline()
    for run in runs:
        run.communicate(timeout=300)
    assert [run.returncode for run in runs] == [0, 0]
    assert contents(tmp_path) == contents(finished_build.out)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["start", *(stage.name for stage in ALL[:-1])])
def test_a_killed_run_is_finished_by_the_next(stage: str, tmp_path: Path, finished_build: Request) -> None:
    """After a kill at the start or after any stage, the next run gives the same bytes and leaves no other file.

    Only the main process is killed; its workers have to end by themselves.
    """
    request = replace(SMALL_REQUEST, out=tmp_path, jobs=2)
    folder = tmp_path / NAME
    with subprocess.Popen(_command(request, "--quiet"), cwd=ROOT) as process:
        while process.poll() is None:
            if stage == "start" or stage in Store(folder).records():
                # A moment later, so that the next stage is under way.
                time.sleep(0.3)
                workers = psutil.Process(process.pid).children(recursive=True)
                process.kill()
                _, alive = psutil.wait_procs(workers, timeout=30)
                assert not alive
                break
            time.sleep(0.01)
    build(request)
    assert contents(tmp_path) == contents(finished_build.out)
    assert not list(folder.glob(".scratch*"))


def test_a_run_stopped_while_publishing_is_detected(small_build: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between two renames, the stage has no valid record. The next run repeats it and reuses the rest."""
    before = contents(small_build.out)
    replace_file = os.replace
    victim = small_build.out / NAME / "ethos_u" / "ethos-u55-128" / "summary.csv"

    def stopped(source: str, target: str) -> None:
        if str(target) == str(victim):
            raise KeyboardInterrupt
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        build(small_build, ("vela",), force=("vela",))
    monkeypatch.undo()
    record = json.loads((small_build.out / NAME / LOCK_FILE).read_text())["stages"]["vela"]
    assert record["parts"] is None
    outcomes = build(small_build)
    assert _built(outcomes) == {"vela"}
    assert "stopped while it replaced" in next(o.why for o in outcomes if o.stage == "vela")
    assert contents(small_build.out) == before

"""TensorFlow Lite Micro on this machine: the reference kernels' bytes, and the smallest arena that is enough.

Also builds without it: what they report, and how the reproducibility check treats them.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from absl import logging

from pipeline import check
from pipeline.console import NoBars
from pipeline.cortex_m import bundle, tflm, tflm_job
from pipeline.cortex_m.bundle import tflm_files
from pipeline.cortex_m.test_vector import golden_vector
from pipeline.engine import keys
from pipeline.engine.stages import STAGES
from pipeline.platforms import cortex_m_tflm
from pipeline.platforms.evidence import Subject
from pipeline.platforms.subject import subject
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from recreate_model.recipe import Recipe
from recreate_model.support.errors import CheckError, InputError, ResourceError, ToolError
from recreate_model.support.processes import run_to_end
from recreate_model.tflite.model_view import read_model
from tests import edited_models
from tests.conftest import build
from tests.tiny_models import tiny_model

NAME = "mobilenet_v2_0.35_96_seeded_INT8"
FOLDER = "cortex_m/"
STAGE = next(stage for stage in STAGES if stage.name == "cortex-m")
needs_tflm = pytest.mark.skipif(not tflm.is_available(), reason="tflite-micro is not installed")


@pytest.fixture(scope="session")
def small_model(finished_build: Request) -> bytes:
    """The smallest network's INT8 model."""
    return (finished_build.out / NAME / f"{NAME}.tflite").read_bytes()


@pytest.fixture(scope="session")
def twenty(finished_build: Request) -> Subject:
    """Twenty pictures, and the outputs of the reference kernels for them."""
    recipe, machine = resolve(finished_build, NoBars(), may_fetch=False)
    return subject(recipe, machine, (finished_build.out / NAME / f"{NAME}.tflite").read_bytes(), 20)


def hide_tflm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the distribution unknown, as after `pip install .` without the extra."""
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == tflm.DISTRIBUTION:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.fixture
def without_tflm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides TFLM for the whole test."""
    hide_tflm(monkeypatch)


def arena_is_enough(model: bytes, arena: int, folder: Path) -> bool:
    """Whether TFLM's own interpreter accepts an arena of that size, in another process."""
    path = folder / "model.tflite"
    path.write_bytes(model)
    code = (
        "import sys; from pathlib import Path; from tflite_micro.python.tflite_micro import runtime\n"
        "runtime.Interpreter.from_bytes(Path(sys.argv[1]).read_bytes(), arena_size=int(sys.argv[2]))"
    )
    return run_to_end([sys.executable, "-c", code, path, str(arena)], 60).returncode == 0


# What TFLM computes, and in how much memory


@needs_tflm
def test_twenty_pictures_are_bit_exact(twenty: Subject) -> None:
    """Every score of every picture equals that of the reference kernels, and no two pictures have equal scores."""
    measured = tflm.measure(twenty.model, twenty.inputs, twenty.name)
    assert np.array_equal(measured.outputs, twenty.expected)
    assert len(np.unique(twenty.expected, axis=0)) == 20


@needs_tflm
@pytest.mark.parametrize("kind", ["int8", "gather"])
def test_the_arena_of_tiny_models_is_exact(tmp_path: Path, kind: str) -> None:
    """If the setup needs more memory than inference does, the arena has the size that the setup needs."""
    model = tiny_model(kind)
    measured = tflm.measure(model, np.zeros((1, 8, 8, 3), np.int8), kind)
    assert measured.arena >= measured.head + measured.tail
    assert arena_is_enough(model, measured.arena, tmp_path)
    assert not arena_is_enough(model, measured.arena - tflm_job.STEP, tmp_path)


@needs_tflm
def test_the_arena_is_exactly_enough(tmp_path: Path, small_model: bytes) -> None:
    """TFLM accepts it and refuses 16 bytes less; it is what TFLM reports as used."""
    measured = tflm.measure(small_model, golden_vector(small_model, "small").input[np.newaxis], "small")
    assert arena_is_enough(small_model, measured.arena, tmp_path)
    assert not arena_is_enough(small_model, measured.arena - tflm_job.STEP, tmp_path)
    assert measured.arena == measured.head + measured.tail


@needs_tflm
def test_the_head_is_the_memory_of_the_largest_operator(small_model: bytes) -> None:
    """That is the largest sum of an operator's input and output activations, by the shapes in the file."""
    view = read_model(small_model)
    sizes = [
        sum(int(np.prod(view.tensors[index].shape)) for index in (*operator.inputs, *operator.outputs)
            if not view.tensors[index].data)
        for operator in view.operators
    ]  # fmt: skip
    measured = tflm.measure(small_model, golden_vector(small_model, "small").input[np.newaxis], "small")
    assert measured.head == max(sizes)


@needs_tflm
def test_per_tensor_weights_run_as_in_the_reference_kernels(small_model: bytes) -> None:
    """TFLM supports per-tensor weights, so they are not refused here."""

    def by_tensor(tree: object) -> None:
        for name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            for position in (1, 2):
                quantization = edited_models.operand(tree, name, position).quantization
                quantization.scale, quantization.zeroPoint = quantization.scale[:1], quantization.zeroPoint[:1]

    model = edited_models.edited(small_model, by_tensor)
    vector = golden_vector(model, "by tensor")
    measured = tflm.measure(model, vector.input[np.newaxis], "by tensor")
    assert np.array_equal(measured.outputs[0], vector.output)


@needs_tflm
def test_an_operator_that_tflm_lacks_is_named(small_model: bytes) -> None:
    """The error contains TFLM's own message."""

    def change(tree: object) -> None:
        edited_models.operator(tree, "ADD").opcodeIndex = edited_models.code(tree, "ATAN2")

    with pytest.raises(InputError, match="Didn't find op for builtin opcode 'ATAN2'"):
        tflm.measure(edited_models.edited(small_model, change), np.zeros((1, 96, 96, 3), np.int8), "small")


@needs_tflm
def test_a_crash_of_tflm_is_a_tool_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an arena of 0 bytes it reads invalid memory. Only its own process is killed."""
    monkeypatch.setattr(tflm, "_sufficient_arena", lambda model: 0)
    with pytest.raises(ToolError, match="status -11"):
        tflm.measure(tiny_model("int8"), np.zeros((1, 8, 8, 3), np.int8), "tiny")


@needs_tflm
def test_an_output_that_is_not_golden_stops_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """One score is off by one: the stage returns no files, and the error counts the differences."""
    real = tflm.measure

    def measure(*arguments: object) -> tflm.Measurement:
        measured = real(*arguments)  # type: ignore[arg-type]
        measured.outputs[0, 3] ^= 1
        return measured

    monkeypatch.setattr(bundle.tflm, "measure", measure)
    with pytest.raises(CheckError, match="found a difference in 1 of 5 values"):
        tflm_files(tiny_model("int8"), "tiny")


@needs_tflm
@pytest.mark.slow
@pytest.mark.shared
def test_a_trained_model_is_bit_exact_on_photographs(shared: Path, tmp_path: Path) -> None:
    """Twenty pictures at 224 x 224 through a model of four megabytes."""
    request = Request(
        checkpoint=str(shared / "checkpoint" / "mobilenet_v2_1.0_224.tgz"),
        images=str(shared / "imagenet_sample"),
        calib=20,
        out=tmp_path,
    )
    recipe, machine = resolve(request, NoBars(), may_fetch=False)
    model = (shared / "published" / "calibration-unknown-a.tflite").read_bytes()
    (evidence,) = cortex_m_tflm.check(subject(recipe, machine, model, 20))
    assert str(evidence.agreement) == "20 of 20 bit-exact"


# Evidence


@needs_tflm
def test_the_evidence_is_analyzed_and_says_why(twenty: Subject) -> None:
    """No code of a Cortex-M ran, and the note says so; it also has the arena, and `tools` has the version."""
    (evidence,) = cortex_m_tflm.check(twenty)
    assert (evidence.platform, evidence.status) == ("Cortex-M", "analyzed")
    assert str(evidence.agreement) == "20 of 20 bit-exact"
    assert evidence.holds
    assert evidence.tools == (f"tflite-micro {importlib.metadata.version('tflite-micro')}",)
    assert "no code of a Cortex-M ran; arena of 218,352 bytes" in evidence.note


@needs_tflm
def test_another_model_does_not_pass(twenty: Subject) -> None:
    """With one changed weight, the outputs are not the expected ones."""

    def flip(tree: object) -> None:
        edited_models.data(tree, edited_models.operand(tree, "CONV_2D", 1))[0] ^= 0x40

    (evidence,) = cortex_m_tflm.check(replace(twenty, model=edited_models.edited(twenty.model, flip)))
    assert not evidence.holds


def test_without_tflm_nothing_is_claimed_and_the_command_is_named(twenty: Subject, without_tflm: None) -> None:
    """The status is `not run`, with the command that installs TFLM."""
    (evidence,) = cortex_m_tflm.check(twenty)
    assert (evidence.status, evidence.agreement) == ("not run", None)
    assert evidence.missing == "tflite-micro: python -m pip install '.[tflm]'"


# The stage


def recipe_of(request: Request) -> Recipe:
    return resolve(request, NoBars(), may_fetch=False)[0]


def test_a_build_has_the_files_for_tflm(finished_build: Request) -> None:
    """They lie beside the arrays, and the record lists them."""
    names = {path.removeprefix(FOLDER) for path in check.digests(finished_build.out / NAME, [STAGE])}
    stem = "mobilenet_v2_0_35_96_seeded_INT8"
    parts = ("_arena.h", "_ops.h", "_input_levels.h", "_test_vector.h", "_test_vector.c")
    assert names == {*(f"{stem}{part}" for part in parts), "example.cc", "CMakeLists.txt"}


@needs_tflm
def test_the_example_names_the_classes_of_a_labeled_build(finished_build: Request) -> None:
    """A build has labels, so its example includes them."""
    folder = finished_build.out / NAME / FOLDER
    assert '#include "labels.h"' in (folder / "example.cc").read_text()
    assert "labels.c" in (folder / "CMakeLists.txt").read_text()


def test_the_header_has_the_measured_size(finished_build: Request) -> None:
    """Its size, its two parts, and the version of TFLM."""
    header = (finished_build.out / NAME / FOLDER / "mobilenet_v2_0_35_96_seeded_INT8_arena.h").read_text()
    for macro in ("ARENA_SIZE 218352UL", "ARENA_HEAD 138240UL", "ARENA_TAIL 80112UL", 'ARENA_TFLM "tflite-micro 0.'):
        assert f"#define MOBILENET_V2_0_35_96_SEEDED_INT8_{macro}" in header


@needs_tflm
def test_a_build_without_tflm_says_so_and_is_stale_once_it_is_installed(
    small_build: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage runs again for that reason, and the header then has a size."""
    header = small_build.out / NAME / FOLDER / "mobilenet_v2_0_35_96_seeded_INT8_arena.h"
    measured = header.read_text()
    with monkeypatch.context() as patch:
        hide_tflm(patch)
        build(small_build)
        assert "NOT MEASURED" in header.read_text()
        assert tflm.DISTRIBUTION not in _tools(small_build)
    outcomes = {outcome.stage: outcome for outcome in build(small_build)}
    version = importlib.metadata.version(tflm.DISTRIBUTION)
    assert outcomes["cortex-m"].why == f"tool tflite-micro: nothing -> {version}"
    assert {stage for stage, outcome in outcomes.items() if outcome.state == "built"} == {"cortex-m", "card", "attest"}
    assert header.read_text() == measured
    assert _tools(small_build)[tflm.DISTRIBUTION] == version


def _tools(request: Request) -> dict[str, str]:
    lock = json.loads((request.out / NAME / "lock.json").read_text())
    tools: dict[str, str] = lock["stages"]["cortex-m"]["parts"]["tools"]
    return tools


def test_a_changed_template_makes_the_stage_stale(small_build: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates are part of the key by their digests, as modules are."""
    templates = {"pipeline/cortex_m/templates/CMakeLists.txt", "pipeline/cortex_m/templates/example.cc"}
    assert templates <= keys.key_parts(STAGE, recipe_of(small_build), {}).code.keys()
    real, changed = keys._data_digests, "pipeline/cortex_m/templates/example.cc"
    monkeypatch.setattr(keys, "_data_digests", lambda names: {**real(names), **({changed: "0"} if real(names) else {})})
    outcomes = {outcome.stage: outcome for outcome in build(small_build)}
    assert outcomes["cortex-m"].why.startswith(f"code {changed}: ")
    assert outcomes["c-array"].state == "reused"


# The reproducibility check without the tool


def test_the_check_leaves_out_what_was_not_measured(finished_build: Request, without_tflm: None) -> None:
    """These are the stage's files and the card, which lists them; every other file is compared."""
    folder = finished_build.out / NAME
    unmeasured = check.without_tools(check.missing_tools(), folder)
    assert {path for path in unmeasured if not path.startswith(FOLDER)} == {"README.md", "definition.yaml"}
    assert f"{FOLDER}labels.c" not in unmeasured
    assert set(unmeasured.values()) == {("tflite-micro",)}
    claims = {path: digest for path, digest in check.recorded(folder).items() if path not in unmeasured}
    assert list(check.against(claims, folder, unmeasured)) == []
    (difference,) = check.against({**claims, "labels.txt": "0" * 64}, folder, unmeasured)
    assert difference.path == "labels.txt"


@needs_tflm
def test_the_check_leaves_nothing_out_where_every_tool_is_installed(finished_build: Request) -> None:
    """Every file is compared."""
    assert check.missing_tools() == {}
    assert check.without_tools({}, finished_build.out / NAME) == {}


def test_golden_json_is_not_recorded_without_the_tool(without_tflm: None) -> None:
    """It would hold the digests of files without a measurement."""
    with pytest.raises(ResourceError, match="found no tflite-micro; done: golden"):
        check.run("0.35_96", record=True, as_json=False, quiet=True)


def test_the_check_warns_once_and_compares_the_rest(
    without_tflm: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, finished_build: Request
) -> None:
    """One line names the tool and the files that are not compared."""
    folder = finished_build.out / NAME
    claims = {**check.recorded(folder), f"{FOLDER}example.cc": "0" * 64}
    monkeypatch.setattr(check, "_build", lambda *arguments: folder)
    monkeypatch.setattr(check.golden, "artifacts", lambda recipe: claims)
    logging.set_verbosity(logging.WARNING)
    assert check.run("0.35_96", record=False, as_json=False, quiet=True) == 0
    (warning,) = [record.getMessage() for record in caplog.records if "golden.json" in record.getMessage()]
    assert warning.startswith("not compared with golden.json, as tflite-micro is not installed: cortex_m/")
    assert "README.md" in warning

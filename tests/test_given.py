"""`--of MODEL`: a build that starts from a given INT8 file, through the real command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.parallel.workers import Workers
from calibration.pictures.folder import FolderSource
from calibration.pictures.inputs import Inputs
from calibration.pictures.preprocess import quantize_input
from pipeline.claims.evaluate import evaluate
from pipeline.engine.stages import ALL, MAKING
from pipeline.engine.store import Store
from pipeline.interface import cli
from pipeline.request.request import Request
from recreate_model.network.labels import labels
from recreate_model.recipe import Preprocess
from recreate_model.support.digest import digest_bytes, digest_file
from recreate_model.support.errors import InputError, PipelineError, UsageError
from recreate_model.tflite.full_integer import check_full_integer, picture_fault
from recreate_model.tflite.interpret import Runner
from recreate_model.tflite.model_view import read_model
from tests.conftest import contents
from tests.edited_models import edited, operand
from tests.tiny_models import tiny_model

STEM = "mobilenet_v2_0.35_96_seeded_INT8"
MADE_BY = {
    "verify": "verify.json",
    "evaluate": "evaluate.json",
    "vela": "ethos_u/vela.json",
    "labels": "labels.txt",
    "c-array": f"cortex_m/{STEM.replace('.', '_')}.c",
    "cortex-m": "cortex_m/example.cc",
    "standalone": f"cortex_m/standalone/{STEM.replace('.', '_')}_run.c",
    "linux": "cortex_a/classify.py",
    "card": "README.md",
    "attest": "provenance.intoto.json",
}


def typed(command: str, model: Path, out: Path, *flags: object) -> int:
    """Runs a command on a given model in this process. Raises the error that the command line would print."""
    words = [command, "--of", model, "--out", out, "--jobs", "1", "--quiet", *flags]
    return cli._dispatch(cli._parse(["pipeline", *map(str, words)]))


def folder_of(model: Path, out: Path) -> Path:
    """Returns the build folder of a given model."""
    return out / f"{model.stem}_given-{digest_file(model)[:8]}"


@pytest.fixture(scope="module")
def model(finished_build: Request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of the small build, alone in a folder."""
    name = f"{STEM}.tflite"
    return Path(shutil.copy(finished_build.out / STEM / name, tmp_path_factory.mktemp("given") / name))


@pytest.fixture(scope="module")
def built(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build folder of `all --of` on that model."""
    out = tmp_path_factory.mktemp("of")
    assert typed("all", model, out, "--images", "procedural", "--limit", "3", "--targets", "ethos-u55-128") == 0
    return folder_of(model, out)


def test_every_deployable_is_made_from_the_given_bytes(model: Path, built: Path, finished_build: Request) -> None:
    """The model is the given one, and every deployable equals, byte for byte, that of the build that made the model."""
    made, own = contents(built), contents(finished_build.out / STEM)
    assert made[f"{STEM}.tflite"] == model.read_bytes()
    assert not any(path.startswith(("float/", "calibration/")) for path in made)
    same = [path for path in made if path.startswith(("ethos_u/", "cortex_m/", "cortex_a/", "mali_gpu/", "labels"))]
    assert len(same) > 20
    assert [path for path in same if made[path] != own[path]] == []
    assert sorted(same) == sorted(path for path in own if path.split("/")[0] in {p.split("/")[0] for p in same})


def test_the_card_says_that_the_model_was_given(built: Path, model: Path) -> None:
    """Its first line has the SHA-256 of the file; it mentions no float weights, calibration or training set."""
    card = (built / "README.md").read_text()
    assert card.startswith(f"> **Given, SHA-256 {digest_file(model)}: the model was not built here.**")
    assert f"# {STEM}" in card
    for word in ("Float weights", "calibrat", "ImageNet.", "published"):
        assert word not in card
    given = json.loads((built / "given.json").read_text())
    assert (given["sha256"], given["note"]) == (digest_file(model), "given, not built here")


def test_its_provenance_begins_with_the_given_file(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The statement lists the given file as its first dependency, and `attest --check` accepts it."""
    statement = json.loads((built / "provenance.intoto.json").read_text())
    first = statement["predicate"]["buildDefinition"]["resolvedDependencies"][0]
    assert first["annotations"]["role"] == "INT8 model, given and not built here"
    words = ["attest", "--check", str(built / "provenance.intoto.json"), "--json"]
    assert cli._dispatch(cli._parse(["pipeline", *words])) == 0
    rows = {row["what"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["chain"]["found"].endswith("stages, each with the files of those it needs")
    assert rows["float archive"]["verdict"] == rows["pictures"]["verdict"] == "not claimed"


def test_a_changed_model_in_the_folder_fails_the_provenance_check(built: Path, tmp_path: Path) -> None:
    """One bit of the model is changed."""
    folder = Path(shutil.copytree(built, tmp_path / "copy"))
    data = bytearray((folder / f"{STEM}.tflite").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / f"{STEM}.tflite").write_bytes(data)
    with pytest.raises(PipelineError, match=r"\.tflite"):
        cli._dispatch(cli._parse(["pipeline", "attest", "--check", str(folder / "provenance.intoto.json"), "--quiet"]))


def test_a_second_run_reuses_every_stage(built: Path, model: Path) -> None:
    """A second `all` without options keeps the targets and pictures of the first."""
    before = {path: (built / path).stat().st_mtime_ns for path in contents(built)}
    assert typed("all", model, built.parent) == 0
    assert {path: (built / path).stat().st_mtime_ns for path in contents(built)} == before


def test_every_stage_that_starts_from_a_model_is_tried() -> None:
    """A new stage needs a row in MADE_BY."""
    assert set(MADE_BY) == {stage.name for stage in ALL} - set(MAKING)


@pytest.mark.parametrize("stage", MADE_BY)
def test_every_command_on_a_model_accepts_a_given_one(stage: str, model: Path, tmp_path: Path) -> None:
    """Each makes its own files from the given file alone; targets and pictures are options as for other builds."""
    flags = ["--images", "procedural", "--limit", "2", "--targets", "ethos-u55-128"]
    assert typed(stage, model, tmp_path, *flags) == 0
    assert (folder_of(model, tmp_path) / MADE_BY[stage]).is_file()


@pytest.mark.parametrize("command", ["fetch", "freeze", "calibrate", "quantize"])
def test_commands_that_make_a_model_refuse_a_given_one(command: str, model: Path, tmp_path: Path) -> None:
    """fetch, freeze, calibrate and quantize have nothing to do for a given model."""
    with pytest.raises(UsageError, match="a given model is not made here"):
        typed(command, model, tmp_path)


@pytest.mark.parametrize("flags", [("--checkpoint", "seeded"), ("--calib", "5"), ("--model", "0.35_96")], ids=str)
def test_options_that_only_affect_making_a_model_are_refused(
    flags: tuple[str, ...], model: Path, tmp_path: Path
) -> None:
    """They would have no effect on a given model."""
    with pytest.raises(UsageError, match=flags[0]):
        typed("vela", model, tmp_path, *flags)


def test_the_accuracy_of_the_given_file_is_measured(model: Path, picture_folder: Path, tmp_path: Path) -> None:
    """With labeled pictures its top-1 is measured; there is no float model to compare with."""
    assert typed("evaluate", model, tmp_path, "--images", picture_folder, "--limit", "6") == 0
    found = json.loads((folder_of(model, tmp_path) / "evaluate.json").read_text())
    assert found["int8_top1"]["n"] == 6
    assert found["float_top1"] is found["agreement"] is found["left_out_as_calibrated"] is None


# Stages that a given file does not allow


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An INT8 file of five classes with a fully connected layer, and its build folder."""
    path = tmp_path_factory.mktemp("tiny") / "tiny model.tflite"
    path.write_bytes(tiny_model("int8"))
    assert typed("all", path, path.parent / "out", "--targets", "ethos-u55-128", "--images", "procedural") == 0
    return path, folder_of(path, path.parent / "out")


def test_stages_that_the_file_allows_run(tiny: tuple[Path, Path]) -> None:
    """Vela and the C array accept every full-integer file, and the TFLM example works without labels."""
    _, folder = tiny
    assert (folder / "ethos_u/ethos-u55-128/tiny model_vela.tflite").is_file()
    assert (folder / "cortex_m/tiny_model.c").is_file()
    assert not (folder / "cortex_m/labels.h").exists()
    example = (folder / "cortex_m/example.cc").read_text()
    assert "labels" not in example
    assert "TINY_MODEL_OUTPUT_BYTES" in example


def test_stages_that_the_file_does_not_allow_are_reported(tiny: tuple[Path, Path]) -> None:
    """Each stage that was left out gives its reason in a file of its own and on the card."""
    _, folder = tiny
    reasons = {path.stem: json.loads(path.read_text()) for path in (folder / "left_out").iterdir()}
    assert set(reasons) == {"labels", "evaluate", "standalone", "linux"}
    assert "FULLY_CONNECTED" in reasons["standalone"]["found"]
    card = (folder / "README.md").read_text()
    for stage in reasons:
        assert f"Left out: `{stage}`" in card


def test_a_stage_that_must_be_left_out_is_an_error_as_a_command(tiny: tuple[Path, Path]) -> None:
    """The error gives the reason, and the rest of the build is kept."""
    path, folder = tiny
    before = contents(folder)
    with pytest.raises(InputError, match="FULLY_CONNECTED"):
        typed("standalone", path, folder.parent)
    assert contents(folder) == before


def test_a_model_whose_input_is_not_a_picture_is_tested_with_noise(tmp_path: Path) -> None:
    """Its test vector is the same noise on every machine; no table of picture levels is written."""
    path = tmp_path / "noise.tflite"
    path.write_bytes(tiny_model("noise"))
    assert typed("cortex-m", path, tmp_path / "out") == 0
    folder = folder_of(path, tmp_path / "out") / "cortex_m"
    assert "noise 0 made from seed 0, 8 x 8 x 2" in (folder / "noise_test_vector.h").read_text()
    assert not list(folder.glob("*input_levels*"))


def test_several_inputs_and_outputs_have_numbers_in_the_c_array(tmp_path: Path) -> None:
    """Each input and output has its own macros; stages that need one input and one output are left out."""
    path = tmp_path / "two.tflite"
    path.write_bytes(tiny_model("two"))
    assert typed("all", path, tmp_path / "out", "--targets", "ethos-u55-128", "--images", "procedural") == 0
    header = (folder_of(path, tmp_path / "out") / "cortex_m/two.h").read_text()
    for end in ("INPUT_0", "INPUT_1", "OUTPUT_0", "OUTPUT_1"):
        assert f"#define TWO_{end}_SCALE" in header
    assert (folder_of(path, tmp_path / "out") / "left_out/cortex-m.json").is_file()


def test_a_network_with_nearly_equal_scores_does_not_abort_the_process(model: Path) -> None:
    """LiteRT's reference kernels would abort without a message; the error names the scale of the softmax input."""

    def flatten(tree: Any) -> None:
        operand(tree, "SOFTMAX", 0).quantization.scale = np.array([7.8e-9], np.float32)

    with pytest.raises(InputError, match=r"found 7\.8e-09: all logits"):
        Runner(edited(model.read_bytes(), flatten), "reference")


def test_a_network_without_a_background_begins_with_the_first_class(tmp_path: Path, picture_folder: Path) -> None:
    """With 1000 classes the labels have no background, and class 0 is the first class of ImageNet."""
    path = tmp_path / "thousand.tflite"
    path.write_bytes(tiny_model("int8", classes=1000))
    assert typed("labels", path, tmp_path / "out") == 0
    names = (folder_of(path, tmp_path / "out") / "labels.txt").read_text().splitlines()
    assert names == list(labels()[1:])

    source = FolderSource(picture_folder, None, None)
    inputs = Inputs(source, Preprocess(), 8)
    data = path.read_bytes()
    quantization = read_model(data).input.quantization
    assert quantization is not None
    pictures = []
    for picture in source.pictures()[:4]:
        value, _ = inputs.load(picture)
        levels = quantize_input(value, quantization.scales[0], quantization.zero_points[0])
        winner = int(np.argmax(Runner(data, "xnnpack").run(levels)[0]))
        pictures.append(type(picture)(picture.id, picture.sha256, winner + 1))
    found = evaluate(None, data, inputs, pictures, Workers(1), lambda count: None)
    assert found.int8_top1 is not None
    assert (found.int8_top1.hits, found.float_top1) == (4, None)


# Bad input


def several_subgraphs(model: bytes) -> bytes:
    return edited(model, lambda tree: tree.subgraphs.append(tree.subgraphs[0]))


def legacy(model: bytes) -> bytes:
    """Marks every int8 tensor as uint8, as in files of TensorFlow's first quantizer."""

    def change(tree: object) -> None:
        for tensor in tree.subgraphs[0].tensors:  # type: ignore[attr-defined]
            tensor.type = 3 if tensor.type == 9 else tensor.type

    return edited(model, change)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("float", "a float model: float32"),
        ("16x8", "a 16x8 model: int16"),
        ("weights", "a dynamic-range model"),
        ("ends", "an INT8 model with float32 inputs"),
        ("legacy", "a uint8 model"),
        ("subgraphs", "2 subgraphs instead of one"),
        ("pointer", "Git LFS pointer"),
        ("page", "HTML page"),
        ("empty", "an empty file"),
        ("folder", "a folder"),
        ("nothing", "No such file"),
    ],
)
def test_a_file_that_is_not_a_full_integer_model_is_refused(kind: str, words: str, tmp_path: Path) -> None:
    """The error says what the file is, and no folder is made."""
    path = tmp_path / "model.tflite"
    made = {
        "legacy": lambda: legacy(tiny_model("int8")),
        "subgraphs": lambda: several_subgraphs(tiny_model("int8")),
        "pointer": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n",
        "page": lambda: b"<!DOCTYPE html><html></html>",
        "empty": lambda: b"",
    }
    if kind == "folder":
        path.mkdir()
    elif kind != "nothing":
        path.write_bytes(made[kind]() if kind in made else tiny_model(kind, classes=20))
    with pytest.raises(InputError) as caught:
        typed("all", path, tmp_path / "out")
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_picture_input_is_recognized_by_its_range(model: Path) -> None:
    """This program scales pictures to -1..1; an input with another range would get wrong values."""
    view = read_model(model.read_bytes())
    check_full_integer(view, "the model")
    assert picture_fault(view) == ""

    def whole(tree: object) -> None:
        first = tree.subgraphs[0].inputs[0]  # type: ignore[attr-defined]
        tree.subgraphs[0].tensors[first].quantization.scale = np.array([1 / 255], np.float32)  # type: ignore[attr-defined]
        tree.subgraphs[0].tensors[first].quantization.zeroPoint = np.array([-128])  # type: ignore[attr-defined]

    assert picture_fault(read_model(edited(model.read_bytes(), whole))) == "an input range of 0 to 1"


@pytest.mark.shared
def test_every_artifact_is_made_from_the_published_file(shared: Path, tmp_path: Path) -> None:
    """The real published model gives eleven Vela variants, the C array, the runtime, the programs and a card."""
    model = shared / "published/official/mobilenet_v2_1.0_224_INT8.tflite"
    assert typed("all", model, tmp_path, "--images", shared / "imagenet_sample", "--limit", "40") == 0
    folder = folder_of(model, tmp_path)
    assert digest_bytes((folder / model.name).read_bytes(), "sha1") == "8de7996dfeadb5ab6f09e3114f3905fd03879eee"
    assert len(json.loads((folder / "ethos_u/vela.json").read_text())["variants"]) == 11
    assert not (folder / "left_out").exists()
    assert all(
        (folder / path.replace("0.35_96_seeded", "1.0_224").replace("0_35_96_seeded", "1_0_224")).is_file()
        for path in MADE_BY.values()
    )
    card = (folder / "README.md").read_text()
    assert "It is the published mobilenet_v2_1.0_224_INT8, byte for byte." in card.splitlines()[0]
    assert json.loads((folder / "verify.json").read_text())["holds"]
    assert json.loads((folder / "evaluate.json").read_text())["int8_top1"]["hits"] >= 20


@pytest.mark.shared
@pytest.mark.parametrize("name", ["kws_ref_model", "vww_96_int8", "pretrainedResnet_quant", "ad01_int8"])
def test_other_published_models_run_the_stages_their_operators_allow(name: str, shared: Path, tmp_path: Path) -> None:
    """Vela and the C array accept each; the runtime does not support their fully connected layers and is left out."""
    model = shared / f"published/mlperf_tiny/{name}.tflite"
    assert typed("all", model, tmp_path, "--targets", "ethos-u55-128", "--images", "procedural") == 0
    records = Store(folder_of(model, tmp_path)).records()
    assert "ethos_u/vela.json" in records["vela"].outputs
    assert any(path.endswith(".c") for path in records["c-array"].outputs)
    assert set(records["standalone"].outputs) == {"left_out/standalone.json"}

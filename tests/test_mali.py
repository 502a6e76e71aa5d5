"""The evidence for Mali GPUs: the delegate on a real Vulkan device, its negative control, and drivers that fail."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.ranges import range_table
from pipeline.console import NoBars
from pipeline.engine.work import model_file
from pipeline.platforms import mali, vulkan
from pipeline.platforms.evidence import Evidence, Subject
from pipeline.platforms.gpu_operators import unsupported
from pipeline.platforms.subject import subject
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from recreate_model.quantize import convert
from recreate_model.tflite.interpret import Runner
from recreate_model.tflite.model_view import ModelView, Quantization, read_model
from tests import conftest, edited_models, vulkan_drivers
from tests.tiny_models import tiny_model

RECORDED = Path(__file__).parents[1] / "calibration" / "recorded" / "mobilenet_v2_0.35_96_seeded.json"


@pytest.fixture(scope="session")
def small(small_float: bytes) -> bytes:
    """The smallest network as an INT8 model."""
    return convert.quantize(small_float, range_table.from_json(RECORDED.read_text(), str(RECORDED)).spans)


@pytest.fixture
def software_device(monkeypatch: pytest.MonkeyPatch) -> Path:
    """SwiftShader as the only driver; its manifest."""
    path = vulkan_drivers.swiftshader()
    monkeypatch.setenv("VK_DRIVER_FILES", str(path))
    return path


def noise(model: bytes, count: int = 20) -> Subject:
    """A model with random inputs and what the reference kernels make of them."""
    shape = read_model(model).input.shape[1:]
    inputs = np.random.default_rng(0).integers(-128, 128, (count, *shape)).astype(np.int8)
    runner = Runner(model, "reference")
    return Subject("test", model, inputs, np.concatenate([runner.run(value[np.newaxis])[0] for value in inputs]))


def only(rows: list[Evidence]) -> Evidence:
    """The only row."""
    (row,) = rows
    assert row.platform == "Mali GPU"
    return row


@pytest.mark.slow
def test_the_delegate_runs_a_trained_like_model_and_gives_its_classes(software_device: Path) -> None:
    """A tiny model whose classes lie apart: fully accelerated, every class the reference kernels' one."""
    row = only(mali.check(noise(tiny_model("int8"))))
    assert (row.status, row.holds) == ("ran", True)
    assert row.agreement is not None
    assert row.agreement.n + row.agreement.undecided == 20
    assert row.device.startswith("SwiftShader Device")
    assert "(software)" in row.device
    assert row.seconds is not None
    assert 0 < row.seconds < 10
    assert "fully accelerated: all 4 operators" in row.note
    assert "the control, with one option that the delegate lacks, was not" in row.note
    assert "libLiteRtWebGpuAccelerator.so over Vulkan" in row.note
    assert "Mali's own driver was not used" in row.note
    assert row.missing == ""


@pytest.mark.slow
def test_another_models_outputs_are_noticed(software_device: Path) -> None:
    """Weights with their bits flipped give other classes, and the evidence does not hold."""

    def flip(tree: Any) -> None:
        weights = edited_models.data(tree, edited_models.operand(tree, "FULLY_CONNECTED", 1))
        weights ^= 0xFF

    whole = noise(tiny_model("int8"))
    row = only(mali.check(replace(whole, model=edited_models.edited(whole.model, flip))))
    assert row.agreement is not None
    assert row.agreement.hits < 20
    assert not row.holds
    assert re.search(r"(\d+) of 20 same class, and of XNNPACK's kernels on the CPU \1 of 20", row.note)


@pytest.mark.slow
def test_mobilenet_is_fully_accelerated(software_device: Path, small: bytes) -> None:
    """Each of the 66 operators; classes of untrained weights are counted, and not claimed."""
    row = only(mali.check(replace(noise(small, 5), trained=False)))
    assert (row.status, row.agreement, row.holds) == ("ran", None, True)
    assert "fully accelerated: all 66 operators" in row.note
    assert "of 5 same class (not claimed of untrained weights), and of XNNPACK's kernels on the CPU" in row.note


@pytest.mark.slow
def test_a_model_that_the_gpu_runs_in_part_is_not_accelerated(software_device: Path, small: bytes) -> None:
    """The evidence is lowered, and says which operator is left to the CPU and why."""
    row = only(mali.check(noise(mali.control_model(small), 2)))
    assert row.status == "analyzed"
    assert "not fully accelerated: SOFTMAX: Softmax.beta != 1 is not supported." in row.note
    assert "65 operations will run on the GPU, and the remaining 1 operations will run on the CPU" in row.note


@pytest.mark.slow
def test_a_control_that_is_accelerated_takes_the_evidence_away(
    software_device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a delegate called everything fully accelerated, the words would mean nothing."""
    monkeypatch.setattr(mali, "control_model", lambda model: model)
    row = only(mali.check(noise(tiny_model("int8"), 2)))
    assert row.status == "analyzed"
    assert "the control failed, so that `fully accelerated` says nothing: it was fully accelerated too" in row.note


@pytest.mark.slow
def test_a_control_that_does_not_run_takes_the_evidence_away(
    software_device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer is no answer that it was not accelerated."""
    monkeypatch.setattr(mali, "control_model", lambda model: model[:100])
    row = only(mali.check(noise(tiny_model("int8"), 2)))
    assert row.status == "analyzed"
    assert "the control failed, so that `fully accelerated` says nothing: " in row.note


def test_seeded_weights_are_told_from_trained_ones(small: bytes) -> None:
    """By the recipe, since the file does not show it."""
    recipe, machine = resolve(conftest.SMALL_REQUEST, NoBars(), may_fetch=False)
    assert not subject(recipe, machine, small, 1).trained
    archive = replace(recipe, checkpoint=replace(recipe.checkpoint, kind="archive"))
    assert subject(archive, machine, small, 1).trained


def test_the_control_differs_in_one_option_alone(small: bytes) -> None:
    """The same operators, tensors and weights; beta is 2 where it was 1."""
    before, after = read_model(small), read_model(mali.control_model(small))
    assert before.tensors == after.tensors
    assert before.operators[:-1] == after.operators[:-1]
    assert (before.operators[-1].options, after.operators[-1].options) == ({"beta": 1.0}, {"beta": 2.0})


def test_vulkan_itself_names_the_device() -> None:
    """Name, driver and version as vulkaninfo has them."""
    path = vulkan_drivers.swiftshader()
    if not shutil.which("vulkaninfo"):
        pytest.skip("no vulkaninfo to compare with (apt-get install vulkan-tools)")
    (driver,) = [one for one in vulkan.survey().drivers if one.manifest == path]
    (device,) = driver.devices
    command = ["env", f"VK_DRIVER_FILES={path}", f"VK_ICD_FILENAMES={path}", "vulkaninfo", "--summary"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    told = dict(map(str.strip, line.split("=", 1)) for line in lines if "=" in line and line.startswith("\t"))
    assert device.name == told["deviceName"]
    assert device.driver == f"{told['driverName']} {told['driverInfo'] or told['driverVersion']}"
    assert device.api == told["apiVersion"].split()[0]
    assert device.hardware == (told["deviceType"] != "PHYSICAL_DEVICE_TYPE_CPU")
    assert not device.mali


def test_arms_own_driver_is_told_from_mesas() -> None:
    """By Vulkan's number of the driver; by the vendor's number where the device is of before Vulkan 1.2."""
    found = {"name": "Mali-G610", "type": 1, "vendor": 0x13B5, "api_version": 1 << 22, "driver_version": 38 << 22}
    old = vulkan._device({**found, "driver_id": None, "driver": None, "info": None})
    arm = vulkan._device({**found, "driver_id": 9, "driver": "Mali-G610", "info": "v1.g24p0"})
    panvk = vulkan._device({**found, "driver_id": 20, "driver": "panvk", "info": "Mesa 24.3.0"})
    assert [device.mali for device in (old, arm, panvk)] == [True, True, False]
    assert str(old) == "Mali-G610, driver 38.0.0, Vulkan 1.0.0"
    assert str(panvk) == "Mali-G610, panvk Mesa 24.3.0, Vulkan 1.0.0"


def test_without_a_driver_the_operator_list_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bytes
) -> None:
    """Status `analyzed`, and the packages that bring a software device."""
    monkeypatch.setenv("VK_DRIVER_FILES", str(tmp_path))
    row = only(mali.check(noise(small, 1)))
    assert (row.status, row.agreement, row.device) == ("analyzed", None, "")
    assert "all 66 operators, with types and options, are in the documented support" in row.note
    assert "the control, an operator that the list has not, was found" in row.note
    assert "nothing ran on a GPU; Mali's own driver was not used" in row.note
    assert row.missing == "a Vulkan device (apt-get install libvulkan1 chromium-common)"


def test_without_the_loader_the_operator_list_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bytes
) -> None:
    """A file that is no library stands before the system's loader, and hides it."""
    (tmp_path / "libvulkan.so.1").write_text("no library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("VK_DRIVER_FILES", str(vulkan_drivers.manifest(tmp_path, "libnone.so")))
    row = only(mali.check(noise(small, 1)))
    assert row.status == "analyzed"
    assert row.missing == "the Vulkan loader libvulkan.so.1 (apt-get install libvulkan1 chromium-common)"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "a file that is not JSON"),
        ("{}", "no 'ICD'"),
        ("[]", "list indices must be integers"),
        (None, "No such file or directory"),
    ],
)
def test_a_broken_manifest_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bytes, text: str | None, words: str
) -> None:
    """The driver that was asked for is not replaced by another, and the operator list still speaks."""
    path = tmp_path / "broken_icd.json"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("VK_ICD_FILENAMES", str(path))
    failed, analyzed = mali.check(noise(small, 1))
    assert (failed.status, analyzed.status) == ("not run", "analyzed")
    assert f"broken_icd.json: no driver manifest: {words}" in failed.note
    assert "Mali's own driver was not used" in failed.note


def test_a_driver_that_crashes_becomes_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bytes) -> None:
    """The signal that ended it is named, and the operator list still speaks."""
    monkeypatch.setenv("VK_DRIVER_FILES", str(vulkan_drivers.acting_on_load(tmp_path, "abort();")))
    failed, analyzed = mali.check(noise(small, 1))
    assert (failed.status, analyzed.status) == ("not run", "analyzed")
    assert "test_icd.json: ended by SIGABRT" in failed.note


def test_a_driver_that_hangs_becomes_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bytes) -> None:
    """It is stopped at the limit."""
    monkeypatch.setenv("VK_DRIVER_FILES", str(vulkan_drivers.acting_on_load(tmp_path, "for (;;) sleep(1);")))
    monkeypatch.setattr(vulkan, "_QUERY_LIMIT", 1)
    start = time.monotonic()
    failed, _ = mali.check(noise(small, 1))
    assert time.monotonic() - start < 60
    assert "test_icd.json: a timeout after 1 s" in failed.note


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "words"), [("abort();", "ended by SIGABRT"), ("sleep(600);", "a timeout after 5 s")]
)
def test_a_driver_that_fails_in_use_becomes_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, words: str
) -> None:
    """It names its device well, and fails when the delegate opens it."""
    monkeypatch.setenv("VK_DRIVER_FILES", str(vulkan_drivers.acting_on_use(tmp_path, action)))
    if "timeout" in words:
        monkeypatch.setattr(mali, "_START_LIMIT", 5)
        monkeypatch.setattr(mali, "_PICTURE_LIMIT", 0)
    failed, _ = mali.check(noise(tiny_model("int8"), 1))
    assert failed.status == "not run"
    assert "SwiftShader Device (Subzero) (software), SwiftShader driver 5.0.0, Vulkan 1.3.0: " + words in failed.note


@pytest.mark.slow
def test_a_crashing_driver_does_not_hide_one_that_works(
    tmp_path: Path, software_device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are asked; the one runs, the other is named."""
    crashing = vulkan_drivers.acting_on_load(tmp_path, "abort();")
    monkeypatch.setenv("VK_DRIVER_FILES", f"{crashing}:{software_device}")
    row = only(mali.check(noise(tiny_model("int8"), 2)))
    assert row.status == "ran"
    assert "test_icd.json: ended by SIGABRT" in row.note


def test_outputs_of_a_driver_that_was_not_loaded_are_no_evidence(small: bytes) -> None:
    """The libraries of the process, and the device in LiteRT's log, have to be the driver's."""
    device = vulkan.Device("A", "driver 1.0.0", "1.1.0", hardware=True, mali=False)
    driver = vulkan.Driver(Path("a_icd.json"), "liba.so.0", (device,))
    report = {"fully_accelerated": True, "seconds": [0.1], "libraries": ["liba.so.0.2", "libLiteRt.so"]}
    log = ["I0000 x.cc:1] Selected adapter: A, arch=, vendor=, backend=Vulkan"]

    def chosen(report: dict[str, Any], log: list[str]) -> vulkan.Device | None:
        return mali._parse_run(report, np.zeros((1, 5), np.int8), log, driver).device

    assert chosen(report, log) == chosen(report, []) == device
    assert chosen({**report, "libraries": ["libb.so.0"]}, log) is None
    assert chosen(report, [log[0].replace("adapter: A", "adapter: B")]) is None


def _with_operator(view: ModelView, kind: str, /, **changes: Any) -> ModelView:
    """The model with its first operator of a kind changed; options are added to those it has."""
    number = next(number for number, one in enumerate(view.operators) if one.name == kind)
    one = view.operators[number]
    changed = replace(one, **{**changes, "options": {**one.options, **changes.get("options", {})}})
    return replace(view, operators=(*view.operators[:number], changed, *view.operators[number + 1 :]))


@pytest.mark.parametrize(
    ("name", "changes", "fault"),
    [
        ("ADD", {"name": "LOCAL_RESPONSE_NORMALIZATION"}, "not on the list"),
        ("ADD", {"name": "CUSTOM", "custom_code": "Ours"}, "Ours: not on the list"),
        ("ADD", {"name": "MUL"}, "on the list, but its conditions are not known here"),
        ("SOFTMAX", {"options": {"beta": 0.5}}, "beta 0.5"),
        ("CONV_2D", {"options": {"fused_activation_function": "SIGN_BIT"}}, "fused SIGN_BIT"),
        ("CONV_2D", {"options": {"stride_h": 0}}, "stride_h 0"),
        ("DEPTHWISE_CONV_2D", {"options": {"depth_multiplier": 2}}, "depth multiplier 2"),
        ("ADD", {"inputs": (0, 1)}, "operands of two shapes"),
        ("RESHAPE", {"inputs": (0, 0)}, "operands that are no constants"),
    ],
)
def test_an_operator_outside_the_documented_support_is_found(
    small: bytes, name: str, changes: dict[str, Any], fault: str
) -> None:
    """By kind and by option; nothing else of the model is called unsupported."""
    view = read_model(small)
    assert unsupported(view) == ()
    (found,) = unsupported(_with_operator(view, name, **changes))
    assert fault in found


def test_types_outside_the_documented_support_are_found(small: bytes) -> None:
    """An activation of 16 bits, and one with a scale for each channel, in both operators they belong to."""
    view = read_model(small)
    index = view.operators[0].outputs[0]
    tensor = view.tensors[index]
    for change, fault in (
        ({"dtype": "int16"}, "an activation of int16"),
        ({"quantization": Quantization((1.0, 2.0), (0, 0), 3)}, "an 8-bit activation without one scale"),
        ({"quantization": None}, "an 8-bit activation without one scale"),
    ):
        tensors = (*view.tensors[:index], dataclasses.replace(tensor, **change), *view.tensors[index + 1 :])
        found = unsupported(replace(view, tensors=tensors))
        assert len(found) == 2
        assert all(fault in line for line in found)


def test_a_model_outside_the_documented_support_is_not_analyzed_as_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bytes
) -> None:
    """The evidence falls to its lowest, and says which operator."""
    monkeypatch.setenv("VK_DRIVER_FILES", str(tmp_path))
    row = only(mali.check(noise(mali.control_model(small), 1)))
    assert row.status == "not run"
    assert "1 of 66 operators outside the documented support: operator 65 SOFTMAX: beta 2" in row.note


@pytest.mark.slow
@pytest.mark.shared
def test_the_trained_network_keeps_its_classes_on_the_gpu(software_device: Path, shared: Path, tmp_path: Path) -> None:
    """Twenty photographs through the stand-in 1.0_224, and none through one whose last weights are flipped."""
    archive = shared / "checkpoint" / "mobilenet_v2_1.0_224.tgz"
    request = Request(
        model="1.0_224", checkpoint=str(archive), images=str(shared / "imagenet_sample"), calib=50, limit=20,
        targets="ethos-u55-128", jobs=2, out=tmp_path,
    )  # fmt: skip
    conftest.build(request, ("quantize",))
    recipe, machine = resolve(request, NoBars(), may_fetch=False)
    model = (tmp_path / recipe.name / model_file(recipe)).read_bytes()
    whole = subject(recipe, machine, model, 20)
    row = only(mali.check(whole))
    assert (row.status, row.holds) == ("ran", True)
    assert row.agreement is not None
    assert row.agreement.n > 10

    def flip(tree: Any) -> None:
        last = [one for one in tree.subgraphs[0].operators if len(one.inputs) == 3][-1]
        weights = edited_models.data(tree, tree.subgraphs[0].tensors[last.inputs[1]])
        weights ^= 0xFF

    few = replace(whole, inputs=whole.inputs[:5], expected=whole.expected[:5])
    broken = only(mali.check(replace(few, model=edited_models.edited(model, flip))))
    assert broken.agreement is not None
    assert broken.agreement.hits == 0 < broken.agreement.n
    assert not broken.holds

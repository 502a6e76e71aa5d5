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
    """The small network as an INT8 model."""
    return convert.quantize(small_float, range_table.from_json(RECORDED.read_text(), str(RECORDED)).spans)


@pytest.fixture
def software_device(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes SwiftShader the only Vulkan driver, and returns its manifest."""
    path = vulkan_drivers.swiftshader()
    monkeypatch.setenv("VK_DRIVER_FILES", str(path))
    return path


def noise(model: bytes, count: int = 20) -> Subject:
    """Returns a model with `count` random inputs and the outputs of the reference kernels."""
    shape = read_model(model).input.shape[1:]
    inputs = np.random.default_rng(0).integers(-128, 128, (count, *shape)).astype(np.int8)
    runner = Runner(model, "reference")
    return Subject("test", model, inputs, np.concatenate([runner.run(value[np.newaxis])[0] for value in inputs]))


def only_row(rows: list[Evidence]) -> Evidence:
    """Returns the only row, after a check that it is one of the Mali GPU."""
    (row,) = rows
    assert row.platform == "Mali GPU"
    return row


@pytest.mark.slow
def test_a_fully_accelerated_model_keeps_its_classes(software_device: Path) -> None:
    """A tiny model with clearly different scores: every class equals that of the reference kernels."""
    row = only_row(mali.check(noise(tiny_model("int8"))))
    assert (row.status, row.holds) == ("ran", True)
    assert row.agreement is not None
    assert row.agreement.n + row.agreement.undecided == 20
    assert row.device.startswith("SwiftShader Device")
    assert "(software)" in row.device
    assert row.seconds is not None
    assert 0 < row.seconds < 10
    assert "fully accelerated: all 4 operators" in row.note
    assert "a control model with one unsupported option was not, as it should be" in row.note
    assert "libLiteRtWebGpuAccelerator.so over Vulkan" in row.note
    assert "Mali's own driver was not used" in row.note
    assert row.missing == ""


@pytest.mark.slow
def test_wrong_outputs_are_detected(software_device: Path) -> None:
    """Inverted weights give other classes, and the evidence does not hold."""

    def flip(tree: Any) -> None:
        weights = edited_models.data(tree, edited_models.operand(tree, "FULLY_CONNECTED", 1))
        weights ^= 0xFF

    whole = noise(tiny_model("int8"))
    row = only_row(mali.check(replace(whole, model=edited_models.edited(whole.model, flip))))
    assert row.agreement is not None
    assert row.agreement.hits < 20
    assert not row.holds
    assert re.search(r"(\d+) of 20 same class, and of XNNPACK's kernels on the CPU \1 of 20", row.note)


@pytest.mark.slow
def test_mobilenet_is_fully_accelerated(software_device: Path, small: bytes) -> None:
    """All 66 operators; the classes of untrained weights are counted, but not claimed."""
    row = only_row(mali.check(replace(noise(small, 5), trained=False)))
    assert (row.status, row.agreement, row.holds) == ("ran", None, True)
    assert "fully accelerated: all 66 operators" in row.note
    assert "of 5 same class (not claimed of untrained weights), and of XNNPACK's kernels on the CPU" in row.note


@pytest.mark.slow
def test_a_model_that_the_gpu_runs_in_part_is_not_accelerated(software_device: Path, small: bytes) -> None:
    """The status drops to analyzed, and the note names the operator that the CPU runs, with the reason."""
    row = only_row(mali.check(noise(mali.control_model(small), 2)))
    assert row.status == "analyzed"
    assert "not fully accelerated: SOFTMAX: Softmax.beta != 1 is not supported." in row.note
    assert "65 operations will run on the GPU, and the remaining 1 operations will run on the CPU" in row.note


@pytest.mark.slow
def test_a_control_that_is_fully_accelerated_invalidates_the_evidence(
    software_device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delegate that reports every model as fully accelerated proves nothing."""
    monkeypatch.setattr(mali, "control_model", lambda model: model)
    row = only_row(mali.check(noise(tiny_model("int8"), 2)))
    assert row.status == "analyzed"
    assert "the control failed, so `fully accelerated` means nothing: it was fully accelerated too" in row.note


@pytest.mark.slow
def test_a_control_that_does_not_run_invalidates_the_evidence(
    software_device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control without a result does not show that it was not accelerated."""
    monkeypatch.setattr(mali, "control_model", lambda model: model[:100])
    row = only_row(mali.check(noise(tiny_model("int8"), 2)))
    assert row.status == "analyzed"
    assert "the control failed, so `fully accelerated` means nothing: " in row.note


def test_seeded_weights_are_distinguished_from_trained_ones(small: bytes) -> None:
    """The recipe has this, as the model file does not show it."""
    recipe, machine = resolve(conftest.SMALL_REQUEST, NoBars(), may_fetch=False)
    assert not subject(recipe, machine, small, 1).trained
    archive = replace(recipe, checkpoint=replace(recipe.checkpoint, kind="archive"))
    assert subject(archive, machine, small, 1).trained


def test_the_control_differs_in_one_option_only(small: bytes) -> None:
    """Operators, tensors and weights are the same; beta is 2 instead of 1."""
    before, after = read_model(small), read_model(mali.control_model(small))
    assert before.tensors == after.tensors
    assert before.operators[:-1] == after.operators[:-1]
    assert (before.operators[-1].options, after.operators[-1].options) == ({"beta": 1.0}, {"beta": 2.0})


def test_the_device_is_described_as_by_vulkaninfo() -> None:
    """Name, driver, versions and type are the same."""
    path = vulkan_drivers.swiftshader()
    if not shutil.which("vulkaninfo"):
        pytest.skip("no vulkaninfo to compare with (apt-get install vulkan-tools)")
    (driver,) = [one for one in vulkan.survey().drivers if one.manifest == path]
    (device,) = driver.devices
    command = ["env", f"VK_DRIVER_FILES={path}", f"VK_ICD_FILENAMES={path}", "vulkaninfo", "--summary"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    expected = dict(map(str.strip, line.split("=", 1)) for line in lines if "=" in line and line.startswith("\t"))
    assert device.name == expected["deviceName"]
    assert device.driver == f"{expected['driverName']} {expected['driverInfo'] or expected['driverVersion']}"
    assert device.api == expected["apiVersion"].split()[0]
    assert device.hardware == (expected["deviceType"] != "PHYSICAL_DEVICE_TYPE_CPU")
    assert not device.mali


def test_arms_own_driver_is_distinguished_from_mesas() -> None:
    """By the Vulkan driver ID, or before Vulkan 1.2, where there is none, by the vendor ID."""
    found = {"name": "Mali-G610", "type": 1, "vendor": 0x13B5, "api_version": 1 << 22, "driver_version": 38 << 22}
    old = vulkan._device({**found, "driver_id": None, "driver": None, "info": None})
    arm = vulkan._device({**found, "driver_id": 9, "driver": "Mali-G610", "info": "v1.g24p0"})
    panvk = vulkan._device({**found, "driver_id": 20, "driver": "panvk", "info": "Mesa 24.3.0"})
    assert [device.mali for device in (old, arm, panvk)] == [True, True, False]
    assert str(old) == "Mali-G610, driver 38.0.0, Vulkan 1.0.0"
    assert str(panvk) == "Mali-G610, panvk Mesa 24.3.0, Vulkan 1.0.0"


def test_without_a_driver_the_operator_list_is_the_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bytes
) -> None:
    """The status is `analyzed`, and the row names the packages with a software device."""
    monkeypatch.setenv("VK_DRIVER_FILES", str(tmp_path))
    row = only_row(mali.check(noise(small, 1)))
    assert (row.status, row.agreement, row.device) == ("analyzed", None, "")
    assert "all 66 operators, with types and options, are in the documented support" in row.note
    assert "the control, an operator that the list has not, was found" in row.note
    assert "nothing ran on a GPU; Mali's own driver was not used" in row.note
    assert row.missing == "a Vulkan device (apt-get install libvulkan1 chromium-common)"


def test_without_the_loader_the_operator_list_is_the_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bytes
) -> None:
    """A file that is not a library shadows the loader of the system."""
    (tmp_path / "libvulkan.so.1").write_text("no library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("VK_DRIVER_FILES", str(vulkan_drivers.manifest(tmp_path, "libnone.so")))
    row = only_row(mali.check(noise(small, 1)))
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
def test_a_broken_manifest_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bytes, text: str | None, words: str
) -> None:
    """No other driver replaces the requested one, and there is still a row from the operator list."""
    path = tmp_path / "broken_icd.json"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("VK_ICD_FILENAMES", str(path))
    failed, analyzed = mali.check(noise(small, 1))
    assert (failed.status, analyzed.status) == ("not run", "analyzed")
    assert f"broken_icd.json: no driver manifest: {words}" in failed.note
    assert "Mali's own driver was not used" in failed.note


def test_a_driver_that_crashes_gives_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bytes) -> None:
    """The row names the signal, and there is still a row from the operator list."""
    monkeypatch.setenv("VK_DRIVER_FILES", str(vulkan_drivers.acting_on_load(tmp_path, "abort();")))
    failed, analyzed = mali.check(noise(small, 1))
    assert (failed.status, analyzed.status) == ("not run", "analyzed")
    assert "test_icd.json: ended by SIGABRT" in failed.note


def test_a_driver_that_hangs_gives_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bytes) -> None:
    """It is stopped at the time limit."""
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
def test_a_driver_that_fails_in_use_gives_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, words: str
) -> None:
    """It lists its device, and fails when the delegate opens it."""
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
    """Both drivers are tried; one runs, and the row names the other."""
    crashing = vulkan_drivers.acting_on_load(tmp_path, "abort();")
    monkeypatch.setenv("VK_DRIVER_FILES", f"{crashing}:{software_device}")
    row = only_row(mali.check(noise(tiny_model("int8"), 2)))
    assert row.status == "ran"
    assert "test_icd.json: ended by SIGABRT" in row.note


def test_outputs_of_another_driver_are_no_evidence(small: bytes) -> None:
    """The libraries loaded in the process, and the device in LiteRT's log, must be those of the driver."""
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
    """Returns the model with its first operator of a kind changed; `options` are merged into the existing ones."""
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
    """An operator or one of its options is changed; only that operator is reported."""
    view = read_model(small)
    assert unsupported(view) == ()
    (found,) = unsupported(_with_operator(view, name, **changes))
    assert fault in found


def test_types_outside_the_documented_support_are_found(small: bytes) -> None:
    """An int16 activation, and one without a single scale, are reported for both operators that use it."""
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
    """The status is `not run`, and the note names the operator."""
    monkeypatch.setenv("VK_DRIVER_FILES", str(tmp_path))
    row = only_row(mali.check(noise(mali.control_model(small), 1)))
    assert row.status == "not run"
    assert "1 of 66 operators outside the documented support: operator 65 SOFTMAX: beta 2" in row.note


@pytest.mark.slow
@pytest.mark.shared
def test_the_trained_network_keeps_its_classes_on_the_gpu(software_device: Path, shared: Path, tmp_path: Path) -> None:
    """20 photographs keep their class in the stand-in 1.0_224; with its last weights inverted, none does."""
    archive = shared / "checkpoint" / "mobilenet_v2_1.0_224.tgz"
    request = Request(
        model="1.0_224", checkpoint=str(archive), images=str(shared / "imagenet_sample"), calib=50, limit=20,
        targets="ethos-u55-128", jobs=2, out=tmp_path,
    )  # fmt: skip
    conftest.build(request, ("quantize",))
    recipe, machine = resolve(request, NoBars(), may_fetch=False)
    model = (tmp_path / recipe.name / model_file(recipe)).read_bytes()
    whole = subject(recipe, machine, model, 20)
    row = only_row(mali.check(whole))
    assert (row.status, row.holds) == ("ran", True)
    assert row.agreement is not None
    assert row.agreement.n > 10

    def flip(tree: Any) -> None:
        last = [one for one in tree.subgraphs[0].operators if len(one.inputs) == 3][-1]
        weights = edited_models.data(tree, tree.subgraphs[0].tensors[last.inputs[1]])
        weights ^= 0xFF

    few = replace(whole, inputs=whole.inputs[:5], expected=whole.expected[:5])
    broken = only_row(mali.check(replace(few, model=edited_models.edited(model, flip))))
    assert broken.agreement is not None
    assert broken.agreement.hits == 0 < broken.agreement.n
    assert not broken.holds

"""`vela --sram` and `vela --c-array`: which memory mode fits, and each variant as C, without changing the build."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from calibration.parallel.workers import Workers
from pipeline.ethos_u import fit as vela_fit
from pipeline.ethos_u.config import read_config
from pipeline.ethos_u.fit import candidates, document
from pipeline.ethos_u.targets import parse_targets, variant_name
from pipeline.ethos_u.variant import Variant
from pipeline.interface.views import vela_fit as vela_fit_view
from pipeline.platforms import ethos_u
from pipeline.request.request import Request
from recreate_model.recipe import Optimization, Target
from recreate_model.support.digest import Json
from recreate_model.support.errors import InputError
from tests.conftest import contents
from tests.test_bad_input import assert_nothing_written, assert_one_error, run, small
from tests.test_c_array import WARNINGS, section
from tests.test_c_array import run as tool
from tests.test_vela_config import MY_SOC
from tests.tiny_models import tiny_model


@pytest.fixture(scope="module")
def plans() -> tuple[Variant, ...]:
    """All plans of a tiny model on an Ethos-U55 with flash, and on an Ethos-U65 with DRAM."""
    targets = candidates(parse_targets("ethos-u55-128,ethos-u65-256", "both"), None)
    return vela_fit.plans(tiny_model("int8"), "tiny", targets, Workers(), lambda count: None, None)


def arguments(command: str, request: Request, **flags: object) -> list[object]:
    """The command for the build of `request`."""
    same = {"calib": request.calib, "limit": request.limit, "targets": request.targets}
    return small(command, request.out, **{**same, **flags})


def test_every_mode_that_can_work_is_tried() -> None:
    """The dedicated modes keep the arena outside the SRAM, so they are tried only on a system with DRAM."""
    flash, dram = (candidates(parse_targets(name), None) for name in ("ethos-u55-128", "ethos-u65-256"))
    assert [target.memory_mode for target in flash] == ["Sram_Only", "Shared_Sram"]
    assert [target.memory_mode for target in dram] == [
        *("Sram_Only", "Shared_Sram", "Dedicated_Sram"),
        *("Dedicated_Sram_256KB", "Dedicated_Sram_384KB", "Dedicated_Sram_512KB"),
    ]
    assert {target.system_config for target in dram} == {"Ethos_U65_High_End"}


def test_a_system_with_two_targets_is_tried_once() -> None:
    """Two variants of an accelerator may differ in the memory mode alone."""
    two = parse_targets("ethos-u55-128,ethos-u55-128:Ethos_U55_High_End_Embedded:Sram_Only")
    assert candidates(two, None) == candidates(two[:1], None)


def test_modes_of_the_users_own_file_are_tried(tmp_path: Path) -> None:
    """All of them are tried on the named system, and none of Vela's."""
    (tmp_path / "a.ini").write_text(MY_SOC)
    config = read_config(tmp_path / "a.ini")
    found = candidates(parse_targets("ethos-u55-128:My_SoC:Shared", "both", config), config)
    assert [(target.memory_mode, target.optimize.value) for target in found] == [
        *(("Shared", "Performance"), ("Shared_400KB", "Performance")),
        *(("Shared", "Size"), ("Shared_400KB", "Size")),
    ]


def test_weights_in_sram_count_as_sram(plans: tuple[Variant, ...]) -> None:
    """Vela counts them as on-chip flash, which no system here has."""
    for plan in plans:
        if plan.target.memory_mode == "Sram_Only":
            assert plan.weights_area == "On-chip Flash"
            assert plan.sram_needed_kib == plan.sram_kib + plan.flash_kib > plan.sram_kib
            assert plan.flash_needed_kib == 0
        else:
            assert plan.sram_needed_kib == plan.sram_kib


def test_the_fastest_plan_that_fits_is_recommended(plans: tuple[Variant, ...]) -> None:
    """With enough SRAM it is the fastest of all plans; with less, the fastest of those that fit."""
    by_need = sorted(plans, key=lambda plan: plan.sram_needed_kib)
    for kib in (int(by_need[0].sram_needed_kib) + 1, int(by_need[-1].sram_needed_kib) + 1):
        for row in document("tiny", plans, kib, None)["accelerators"]:
            fitting = [
                plan for plan in plans if plan.target.accelerator == row["accelerator"] and plan.sram_needed_kib <= kib
            ]
            if not fitting:
                assert row["recommended"] is None
                continue
            best = max(plan.inferences_per_second for plan in fitting)
            assert row["recommended"]["inferences_per_second"] == best
            assert sum(plan["fits"] for plan in row["plans"]) == len(fitting)


def test_a_plan_that_is_one_byte_too_large_does_not_fit(plans: tuple[Variant, ...]) -> None:
    """The limit itself fits."""
    exact = [replace(plan, sram_needed_kib=64.0) for plan in plans[:1]]
    assert document("tiny", exact, 64, None)["accelerators"][0]["recommended"]["sram_needed_kib"] == 64.0
    over = [replace(plan, sram_needed_kib=64.0 + 1 / 1024) for plan in plans[:1]]
    with pytest.raises(InputError, match=r"the smallest is ethos-u55-128 in Sram_Only.*give --sram 65 or more"):
        document("tiny", over, 64, None)


def test_a_recommendation_names_the_options_that_build_it(plans: tuple[Variant, ...]) -> None:
    """They give the recommended target."""
    found = document("tiny", plans, 100_000, Path("my soc.ini"))
    for row in found["accelerators"]:
        options = row["recommended"]["options"]
        (target,) = parse_targets(options[1], options[3])
        assert target.memory_mode == row["recommended"]["memory_mode"]
        assert options[4:] == ["--vela-config", "my soc.ini"]
    lines = [block for block in vela_fit_view.blocks(found) if isinstance(block, str)]
    assert any("--vela-config 'my soc.ini'" in line for line in lines)
    assert "estimates of Vela" in lines[-1]


# On the command line


def test_the_command_says_what_fits_and_builds_no_variant(small_build: Request) -> None:
    """The variants of the build do not change."""
    before = contents(small_build.out)
    result = run(*arguments("vela", small_build, sram=100), "--json")
    assert result.returncode == 0, result.stderr
    (row,) = json.loads(result.stdout)["accelerators"]
    assert row["recommended"]["memory_mode"] == "Shared_Sram"
    assert row["recommended"]["optimize"] == "size"
    assert contents(small_build.out) == before
    shown = run(*arguments("vela", small_build, sram=200, optimise="speed", targets="ethos-u65-256"))
    assert "Dedicated_Sram_256KB" in shown.stdout
    assert "over by" in shown.stdout
    assert "\tsize\t" not in shown.stdout


def test_less_sram_than_any_plan_needs_is_one_error(small_build: Request) -> None:
    """The smallest plan is named with its SRAM, and nothing is printed or written."""
    before = contents(small_build.out)
    result = run(*arguments("vela", small_build, sram=10))
    assert_one_error(
        result, 3, "no more than 10 KiB", "ethos-u55-128 in Shared_Sram for size, with 60.8 KiB", "--sram 61"
    )
    assert contents(small_build.out) == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"sram": 0}, ("--sram to be at least 1 KiB",)),
        ({"sram": "half"}, ("'half' for --sram, which is not a whole number",)),
        ({"sram": 100, "c-array": "c"}, ("one of --sram, --c-array",)),
        ({"optimise": "fast"}, ("--optimise to be one of speed, size, both", "found fast")),
    ],
)
def test_invalid_options_are_refused(tmp_path: Path, flags: dict[str, object], words: tuple[str, ...]) -> None:
    """Invalid usage, and no build."""
    assert_one_error(run(*small("vela", tmp_path / "out", **flags)), 2, *words)
    assert_nothing_written(tmp_path)


@pytest.fixture
def c_sources(small_build: Request, tmp_path: Path) -> Path:
    """The C sources of both variants of a small build."""
    result = run(*arguments("vela", small_build, optimise="both", **{"c-array": tmp_path / "c"}), "--quiet")
    assert result.returncode == 0, result.stderr
    return tmp_path / "c"


@pytest.mark.parametrize("compiler", ["gcc", "arm-none-eabi-gcc"])
def test_each_variant_compiles_to_the_file_itself(small_build: Request, c_sources: Path, compiler: str) -> None:
    """Without a warning; the section is the compiled model byte for byte, aligned to 16 bytes."""
    (folder,) = small_build.out.iterdir()
    for name in ("ethos-u55-128", "ethos-u55-128_size"):
        (source,) = (c_sources / name).glob("*.c")
        tool(c_sources / name, compiler, "-std=c99", *WARNINGS, "-c", source.name, "-o", "a.o")
        content, alignment = section(c_sources / name, compiler, ".rodata")
        assert content == (folder / "ethos_u" / name / f"{folder.name}_vela.tflite").read_bytes()
        assert alignment >= 16


def test_a_firmware_can_hold_both_variants(c_sources: Path) -> None:
    """Their symbols differ, so both can be linked."""
    names = sorted(path.relative_to(c_sources).as_posix() for path in c_sources.rglob("*.[ch]"))
    stem = "mobilenet_v2_0_35_96_seeded_INT8_ethos_u55_128"
    assert names == [
        *(f"ethos-u55-128/{stem}.c", f"ethos-u55-128/{stem}.h"),
        *(f"ethos-u55-128_size/{stem}_size.c", f"ethos-u55-128_size/{stem}_size.h"),
    ]
    program = f"""
#include "ethos-u55-128/{stem}.h"
#include "ethos-u55-128_size/{stem}_size.h"
int main(void) {{ return {stem}_data[4] == 'T' && {stem}_size_data[4] == 'T' ? 0 : 1; }}
"""
    (c_sources / "main.c").write_text(program)
    sources = [name for name in names if name.endswith(".c")]
    tool(c_sources, "gcc", "-std=c99", *WARNINGS, "main.c", *sources, "-o", "program")
    tool(c_sources, str(c_sources / "program"))


def test_sources_are_not_part_of_the_build(small_build: Request, tmp_path: Path) -> None:
    """Afterwards every stage is up to date, and the build has no new file."""
    before = contents(small_build.out)
    assert run(*arguments("vela", small_build, **{"c-array": tmp_path / "c"}), "--quiet").returncode == 0
    assert contents(small_build.out) == before
    states = json.loads(run(*arguments("status", small_build), "--json").stdout)
    assert {row["state"] for row in states if row["stage"] != "platforms"} == {"fresh"}


def test_a_folder_that_cannot_be_written_is_one_error(small_build: Request, tmp_path: Path) -> None:
    """The folder would be below a file. The build is kept."""
    (tmp_path / "file").write_text("")
    result = run(*arguments("vela", small_build, **{"c-array": tmp_path / "file" / "c"}), "--quiet")
    assert_one_error(result, 4, "give another --c-array", "the build is kept")


# What the card says


def _rows(*cpu_operators: list[str]) -> Json:
    return [
        {"target": {"accelerator": f"ethos-u55-{number}"}, "cpu_operators": names, "vela_version": "5.2.0"}
        for number, names in enumerate(cpu_operators)
    ]


def test_the_evidence_says_who_compiled_it_and_that_no_npu_ran() -> None:
    """Its status is `compiled`; operators left to the CPU are named once."""
    (all_npu,) = ethos_u.check(_rows([], []))
    assert (all_npu.platform, all_npu.status, all_npu.tools) == ("Ethos U", "compiled", ("Vela 5.2.0",))
    assert all_npu.what == "by Vela for 2 targets, every operator on the NPU"
    assert "no NPU ran" in all_npu.note
    (mixed,) = ethos_u.check(_rows(["GATHER", "GATHER"], ["CAST"]))
    assert mixed.what == "by Vela for 2 targets, but for CAST, GATHER on the CPU"
    assert ethos_u.check([]) == []
    (both,) = ethos_u.check(_rows([])[:1] * 2)
    assert both.what == "by Vela for 1 targets in 2 variants, every operator on the NPU"


def test_a_variant_is_named_after_its_accelerator() -> None:
    """Its folder, its row and its mark have this name."""
    target = Target("ethos-u55-64", "Ethos_U55_Deep_Embedded", "Shared_Sram")
    assert [variant_name(replace(target, optimize=how)) for how in Optimization] == [
        "ethos-u55-64",
        "ethos-u55-64_size",
    ]

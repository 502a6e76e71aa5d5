"""The user's Vela configuration files: read as strictly as by Vela's stricter reader, and identified by content."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.claims.claim import holds
from pipeline.ethos_u import config as vela_config
from pipeline.ethos_u.config import MODE, SYSTEM, VelaConfig, packaged, read_config
from pipeline.ethos_u.targets import parse_targets
from pipeline.ethos_u.vela import compile_all, compile_target
from pipeline.provenance.check import rows
from pipeline.provenance.read import read_statement
from pipeline.request.request import Request
from recreate_model.recipe import Target, as_json
from recreate_model.support.digest import digest_bytes, digest_file
from recreate_model.support.errors import InputError, UsageError
from tests.conftest import build, contents
from tests.test_bad_input import assert_nothing_written, assert_one_error, run, small
from tests.tiny_models import tiny_model

MY_SOC = """\
; SRAM of 6.4 GB/s and a flash of 0.8 GB/s
[System_Config.My_SoC]
core_clock=400e6
axi0_port=Sram
axi1_port=OffChipFlash
Sram_clock_scale=1.0
Sram_burst_length=32
Sram_read_latency=32
Sram_write_latency=32
Sram_max_reads=4
Sram_max_writes=4
OffChipFlash_clock_scale=0.125
OffChipFlash_burst_length=128
OffChipFlash_read_latency=64
OffChipFlash_max_reads=2

[System_Config.My_SoC_Fast_Flash]
inherit=System_Config.My_SoC
OffChipFlash_clock_scale=0.5

[Memory_Mode.Shared]
const_mem_area=Axi1
arena_mem_area=Axi0
cache_mem_area=Axi0

[Memory_Mode.Shared_400KB]
inherit=Memory_Mode.Shared
arena_cache_size=409600
"""
TEXT = "ethos-u55-128:My_SoC_Fast_Flash:Shared_400KB"


@pytest.fixture
def ini(tmp_path: Path) -> Path:
    path = tmp_path / "my_soc.ini"
    path.write_text(MY_SOC)
    return path


def test_velas_own_file_passes_the_check_for_user_files() -> None:
    """A copy of it can therefore be a user's file to start from."""
    vela_config._check(packaged())


def test_a_section_has_the_values_it_inherits(ini: Path) -> None:
    """Its own values override inherited ones."""
    config = read_config(ini)
    assert config.names(SYSTEM) == ["My_SoC", "My_SoC_Fast_Flash"]
    values = config.values(SYSTEM, "My_SoC_Fast_Flash")
    assert (values["core_clock"], values["OffChipFlash_clock_scale"]) == ("400e6", "0.5")
    assert config.values(MODE, "Shared_400KB")["arena_mem_area"] == "Axi0"
    assert "inherit" not in values


def test_targets_name_sections_of_the_file(ini: Path) -> None:
    """A target identifies the file by its digest, so the path does not matter."""
    config = read_config(ini)
    assert parse_targets(TEXT, custom=config) == (
        Target("ethos-u55-128", "My_SoC_Fast_Flash", "Shared_400KB", config_sha256=digest_bytes(MY_SOC.encode())),
    )
    assert as_json(parse_targets(TEXT, custom=config))[0]["config_sha256"] == digest_file(ini)


@pytest.mark.parametrize(
    ("text", "found", "advice"),
    [
        ("all", "'Ethos_U55_Deep_Embedded'", "ethos-u55-32:My_SoC:Shared"),
        ("ethos-u55-128", "'Ethos_U55_High_End_Embedded'", "ethos-u55-128:My_SoC:Shared"),
        ("ethos-u55-128:My_Sock:Shared_400KB", "'My_Sock'", "ethos-u55-128:My_SoC:Shared_400KB"),
        ("ethos-u55-128:My_SoC:Shared_Sram", "'Shared_Sram'", "ethos-u55-128:My_SoC:Shared"),
        ("ethos-u55-128:Shared_400KB", "'ethos-u55-128:Shared_400KB'", "ethos-u55-128:My_SoC:Shared_400KB"),
        ("ethos-u55-512:My_SoC:Shared_400KB", "'ethos-u55-512'", "ethos-u55-256:My_SoC:Shared_400KB"),
    ],
)
def test_a_section_that_is_not_in_the_file_is_refused(ini: Path, text: str, found: str, advice: str) -> None:
    """Vela's own sections do not count. The advice names sections of the file."""
    with pytest.raises(UsageError) as error:
        parse_targets(text, custom=read_config(ini))
    assert error.value.found == found
    assert error.value.next_step == f"give --targets {advice}"


def test_a_system_with_another_family_in_its_name_is_refused(tmp_path: Path) -> None:
    """Only the name shows the family of a system: one with U55 does not fit an Ethos-U85, one without may."""
    path = tmp_path / "a.ini"
    path.write_text(MY_SOC.replace("My_SoC_Fast_Flash", "Ethos_U55_Mine"))
    config = read_config(path)
    assert parse_targets("ethos-u85-256:My_SoC:Shared", custom=config)
    assert parse_targets("ethos-u55-64:Ethos_U55_Mine:Shared", custom=config)
    with pytest.raises(UsageError, match="a system configuration for ethos-u85-256"):
        parse_targets("ethos-u85-256:Ethos_U55_Mine:Shared", custom=config)


def test_a_cache_outside_sram_is_refused(tmp_path: Path) -> None:
    """Vela would fail on it during the build."""
    path = tmp_path / "a.ini"
    path.write_text(MY_SOC.replace("cache_mem_area=Axi0", "cache_mem_area=Axi1"))
    with pytest.raises(UsageError, match="its cache in SRAM"):
        parse_targets(TEXT, custom=read_config(path))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            lambda text: text.replace("Sram_clock_scale", "SRAM_clock_scale"),
            "SRAM_clock_scale in [System_Config.My_SoC]",
        ),
        (lambda text: text.replace("core_clock=400e6", "core_clock: 400e6"), "line 3"),
        (lambda text: f"[DEFAULT]\ncore_clock=1e9\n{text}", "a [DEFAULT] section"),
        (lambda text: text.replace("inherit=Memory_Mode.Shared", "inherit=Memory_Mode.Nowhere"), "Memory_Mode.Nowhere"),
        (
            lambda text: text.replace("inherit=Memory_Mode.Shared", "inherit=System_Config.My_SoC"),
            "not a Memory_Mode. section",
        ),
        (lambda text: text.replace("inherit=Memory_Mode.Shared", "inherit=Memory_Mode.Shared_400KB"), "inherits it"),
        (lambda text: text.replace("axi1_port=OffChipFlash", "axi1_port=Flash"), "axi1_port=Flash"),
        (lambda text: text.replace("core_clock=400e6", "core_clock=400e6 ; fast"), "core_clock=400e6 ; fast"),
        (lambda text: text.replace("core_clock=400e6", "core_clock=nan"), "core_clock=nan"),
        (lambda text: text.replace("core_clock=400e6\n", ""), "no core_clock in [System_Config.My_SoC]"),
        (lambda text: text.replace("arena_cache_size=409600", "arena_cache_size=400KB"), "arena_cache_size=400KB"),
        (lambda text: text.replace("cache_mem_area=Axi0\n", ""), "no cache_mem_area in [Memory_Mode.Shared]"),
        (lambda text: text + "[Other]\n", "[Other]"),
        (lambda text: text + "[Memory_Mode.Shared]\n", "already exists"),
        (lambda text: text.partition("[Memory_Mode")[0], "no System_Config. section or no Memory_Mode. section"),
        (lambda text: "not an ini at all", "not an .ini file"),
        (lambda text: "", "no System_Config."),
        (lambda text: text + "; \N{MICRO SIGN}s\n", "a byte that is not ASCII"),
        (lambda text: text + "; " + "x" * (1 << 20), "more than 1,048,576 bytes"),
    ],
)
def test_a_file_that_vela_reads_in_two_ways_or_not_at_all_is_refused(
    tmp_path: Path, change: object, found: str
) -> None:
    """The error names the fault before anything is compiled."""
    assert callable(change)
    path = tmp_path / "a.ini"
    path.write_text(change(MY_SOC), encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_config(path)
    assert found in error.value.found


@pytest.mark.parametrize(("name", "found"), [("missing.ini", "no file there"), (".", "a folder")])
def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path, name: str, found: str) -> None:
    """The error says which of them it found."""
    with pytest.raises(InputError, match=found):
        read_config(tmp_path / name)


def test_vela_reads_upper_case_keys_in_two_ways(tmp_path: Path) -> None:
    """This is why spelling is checked: Vela reports the slow flash, but plans for another memory."""
    results = {}
    for name, key in (("right", "OffChipFlash"), ("wrong", "OFFCHIPFLASH")):
        config = VelaConfig(
            name, MY_SOC.replace("OffChipFlash_clock_scale=0.125", f"{key}_clock_scale=0.0001").encode()
        )
        (target,) = parse_targets("ethos-u55-128:My_SoC:Shared", custom=config)
        variant = compile_target(tiny_model("int8"), "tiny", target, tmp_path / name, config)
        (row,) = csv.DictReader((tmp_path / name / variant.summary).read_text().splitlines())
        results[name] = row["off_chip_flash_bandwidth"], variant.cycles
    assert results["right"][0] == results["wrong"][0]
    assert results["right"][1] > results["wrong"][1]


def test_the_users_memory_system_decides_the_figures(tmp_path: Path, ini: Path) -> None:
    """The same model is slower on the slow flash, and config.json has the values that were used."""
    config = read_config(ini)
    slow, fast = (
        compile_target(tiny_model("int8"), "tiny", parse_targets(text, custom=config)[0], tmp_path / name, config)
        for name, text in (("slow", "ethos-u55-128:My_SoC:Shared"), ("fast", TEXT))
    )
    assert slow.inferences_per_second < fast.inferences_per_second
    used = json.loads((tmp_path / "fast" / fast.config).read_text())
    assert used["config_file"] == {"name": "custom.ini", "sha256": config.sha256}
    assert used["system_config"]["OffChipFlash_clock_scale"] == "0.5"
    assert used["options"][:2] == ["--config", "custom.ini"]
    assert str(tmp_path) not in json.dumps(used)


def test_a_target_of_another_file_is_refused(tmp_path: Path, ini: Path) -> None:
    """A recipe that identifies a file by its digest is not built with another file."""
    targets = parse_targets(TEXT, custom=read_config(ini))
    ini.write_text(MY_SOC + "; another\n")
    for config in (None, read_config(ini)):
        with pytest.raises(InputError, match="give it with --vela-config"):
            compile_all(tiny_model("int8"), "tiny", targets, tmp_path / "out", custom=config)
    assert not (tmp_path / "out").exists()


# A whole build


def test_a_build_holds_the_file_and_its_statement_names_it(small_build: Request, tmp_path: Path, ini: Path) -> None:
    """The file is beside the variants, and the provenance has its digest. Another path makes nothing stale."""
    (folder,) = small_build.out.iterdir()
    build(replace(small_build, targets=TEXT, vela_config=ini))
    assert (folder / "ethos_u" / "custom.ini").read_text() == MY_SOC
    statement = read_statement(folder / "provenance.intoto.json")
    assert statement.recipe.targets[0].config_sha256 == digest_file(ini)
    assert [each["name"] for each in statement.dependencies if each["annotations"]["role"] == "Vela configuration"]
    assert holds(list(rows(statement, folder, None)))
    first = contents(folder)
    moved = tmp_path / "elsewhere.ini"
    moved.write_text(MY_SOC)
    assert {row.state for row in build(replace(small_build, targets=TEXT, vela_config=moved))} == {"reused"}
    moved.write_text(MY_SOC.replace("core_clock=400e6", "core_clock=300e6"))
    states = {row.stage: row.state for row in build(replace(small_build, targets=TEXT, vela_config=moved))}
    assert states["vela"] == "built"
    assert contents(folder).keys() == first.keys()
    build(small_build)
    assert not (folder / "ethos_u" / "custom.ini").exists()


def test_a_bad_file_is_one_error_and_nothing_is_written(tmp_path: Path) -> None:
    """On the command line: bad input, before the build starts."""
    result = run(*small("vela", tmp_path / "out", **{"vela-config": tmp_path / "missing.ini"}))
    assert_one_error(result, 3, "missing.ini", "no file there")
    assert_nothing_written(tmp_path)

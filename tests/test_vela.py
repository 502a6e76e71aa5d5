"""Compiling for Ethos-U with the real Vela: the same bytes everywhere, and errors where Vela itself reports none."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from calibration.parallel.workers import Workers
from pipeline.ethos_u import targets, vela
from pipeline.ethos_u.config import packaged
from pipeline.ethos_u.targets import TARGETS, check_target, parse_targets, variant_name
from pipeline.ethos_u.variant import _CONFIG_WORDS, checked_variant, layers
from pipeline.ethos_u.vela import compile_all, compile_target, vela_table
from recreate_model.recipe import Optimization, Target, as_json
from recreate_model.support.capture import captured
from recreate_model.support.digest import canonical_json, digest_file
from recreate_model.support.errors import InputError, ToolError, UsageError
from recreate_model.tflite.model_view import read_model
from tests.tiny_models import tiny_model

ROOT = Path(__file__).parents[1]
U55 = Target("ethos-u55-128", "Ethos_U55_High_End_Embedded", "Shared_Sram")
U55_SYSTEM, U65_SYSTEM = "Ethos_U55_High_End_Embedded", "Ethos_U65_High_End"
U85_MISMATCHED = Target("ethos-u85-256", "Ethos_U55_High_End_Embedded", "Shared_Sram")


@pytest.fixture(scope="session")
def int8_model() -> bytes:
    return tiny_model("int8")


@pytest.fixture(scope="session")
def float_model() -> bytes:
    return tiny_model("float")


def files(folder: Path) -> list[str]:
    """Every file below `folder`, also hidden ones."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def compile_elsewhere(
    model: Path, folder: Path, before: str, after: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Compiles for an Ethos-U55 in another process, which also runs the statements `before` and `after`."""
    code = f"""
import sys
from dataclasses import replace
from pathlib import Path
from pipeline.ethos_u.vela import compile_target
from pipeline.ethos_u.targets import parse_targets
{before}
variant = compile_target(Path(sys.argv[1]).read_bytes(), "tiny", parse_targets("ethos-u55-128")[0], Path(sys.argv[2]))
{after}
"""
    command = [sys.executable, "-c", code, str(model), str(folder)]
    surroundings = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=True)


# Choosing targets


def test_a_second_row_of_an_accelerator_is_a_variant_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """`all` compiles both; the first row keeps the accelerator's plain name, wherever the second is in the table."""
    first = next(target for target in targets.TARGETS if target.accelerator == "ethos-u65-256")
    second = replace(first, memory_mode="Sram_Only")
    monkeypatch.setattr(targets, "TARGETS", (*targets.TARGETS, second))
    names = [targets.variant_name(target) for target in targets.parse_targets("all")]
    assert "ethos-u65-256" in names
    assert names[-1] == "ethos-u65-256_sram-only"


def test_all_means_the_eleven_default_targets() -> None:
    """`all` gives every accelerator once, from the smallest to the largest of each family."""
    assert parse_targets("all") == TARGETS
    assert [target.accelerator for target in TARGETS] == [
        *("ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256", "ethos-u65-256", "ethos-u65-512"),
        *("ethos-u85-128", "ethos-u85-256", "ethos-u85-512", "ethos-u85-1024", "ethos-u85-2048"),
    ]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.accelerator)
def test_every_default_target_is_a_configuration_that_exists(target: Target) -> None:
    """The default pairs pass the check that the user's own pairs must pass."""
    check_target(target)


def test_targets_come_in_the_order_given() -> None:
    """Spaces around a name do not matter, the order does."""
    targets = parse_targets("ethos-u85-256, ethos-u55-128")
    assert [target.accelerator for target in targets] == ["ethos-u85-256", "ethos-u55-128"]


def test_a_target_can_name_its_own_memory_system() -> None:
    """The explicit form sets the system configuration and the memory mode."""
    text = "ethos-u65-256:Ethos_U65_Mid_End:Dedicated_Sram_512KB"
    assert parse_targets(text) == (Target("ethos-u65-256", "Ethos_U65_Mid_End", "Dedicated_Sram_512KB"),)


@pytest.mark.parametrize(
    ("text", "found", "help_"),
    [
        ("ethos-u55-120", "'ethos-u55-120'", "--targets ethos-u55-128"),
        ("ethos-u55-512", "'ethos-u55-512'", "--targets ethos-u55-256"),
        ("ethos-u65-128:Shared_Sram", "'ethos-u65-128'", f"--targets ethos-u65-256:{U65_SYSTEM}:Shared_Sram"),
        ("ethos-u85-4096", "'ethos-u85-4096'", "--targets ethos-u85-2048"),
        ("u65-512", "'u65-512'", "--targets ethos-u65-512"),
        ("Ethos-U65-512", "'Ethos-U65-512'", "--targets ethos-u65-512"),
        ("", "''", "--targets ethos-u55-128"),
        ("ethos-u55-128,", "''", "--targets ethos-u55-128"),
        ("ethos-u55-128:Shared_Sram", "'ethos-u55-128:Shared_Sram'", f"{U55_SYSTEM}:Shared_Sram"),
        ("ethos-u55-128:Sram_only", "'ethos-u55-128:Sram_only'", f"{U55_SYSTEM}:Sram_Only"),
        ("ethos-u55-128:Ethos_U55_Deep_Embedded", "_Embedded'", "ethos-u55-128:Ethos_U55_Deep_Embedded:Shared_Sram"),
        ("ethos-u55-128:Ethos_U55_High_End:Shared_Sram", "'Ethos_U55_High_End'", f"{U55_SYSTEM}:Shared_Sram"),
        ("ethos-u55-128:Ethos_U55_High_End_Embedded:Shared", "'Shared'", f"{U55_SYSTEM}:Shared_Sram"),
        ("ethos-u65-512:x:y", "'x'", f"ethos-u65-512:{U65_SYSTEM}:Dedicated_Sram_384KB"),
        ("ethos-u55-128,ethos-u55-128", "ethos-u55-128 2 times", "name it once"),
    ],
)
def test_a_target_that_does_not_exist_is_refused_with_the_nearest_that_does(text: str, found: str, help_: str) -> None:
    """The error names what was given, what is known, and the nearest valid target of the same generation.

    The advice keeps every name that can be kept, and is itself valid.
    """
    with pytest.raises(UsageError) as error:
        parse_targets(text)
    assert found in error.value.found
    assert help_ in error.value.next_step
    if "--targets" in error.value.next_step:
        assert parse_targets(error.value.next_step.rpartition(" ")[2])


def test_a_memory_system_of_another_family_is_refused_before_vela_runs(tmp_path: Path, int8_model: bytes) -> None:
    """Vela accepts an Ethos-U85 with the memory system of an Ethos-U55; the parser and the compiler here do not."""
    with pytest.raises(UsageError, match="give --targets ethos-u85-256:Ethos_U85_SYS_DRAM_Low:Shared_Sram"):
        parse_targets("ethos-u85-256:Ethos_U55_High_End_Embedded:Shared_Sram")
    with pytest.raises(UsageError, match="give --targets ethos-u85-256:Ethos_U85_SYS_DRAM_Low:Shared_Sram"):
        compile_target(int8_model, "tiny", U85_MISMATCHED, tmp_path / "out")
    assert files(tmp_path) == []


def test_an_arena_in_flash_is_refused() -> None:
    """A memory mode that needs DRAM does not fit a system that has flash in its place."""
    with pytest.raises(UsageError, match=f"OffChipFlash.*next: give --targets ethos-u55-128:{U55_SYSTEM}:Shared_Sram"):
        parse_targets("ethos-u55-128:Ethos_U55_High_End_Embedded:Dedicated_Sram_384KB")


def test_choosing_targets_does_not_import_vela() -> None:
    """A wrong --targets is refused at once, without loading a compiler."""
    code = (
        "import sys; from pipeline.ethos_u.targets import parse_targets;"
        "parse_targets('ethos-u55-128:Ethos_U55_Deep_Embedded:Sram_Only');"
        "assert not [name for name in sys.modules if name.startswith(('ethosu', 'numpy', 'tensorflow'))]"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_target_can_be_optimized_for_speed_for_size_or_both() -> None:
    """Speed is the default; with both, the two variants have different names."""
    speed, size = (parse_targets("ethos-u55-128", how) for how in ("speed", "size"))
    assert speed == parse_targets("ethos-u55-128") == (U55,)
    assert size == (replace(U55, optimize=Optimization.SIZE),)
    assert parse_targets("ethos-u55-128", "both") == speed + size
    assert [variant_name(target) for target in speed + size] == ["ethos-u55-128", "ethos-u55-128_size"]


def test_the_json_of_the_default_targets_does_not_change() -> None:
    """A recipe's id depends on it, and golden.json is keyed by ids."""
    names = ["accelerator", "system_config", "memory_mode", "optimise"]
    assert [list(target) for target in as_json(TARGETS)] == [names] * len(TARGETS)


# Compiling


def test_a_compiled_model_runs_on_the_npu_alone(tmp_path: Path, int8_model: bytes) -> None:
    """The file has one custom operator, and the figures are those of the requested target."""
    variant = compile_target(int8_model, "tiny", U55, tmp_path)
    output = tmp_path / variant.file
    assert files(tmp_path) == ["config.json", "per_layer.csv", "summary.csv", "tiny_vela.tflite"]
    assert [operator.name for operator in read_model(output.read_bytes()).operators] == ["CUSTOM"]
    assert (variant.size, variant.sha256) == (output.stat().st_size, digest_file(output))
    assert variant.sha1 == digest_file(output, "sha1")
    assert (variant.accelerator_config, variant.config_word) == ("Ethos_U55_128", "0x1807")
    assert (variant.cpu_operators, variant.npu_share) == ((), 1.0)
    assert variant.npu_operators > 3
    assert variant.cycles >= variant.cycles_npu > 0
    assert variant.inferences_per_second == pytest.approx(variant.core_clock_hz / variant.cycles)
    assert variant.inference_time_ms == pytest.approx(1e3 / variant.inferences_per_second)
    assert variant.weights_area == "Off-chip Flash"
    assert variant.flash_kib > 0 < variant.sram_kib
    assert variant.dram_kib == 0


def test_an_operator_left_to_the_cpu_is_named(tmp_path: Path) -> None:
    """GATHER does not run on an Ethos-U55: it is reported, and lowers the share of the NPU."""
    variant = compile_target(tiny_model("gather"), "tiny", U55, tmp_path)
    assert variant.cpu_operators == ("GATHER",)
    assert variant.npu_share == variant.npu_operators / (variant.npu_operators + 1)


def test_the_bytes_do_not_depend_on_the_folder_or_the_name(tmp_path: Path, int8_model: bytes) -> None:
    """Two names in two folders give one SHA-256."""
    first = compile_target(int8_model, "first", U55, tmp_path / "a")
    second = compile_target(int8_model, "another name.v2", U55, tmp_path / "b" / "c")
    assert first.sha256 == second.sha256
    assert second.file == "another name.v2_vela.tflite"


def test_nothing_depends_on_the_hash_seed(tmp_path: Path, int8_model: bytes) -> None:
    """Processes with different hash seeds write the same files and report the same figures."""
    (tmp_path / "model").write_bytes(int8_model)
    results = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        finished = compile_elsewhere(tmp_path / "model", folder, "", "print(variant)", PYTHONHASHSEED=seed)
        results.append((finished.stdout, [(name, (folder / name).read_bytes()) for name in files(folder)]))
    assert "config_word='0x1807'" in results[0][0]
    assert results[0] == results[1]


def test_the_summary_names_no_folder(tmp_path: Path, int8_model: bytes) -> None:
    """Vela's table has the name and figures of the model, and nothing about the machine."""
    variant = compile_target(int8_model, "tiny", U55, tmp_path)
    text = (tmp_path / variant.summary).read_text()
    (row,) = csv.DictReader(text.splitlines())
    assert row["network"] == "tiny"
    assert tmp_path.name not in text
    assert "/" not in text


def test_the_table_of_operators_names_no_folder(tmp_path: Path, int8_model: bytes) -> None:
    """It is valid CSV, and its operators and their MACs are those of the model."""
    variant = compile_target(int8_model, "tiny", U55, tmp_path)
    text = (tmp_path / variant.per_layer).read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert {"Conv2D", "FullyConnected", "Softmax"} <= {row["Original Operator"] for row in rows}
    assert {row["Target"] for row in rows} == {"NPU"}
    assert sum(int(row["MAC Count"]) for row in rows) == variant.macs
    assert all(set(row) == {*text.splitlines()[0].split(",")} for row in rows)
    assert tmp_path.name not in text


def test_a_name_with_a_comma_stays_one_cell() -> None:
    """Vela does not quote names; a line break in a name does not start a row, either."""
    (row,) = csv.DictReader(io.StringIO(layers('Op,Cycles,Name\nConv2D,7,a,"b"\nc\n')))
    assert row == {"Op": "Conv2D", "Cycles": "7", "Name": 'a,"b"\nc'}


def test_config_json_has_every_value_of_the_configuration(tmp_path: Path, int8_model: bytes) -> None:
    """Both sections with inherited values, the memories behind the ports, and what Vela derived from them."""
    target = Target("ethos-u85-256", "Ethos_U85_SYS_DRAM_Low", "Dedicated_Sram_384KB", Optimization.SIZE)
    variant = compile_target(int8_model, "tiny", target, tmp_path)
    config = json.loads((tmp_path / variant.config).read_text())
    assert (config["accelerator"], config["optimise"], config["vela"]) == (
        "ethos-u85-256",
        "Size",
        variant.vela_version,
    )
    assert config["config_file"] == {"name": "Arm/vela.ini", "sha256": packaged().sha256}
    assert config["system_config"]["Dram_clock_scale"] == "0.46875"
    assert config["memory_mode"]["arena_cache_size"] == "393216"
    assert config["memory_mode"]["cache_mem_area"] == "Axi0"  # inherited
    assert config["memories"] == {"const": "Dram", "arena": "Dram", "cache": "Sram"}
    assert config["as_vela_read_it"]["core_clock_hz"] == 5e8
    assert config["as_vela_read_it"]["arena_cache_kib"] == 384
    assert config["as_vela_read_it"]["peak_gib_per_s"]["dram"] == pytest.approx(0.46875 * 5e8 * 16 / 2**30)


@pytest.mark.parametrize("optimize", Optimization)
def test_the_options_in_config_json_give_the_same_file(
    tmp_path: Path, int8_model: bytes, optimize: Optimization
) -> None:
    """Vela's own command with the options of config.json writes the variant byte for byte."""
    variant = compile_target(int8_model, "tiny", replace(U55, optimize=optimize), tmp_path)
    config = json.loads((tmp_path / variant.config).read_text())
    (tmp_path / "tiny.tflite").write_bytes(int8_model)
    command = [sys.executable, "-m", "ethosu.vela", "tiny.tflite", "--output-dir", "again", *config["options"]]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert digest_file(tmp_path / "again" / "tiny_vela.tflite") == variant.sha256


def test_vela_prints_nothing(tmp_path: Path) -> None:
    """Output from Python and from C++ is suppressed, including what C++ flushes when the process ends."""
    (tmp_path / "model").write_bytes(tiny_model("gather"))
    finished = compile_elsewhere(tmp_path / "model", tmp_path / "out", "print('before')", "print('after')")
    assert finished.stdout == "before\nafter\n"
    assert finished.stderr == ""


def test_the_recursion_limit_stays_as_it_was(tmp_path: Path, int8_model: bytes) -> None:
    """Vela lowers it for the whole process."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + 17)
    try:
        compile_target(int8_model, "tiny", U55, tmp_path)
        assert sys.getrecursionlimit() == before + 17
    finally:
        sys.setrecursionlimit(before)


# Where Vela reports no error


def test_a_float_model_is_refused_and_leaves_no_file(tmp_path: Path, float_model: bytes) -> None:
    """Vela would return the float model unchanged, with status 0."""
    with pytest.raises(InputError, match="float32"):
        compile_target(float_model, "tiny", U55, tmp_path / "out")
    with pytest.raises(InputError, match="float32"):
        compile_all(float_model, "tiny", TARGETS, tmp_path / "out", workers=Workers(2))
    assert files(tmp_path) == []
    assert not (tmp_path / "out").exists()


def test_a_result_without_work_for_the_npu_is_an_error(
    tmp_path: Path, float_model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a float model gets as far as Vela, the result is discarded."""
    monkeypatch.setattr(vela, "_check_model", lambda model, name: None)
    with pytest.raises(ToolError, match="0 of 4 operators"):
        compile_target(float_model, "tiny", U55, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("column", ["accelerator_configuration", "system_config", "memory_mode"])
def test_another_configuration_in_the_summary_is_an_error(tmp_path: Path, int8_model: bytes, column: str) -> None:
    """Vela's summary must name the configuration that was requested."""
    variant = compile_target(int8_model, "tiny", U55, tmp_path)
    (row,) = csv.DictReader((tmp_path / variant.summary).read_text().splitlines())
    row[column] = "other"
    with pytest.raises(ToolError, match="other"):
        checked_variant((tmp_path / variant.file).read_bytes(), row, U55, packaged(), "")


def test_commands_for_another_accelerator_are_an_error(tmp_path: Path, int8_model: bytes) -> None:
    """The configuration in the compiled file itself is checked, not only Vela's summary."""
    (other,) = parse_targets("ethos-u55-256")
    small = compile_target(int8_model, "tiny", other, tmp_path / "256")
    large = compile_target(int8_model, "tiny", U55, tmp_path / "128")
    (row,) = csv.DictReader((tmp_path / "128" / large.summary).read_text().splitlines())
    with pytest.raises(ToolError, match="commands for ethos-u55-256"):
        checked_variant((tmp_path / "256" / small.file).read_bytes(), row, U55, packaged(), "")


def test_every_bit_of_the_configuration_word_counts(tmp_path: Path, int8_model: bytes) -> None:
    """A compiled file with any one of its 32 bits flipped is refused, as the driver on the device would refuse it."""
    variant = compile_target(int8_model, "tiny", U55, tmp_path)
    (row,) = csv.DictReader((tmp_path / variant.summary).read_text().splitlines())
    compiled = (tmp_path / variant.file).read_bytes()
    at = compiled.index(b"COP1") + 8
    assert checked_variant(compiled, row, U55, packaged(), variant.file) == variant
    for bit in range(32):
        word = int.from_bytes(compiled[at : at + 4], "little") ^ (1 << bit)
        flipped = compiled[:at] + word.to_bytes(4, "little") + compiled[at + 4 :]
        with pytest.raises(ToolError, match=rf"commands for .* \({word:#010x}\)"):
            checked_variant(flipped, row, U55, packaged(), variant.file)


@pytest.mark.parametrize(
    "target",
    [target for target in TARGETS if not target.accelerator.startswith("ethos-u85")],
    ids=variant_name,
)
def test_the_known_configuration_words_are_those_of_the_hardware(target: Target) -> None:
    """Vela can compute the word of an Ethos-U55 or U65 from its number of MACs and its internal memory."""
    from ethosu.vela.architecture_features import Accelerator, create_default_arch
    from ethosu.vela.driver_actions import build_config_word

    with captured():
        word = build_config_word(create_default_arch(Accelerator(target.accelerator)))
    assert _CONFIG_WORDS[target.accelerator] == word


def test_a_batch_of_two_is_refused(tmp_path: Path) -> None:
    """Vela would compile it, and give figures for both pictures together."""
    with pytest.raises(InputError, match="a batch of 2 in tensor 'picture'"):
        compile_all(tiny_model("batch"), "tiny", TARGETS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_the_npu_cannot_run_at_all_is_refused(tmp_path: Path) -> None:
    """The operator is named, and no file is left."""
    with pytest.raises(ToolError, match="0 of 1 operators on it; left to the CPU: GATHER"):
        compile_all(tiny_model("only gather"), "tiny", [U55], tmp_path / "out")
    assert files(tmp_path) == []


def test_an_error_of_vela_is_shown_with_what_it_printed(
    tmp_path: Path, int8_model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with Vela's message, status 5, and no file."""
    monkeypatch.setattr(vela, "check_target", lambda target, custom: packaged())
    with pytest.raises(ToolError, match=r"SystemExit: 2; Vela printed: .*invalid choice: 'ethos-u99'") as error:
        compile_target(int8_model, "tiny", Target("ethos-u99", "Nowhere", "Shared_Sram"), tmp_path)
    assert error.value.status == 5
    assert files(tmp_path) == []
    with pytest.raises(ToolError, match=r"CliOptionError.*Nowhere"):
        compile_target(int8_model, "tiny", Target("ethos-u55-128", "Nowhere", "Shared_Sram"), tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path, int8_model: bytes) -> None:
    """Half a model is bad input, not a failure of the tool."""
    with pytest.raises(InputError):
        compile_target(int8_model[: len(int8_model) // 2], "tiny", U55, tmp_path)
    assert files(tmp_path) == []


# Many targets


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.accelerator)
def test_every_default_target_compiles(tmp_path: Path, int8_model: bytes, target: Target) -> None:
    """The compiled file, the summary and the figures pass every check."""
    variant = compile_target(int8_model, "tiny", target, tmp_path)
    assert variant.target == target
    assert variant.npu_share == 1.0


def test_two_processes_give_what_one_process_gives(tmp_path: Path, int8_model: bytes) -> None:
    """The same files and figures, in the order of the targets, and one step of progress for each."""
    targets = parse_targets("ethos-u85-256,ethos-u55-32,ethos-u65-512")
    steps: list[int] = []
    one = compile_all(int8_model, "tiny", targets, tmp_path / "one", workers=Workers(1), progress=steps.append)
    two = compile_all(int8_model, "tiny", targets, tmp_path / "two", workers=Workers(2), progress=steps.append)
    assert one == two
    assert [variant.target for variant in one] == list(targets)
    assert steps == [1] * 6
    names = files(tmp_path / "one")
    assert names == files(tmp_path / "two")
    assert "ethos-u55-32/tiny_vela.tflite" in names
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)


def test_the_table_is_plain_json(tmp_path: Path, int8_model: bytes) -> None:
    """It is the same after a round trip through JSON, and no figure is infinite."""
    table = vela_table(compile_all(int8_model, "tiny", [U55], tmp_path))
    assert json.loads(canonical_json(table)) == table
    assert table[0]["target"]["accelerator"] == "ethos-u55-128"


@pytest.mark.slow
@pytest.mark.shared
def test_a_published_model_runs_on_the_npu_alone(tmp_path: Path, shared: Path) -> None:
    """No operator of MobileNetV2 is left to the CPU on any of the eleven targets."""
    model = (shared / "published" / "calibration-unknown-a.tflite").read_bytes()
    variants = compile_all(model, "mobilenet", TARGETS, tmp_path, workers=Workers(2))
    assert [variant.cpu_operators for variant in variants] == [()] * 11
    assert all(variant.inferences_per_second > 8 for variant in variants)

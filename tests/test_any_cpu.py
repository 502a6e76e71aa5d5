"""The same bytes on any CPU: recorded range tables, and builds from them on emulated CPUs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from calibration.ranges.range_table import from_json
from recreate_model.support.digest import digest_bytes

ROOT = Path(__file__).parents[1]
RECORDED = sorted((ROOT / "calibration" / "recorded").glob("*_seeded.json"))
CPUS = ("Haswell", "EPYC", "SandyBridge")


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_each_recorded_table_has_the_digest_in_golden_json(path: Path) -> None:
    """A build from the table therefore gives the golden model, also on CPUs where measuring would not."""
    golden = json.loads((ROOT / "artifacts" / "golden.json").read_text())
    measured = {
        build["artifacts"]["calibration/ranges.json"]: name
        for build in golden.values()
        for name in build["artifacts"]
        if name.endswith("_INT8.tflite")
    }
    table = from_json(path.read_text(), str(path))
    assert measured[digest_bytes(path.read_bytes())].startswith(f"{table.network}_INT8")
    assert path.stem == table.network


def test_both_golden_recipes_have_a_recorded_table() -> None:
    """There is one file for each of the two recipes."""
    assert [path.stem for path in RECORDED] == ["mobilenet_v2_0.35_96_seeded", "mobilenet_v2_1.0_224_seeded"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="no qemu-x86_64 here; Debian's package is qemu-user")
@pytest.mark.parametrize(("model", "sets"), [("0.35_96", 1), ("1.0_224", 0)])
def test_recorded_ranges_give_the_same_bytes_on_other_cpus(model: str, sets: int) -> None:
    """The INT8 model built on this CPU and on three emulated ones has the SHA-1 in golden.json."""
    command = [sys.executable, "benchmarks/any_cpu.py", "--model", model, "--sets", str(sets), "--calib", "2"]
    done = subprocess.run(
        [*command, "--cpus", ",".join(CPUS)], cwd=ROOT, capture_output=True, text=True, timeout=3600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(model)]
    assert len({next(word for word in row if len(word) == 40) for row in rows}) == 1
    assert len(rows) == 1 + len(CPUS)

"""The published test vector as evidence: identified by digest or reported missing; outputs compared byte for byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.claims.claim import holds
from pipeline.claims.published_files import _INPUT_PATH, _OUTPUT_PATH
from pipeline.console import NoBars
from pipeline.interface.views import firmware as firmware_view
from pipeline.platforms import published_vector
from pipeline.platforms.evidence import Subject
from tests.test_bad_input import run

OFFICIAL = Path("published") / "official"
MODEL = "mobilenet_v2_1.0_224_INT8.tflite"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")


def test_a_missing_vector_is_reported_with_the_places_searched(tmp_path: Path) -> None:
    """The vector is neither next to the model, nor in the cache, nor on a mirror."""
    found = published_vector.find_vector(tmp_path, tmp_path / "cache", NoBars())
    assert isinstance(found, str)
    assert found.count("published input") == 2


def test_another_vector_is_not_accepted_as_the_published_one(tmp_path: Path) -> None:
    """An array of the right shape with other numbers is reported as another file."""
    for path, shape in ((_INPUT_PATH, (1, 224, 224, 3)), (_OUTPUT_PATH, (1, 1001))):
        (tmp_path / path).parent.mkdir(parents=True)
        np.save(tmp_path / path, np.zeros(shape, np.int8))
    found = published_vector.find_vector(tmp_path, tmp_path / "cache", NoBars())
    assert isinstance(found, str)
    assert f"another file at {tmp_path / _INPUT_PATH}" in found


def test_a_missing_vector_gives_one_row_without_a_claim(tmp_path: Path) -> None:
    """The row says how to supply the vector, and that nothing ran."""
    subject = Subject(MODEL, b"", np.zeros((1, 1), np.int8), np.zeros((1, 1), np.int8), "procedural", True)
    (row,) = published_vector.check(subject, "nowhere to be had", {}, tmp_path)
    assert (row.status, row.agreement) == ("not run", None)
    assert "nowhere to be had" in row.missing
    assert "--published" in row.missing


def test_one_byte_off_the_published_output_fails_the_row_of_the_board() -> None:
    """All 1001 bytes must be equal."""
    wanted = np.arange(1001).astype(np.int8)
    off = wanted.copy()
    off[500] += 1
    assert holds([firmware_view.published_row(wanted, wanted)])
    row = firmware_view.published_row(off, wanted)
    assert not holds([row])
    assert row.found == "1000 of 1001 bytes"


@pytest.mark.shared
def test_every_exact_runtime_gives_the_published_output(shared: Path, tmp_path: Path) -> None:
    """The reference kernels on the host and as AArch64 code, the boards, the C99 runtime on the host, and TFLM."""
    flags = ("--of", shared / OFFICIAL / MODEL, "--out", tmp_path, "--images", "procedural", "--limit", 2)
    assert run("all", *flags, "--targets", "ethos-u55-128").returncode == 0
    done = run("platforms", *flags[:4], "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["results"]["platforms"]["rows"]
    vector = [row for row in rows if "on the published test vector" in row["what"]]
    ran = {row["what"]: row["agreement"] for row in vector if row["agreement"]}
    assert len(ran) >= 4
    assert all((each["hits"], each["n"]) == (1, 1) for each in ran.values())
    assert all("1001 bytes compared with the published output" in row["note"] for row in vector if row["agreement"])


@pytest.mark.shared
@pytest.mark.parametrize("board", ["mps2-an386", "mps2-an500", "mps3-an547"])
@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="no qemu-system-arm here")
def test_a_board_gives_the_published_output(board: str, shared: Path, tmp_path: Path) -> None:
    """The last picture in the firmware is the published input."""
    done = run("firmware", "--of", shared / OFFICIAL / MODEL, "--board", board, "--out", tmp_path, "--pictures", 1)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if "published output" in line)
    assert "1001 of 1001 bytes" in line

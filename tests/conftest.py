"""Shared fixtures: a small build, pictures, and an archive in the official layout."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings

from pipeline.console import NoBars
from pipeline.engine import runner
from pipeline.engine.stages import STAGES
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from recreate_model.network import architecture, seeded
from recreate_model.network.spec import Model
from recreate_model.quantize import convert
from recreate_model.support.arrays import Array
from tests import official_layout, pictures

# An example that is slow on a busy machine must not fail.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

SMALL = Model("0.35", 96)
SMALL_REQUEST = Request(
    model="0.35_96",
    checkpoint="seeded",
    images="procedural",
    calib=6,
    limit=5,
    targets="ethos-u55-128",
    jobs=1,
)


def pytest_configure() -> None:
    """Handles Ctrl-C again: a shell ignores it in background jobs, such as CI, and child processes inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def build(request: Request, stages: tuple[str, ...] = ("attest",), force: tuple[str, ...] = ()) -> list[runner.Outcome]:
    """Runs stages in this process, as the command line would."""
    recipe, machine = resolve(request, NoBars(), may_fetch=False)
    return runner.build(runner.with_needs(stages, STAGES), recipe, machine, force, on_wait=lambda: None)


def contents(folder: Path) -> dict[str, bytes]:
    """Every artifact below a folder, by path, without the lock and hidden files."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock.json" and not path.name.startswith(".")
    }


@pytest.fixture(scope="session")
def small_weights() -> dict[str, Array]:
    """Seeded weights of the smallest network."""
    return seeded.seeded_weights(SMALL)


@pytest.fixture(scope="session")
def small_float(small_weights: dict[str, Array]) -> bytes:
    """The smallest network as a float model."""
    return convert.convert_float(architecture.frozen_graph(SMALL, small_weights))


@pytest.fixture(scope="session")
def small_archive(tmp_path_factory: pytest.TempPathFactory, small_weights: dict[str, Array]) -> Path:
    """The smallest network as an archive in the official layout; raw variables and averages differ by 2 %."""
    folder = tmp_path_factory.mktemp("archive")
    return official_layout.write_archive(folder / "mobilenet_v2_0.35_96.tgz", SMALL, small_weights)


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of six synsets, JPEG and PNG."""
    return pictures.write_folder(tmp_path_factory.mktemp("pictures"), count=12)


@pytest.fixture(scope="session")
def finished_build(tmp_path_factory: pytest.TempPathFactory) -> Request:
    """The request of a complete small build that tests share: do not change its files."""
    request = replace(SMALL_REQUEST, out=tmp_path_factory.mktemp("finished"))
    build(request)
    return request


@pytest.fixture
def small_build(finished_build: Request, tmp_path: Path) -> Request:
    """A copy of the complete small build, which the test may change."""
    shutil.copytree(finished_build.out, tmp_path / "out")
    return replace(finished_build, out=tmp_path / "out")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real pictures and a stand-in archive; tests that need it are marked `shared`."""
    folder = Path(os.environ.get("SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "imagenet_sample").is_dir():
        pytest.skip(f"no real pictures in {folder}")
    return folder

"""The shape of the code: arrows that go one way, nothing heavy at import, modules of a readable size."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import pytest

from pipeline.engine.stages import STAGES, stages_of
from pipeline.engine.work import Stage
from recreate_model.network.spec import Model
from recreate_model.recipe import Calibration, Checkpoint, Evaluation, Preprocess, Recipe

ROOT = Path(__file__).parents[1]
PACKAGES = ("recreate_model", "calibration", "pipeline")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
HEAVY = {
    "tensorflow",
    "tensorflow_datasets",
    "ethosu",
    "ai_edge_litert",
    "cv2",
    "PIL",
    "rich",
    "requests",
    "flatbuffers",
    "h5py",
    "dask",
    "distributed",
    "matplotlib",
    "tflite_micro",
}


def _names(path: Path, whole: bool) -> set[str]:
    """What a module imports, as `module.name`; when not `whole`, only at its top."""
    tree = ast.parse(path.read_text())
    names = set()
    for node in ast.walk(tree) if whole else tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def _imported(path: Path, whole: bool) -> set[str]:
    """First parts of the names a module imports."""
    return {name.split(".")[0] for name in _names(path, whole)}


# Which room imports which, from the ground up. A new arrow is a decision: it stands here, or the test fails.
ARROWS = {
    "recreate_model.support": (),
    "pipeline.progress": (),
    "pipeline.console": ("pipeline.progress",),
    "pipeline.linux": (),
    "recreate_model.network": ("recreate_model.support",),
    "recreate_model.recipe": ("recreate_model.support", "recreate_model.network"),
    "recreate_model.tflite": ("recreate_model.support",),
    "calibration.parallel": ("recreate_model.support",),
    "calibration.manifest": ("recreate_model.support", "recreate_model.recipe"),
    "pipeline.c_array": ("recreate_model.support", "recreate_model.tflite"),
    "recreate_model.quantize": ("recreate_model.support", "recreate_model.tflite", "recreate_model.network"),
    "recreate_model.floats": (
        "recreate_model.support",
        "recreate_model.recipe",
        "recreate_model.tflite",
        "recreate_model.network",
    ),
    "calibration.pictures": ("recreate_model.support", "recreate_model.recipe", "recreate_model.network"),
    "pipeline.ethos_u": (
        "recreate_model.support",
        "recreate_model.recipe",
        "recreate_model.tflite",
        "calibration.parallel",
        "pipeline.c_array",
    ),
    "recreate_model.compare": ("recreate_model.support", "recreate_model.tflite", "recreate_model.quantize"),
    "calibration.selection": ("recreate_model.support", "recreate_model.recipe", "calibration.pictures"),
    "calibration.ranges": (
        "recreate_model.support",
        "recreate_model.recipe",
        "recreate_model.tflite",
        "calibration.parallel",
        "recreate_model.quantize",
        "calibration.pictures",
    ),
    "recreate_model.prove": (
        "recreate_model.support",
        "recreate_model.tflite",
        "recreate_model.network",
        "recreate_model.quantize",
        "recreate_model.floats",
        "recreate_model.compare",
    ),
    "pipeline.engine": (
        "pipeline.progress",
        "recreate_model.support",
        "recreate_model.recipe",
        "calibration.parallel",
        "calibration.pictures",
        "pipeline.ethos_u",
        "calibration.ranges",
        "recreate_model.prove",
    ),
    "pipeline.claims": (
        "pipeline.progress",
        "recreate_model.support",
        "recreate_model.recipe",
        "recreate_model.tflite",
        "calibration.parallel",
        "recreate_model.network",
        "recreate_model.quantize",
        "recreate_model.floats",
        "calibration.pictures",
        "recreate_model.prove",
    ),
    "pipeline.cortex_m": (
        "recreate_model.support",
        "recreate_model.recipe",
        "recreate_model.tflite",
        "pipeline.c_array",
        "calibration.pictures",
        "pipeline.engine",
        "recreate_model.network",
    ),
    "pipeline.request": (
        "pipeline.progress",
        "recreate_model.support",
        "recreate_model.recipe",
        "recreate_model.tflite",
        "calibration.parallel",
        "recreate_model.network",
        "calibration.manifest",
        "recreate_model.floats",
        "calibration.pictures",
        "pipeline.ethos_u",
        "recreate_model.compare",
        "calibration.selection",
        "calibration.ranges",
        "recreate_model.prove",
        "pipeline.engine",
        "pipeline.claims",
    ),
    "pipeline.provenance": (
        "recreate_model.support",
        "recreate_model.recipe",
        "recreate_model.floats",
        "pipeline.engine",
        "pipeline.claims",
        "recreate_model.network",
    ),
    "pipeline.platforms": (
        "pipeline.progress",
        "recreate_model.support",
        "recreate_model.recipe",
        "recreate_model.tflite",
        "recreate_model.quantize",
        "calibration.pictures",
        "pipeline.engine",
        "pipeline.claims",
        "pipeline.cortex_m",
        "recreate_model.network",
    ),
    "pipeline.check": (
        "recreate_model.support",
        "pipeline.console",
        "recreate_model.recipe",
        "recreate_model.compare",
        "pipeline.engine",
        "pipeline.request",
    ),
    "pipeline.card": (
        "recreate_model.support",
        "recreate_model.recipe",
        "recreate_model.tflite",
        "recreate_model.network",
        "pipeline.ethos_u",
        "pipeline.engine",
        "pipeline.platforms",
    ),
    "pipeline.interface": (
        "recreate_model.support",
        "pipeline.console",
        "recreate_model.recipe",
        "recreate_model.tflite",
        "recreate_model.network",
        "pipeline.c_array",
        "recreate_model.quantize",
        "recreate_model.floats",
        "pipeline.ethos_u",
        "recreate_model.compare",
        "calibration.ranges",
        "recreate_model.prove",
        "pipeline.engine",
        "pipeline.claims",
        "pipeline.cortex_m",
        "pipeline.request",
        "pipeline.provenance",
        "pipeline.platforms",
        "pipeline.check",
    ),
    "pipeline.steps": (
        "recreate_model.support",
        "pipeline.linux",
        "recreate_model.recipe",
        "recreate_model.tflite",
        "recreate_model.network",
        "calibration.manifest",
        "pipeline.c_array",
        "recreate_model.quantize",
        "recreate_model.floats",
        "calibration.pictures",
        "pipeline.ethos_u",
        "calibration.ranges",
        "recreate_model.prove",
        "pipeline.engine",
        "pipeline.claims",
        "pipeline.cortex_m",
        "pipeline.request",
        "pipeline.provenance",
        "pipeline.platforms",
        "pipeline.card",
    ),
    "recreate_model.api": (
        "recreate_model.support",
        "pipeline.console",
        "recreate_model.recipe",
        "recreate_model.tflite",
        "calibration.parallel",
        "recreate_model.network",
        "pipeline.c_array",
        "recreate_model.quantize",
        "pipeline.ethos_u",
        "recreate_model.compare",
        "calibration.ranges",
        "recreate_model.prove",
        "pipeline.engine",
        "pipeline.cortex_m",
        "pipeline.request",
        "pipeline.interface",
        "pipeline.steps",
    ),
    "recreate_model.__main__": ("recreate_model.api",),
}
# The Python API uses all floors and stands on the lowest, as that has the name that users import.
API = ROOT / "recreate_model" / "api.py"


def _room(module: str) -> str:
    """The first two names of a module: a room, or a module that stands on its floor alone."""
    return ".".join(module.split(".")[:2])


def _arrows() -> dict[str, set[str]]:
    """Room -> rooms that its modules import, anywhere in their source, for the type checker alone too."""
    arrows: dict[str, set[str]] = {}
    for path in MODULES:
        own = _room(".".join(path.relative_to(ROOT).with_suffix("").parts))
        rooms = {_room(name) for name in _names(path, whole=True) if name.split(".")[0] in PACKAGES}
        if own != "pipeline.__main__":
            arrows.setdefault(own, set()).update(rooms - {own})
    return arrows


def test_rooms_import_what_is_listed_and_nothing_else() -> None:
    """Every arrow is in the list, and every arrow of the list is there."""
    found = {room: targets for room, targets in _arrows().items() if targets or room in ARROWS}
    assert {room: set(targets) for room, targets in ARROWS.items() if targets} == {r: t for r, t in found.items() if t}


def test_rooms_form_no_circle() -> None:
    """And the list is in the order in which they build on one another."""
    order = list(ARROWS)
    for room, targets in ARROWS.items():
        for target in targets:
            assert order.index(target) < order.index(room)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_floors_import_downwards(path: Path) -> None:
    """pipeline -> calibration -> recreate_model, and never back, but for the API."""
    if path == API:
        return
    package = path.relative_to(ROOT).parts[0]
    above = PACKAGES[PACKAGES.index(package) + 1 :]
    assert not _imported(path, whole=True) & set(above)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    """No module imports TensorFlow, Vela, LiteRT or a picture library at its top."""
    assert not _imported(path, whole=False) & HEAVY


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_module_says_what_it_is_for(path: Path) -> None:
    """In its first lines."""
    assert path.name == "__init__.py" or ast.get_docstring(ast.parse(path.read_text()))


def test_the_library_has_no_command_line_and_no_global_state() -> None:
    """recreate_model and calibration take no arguments; of absl they use the log alone."""
    for path in MODULES:
        if path.relative_to(ROOT).parts[0] != "pipeline":
            names = _names(path, whole=True)
            assert "argparse" not in names
            assert not {name for name in names if name.split(".")[0] == "absl"} - {"absl.logging"}


def test_messages_go_through_absl() -> None:
    """The standard library's `logging` is imported only to silence the loggers of other packages."""
    found = {path.relative_to(ROOT).as_posix() for path in MODULES if "logging" in _names(path, whole=True)}
    assert found == {"calibration/parallel/cluster.py", "pipeline/ethos_u/plot.py"}


def test_every_stage_has_its_module_and_needs_only_earlier_ones() -> None:
    """The table is in order, and a row is all it takes; that of builds that start from a given model, too."""
    given = Recipe(
        Model("", 96), Checkpoint("given"), Calibration("given"), Evaluation(""), Preprocess(), (), given="model"
    )
    for table in (STAGES, stages_of(given)):
        _check_order(table)
    modules = {path.stem for path in (ROOT / "pipeline" / "steps").glob("*.py")} - {"__init__"}
    assert modules == {stage.name.replace("-", "_") for stage in (*STAGES, *stages_of(given))}


def _check_order(table: Sequence[Stage]) -> None:
    names = [stage.name for stage in table]
    for index, stage in enumerate(table):
        assert set(stage.needs) <= set(names[:index])
        assert (ROOT / (stage.module.replace(".", "/") + ".py")).is_file()
        # What a stage wants is made from nothing that it does not need itself, and is told of behind all that.
        for want in stage.wants:
            assert want.on_demand
            assert want in table[:index]
            assert set(want.needs) <= set(stage.needs)


def test_an_installed_copy_has_every_module_and_every_file_they_read() -> None:
    """Folders and kinds of file are listed by hand, and a list by hand forgets."""
    settings = (ROOT / "pyproject.toml").read_text()
    listed = set(re.findall(r'"([\w.]+)"', settings.split("\npackages = [")[1].split("]")[0]))
    data = settings.split("[tool.setuptools.package-data]")[1].split("\n[")[0]
    patterns = {
        name: re.findall(r'"([^"]+)"', kinds) for name, kinds in re.findall(r'^"?([\w.]+)"? = \[(.*)\]$', data, re.M)
    }
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")}
    assert {_installed_name(folder) for folder in folders} | {"recreate_model.artifacts"} == listed
    assert patterns["recreate_model.artifacts"] == ["golden.json"]
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.*"):
            if path.suffix in (".py", ".pyc") or path.is_dir():
                continue
            owner = next(folder for folder in path.parents if folder in folders)
            given = patterns.get(_installed_name(owner), [])
            assert any(fnmatch(path.relative_to(owner).as_posix(), pattern) for pattern in given), path


def _installed_name(folder: Path) -> str:
    """Name of a package in an installed copy, where all are packages of `recreate_model`."""
    parts = folder.relative_to(ROOT).parts
    return ".".join(parts if parts[0] == "recreate_model" else ("recreate_model", *parts))


def _loaded(*arguments: str) -> set[str]:
    code = f"""
import sys
sys.argv = {["pipeline", *arguments]!r}
from pipeline.interface.cli import main
try:
    main()
except SystemExit:
    pass
sys.stdout.flush()
sys.stderr.write(" ".join(sorted({{name.split(".")[0] for name in sys.modules}})))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(result.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [("--help",), ("all", "--help"), ("explain", "--help")])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    """Neither TensorFlow nor numpy stands between a user and the help."""
    assert not _loaded(*arguments) & (HEAVY | {"numpy"})


def test_the_api_imports_nothing_heavy() -> None:
    """Nor do its own floors: each function imports what it needs."""
    code = "import sys, recreate_model.api; print(*{name.split('.')[0] for name in sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(result.stdout.split()) & (HEAVY | {"numpy", "calibration", "pipeline"})


def test_a_cached_run_imports_no_tensorflow(small_build: object) -> None:
    """An unchanged `all` reads and hashes, and needs neither TensorFlow nor LiteRT nor Vela."""
    from pipeline.request.request import Request

    assert isinstance(small_build, Request)
    loaded = _loaded(
        "all", "--model", small_build.model, "--checkpoint", "seeded", "--images", "procedural", "--calib",
        str(small_build.calib), "--limit", str(small_build.limit), "--targets", small_build.targets,
        "--out", str(small_build.out), "--quiet",
    )  # fmt: skip
    assert "pipeline" in loaded
    assert not loaded & (HEAVY - {"rich"})

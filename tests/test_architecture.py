"""The structure of the code: imports between rooms go one way, and importing a module loads nothing heavy."""

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
    """What a module imports, as `module.name`. Unless `whole`, only imports at its top level count."""
    tree = ast.parse(path.read_text())
    names = set()
    for node in ast.walk(tree) if whole else tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def _imported(path: Path, whole: bool) -> set[str]:
    """The top-level packages that a module imports."""
    return {name.split(".")[0] for name in _names(path, whole)}


# Which room imports which, from the lowest up. A new arrow is a design decision, so it must be added here.
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
        "recreate_model.network",
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
# The Python API uses all floors. It is on the lowest one because users import that package.
API = ROOT / "recreate_model" / "api.py"


def _room(module: str) -> str:
    """The first two names of a module: its room, or the module itself if it is in no room."""
    return ".".join(module.split(".")[:2])


def _arrows() -> dict[str, set[str]]:
    """Room -> rooms that its modules import anywhere in their source, imports for the type checker included."""
    arrows: dict[str, set[str]] = {}
    for path in MODULES:
        own = _room(".".join(path.relative_to(ROOT).with_suffix("").parts))
        rooms = {_room(name) for name in _names(path, whole=True) if name.split(".")[0] in PACKAGES}
        if own != "pipeline.__main__":
            arrows.setdefault(own, set()).update(rooms - {own})
    return arrows


def test_rooms_import_exactly_what_is_listed() -> None:
    """Every import is in the list, and every entry of the list is used."""
    found = {room: targets for room, targets in _arrows().items() if targets or room in ARROWS}
    assert {room: set(targets) for room, targets in ARROWS.items() if targets} == {r: t for r, t in found.items() if t}


def test_imports_between_rooms_form_no_cycle() -> None:
    """The list is in dependency order, too."""
    order = list(ARROWS)
    for room, targets in ARROWS.items():
        for target in targets:
            assert order.index(target) < order.index(room)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_floors_import_only_from_floors_below(path: Path) -> None:
    """pipeline -> calibration -> recreate_model, and never back. The API is the exception."""
    if path == API:
        return
    package = path.relative_to(ROOT).parts[0]
    above = PACKAGES[PACKAGES.index(package) + 1 :]
    assert not _imported(path, whole=True) & set(above)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    """No module imports TensorFlow, Vela, LiteRT or a picture library at its top level."""
    assert not _imported(path, whole=False) & HEAVY


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_module_has_a_docstring(path: Path) -> None:
    """It says what the module is for."""
    assert path.name == "__init__.py" or ast.get_docstring(ast.parse(path.read_text()))


def test_the_library_has_no_command_line_and_no_global_state() -> None:
    """recreate_model and calibration parse no arguments, and use nothing of absl but its logging."""
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
    """This holds for both tables: that of a normal build, and that of a build that starts from a given model."""
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
        # A wanted stage is made on demand, comes earlier in the table, and needs nothing that this one does not need.
        for want in stage.wants:
            assert want.on_demand
            assert want in table[:index]
            assert set(want.needs) <= set(stage.needs)


def test_an_installed_copy_has_every_module_and_data_file() -> None:
    """pyproject.toml lists folders and kinds of file by hand, so an entry may be missing."""
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
    """Name of a package in an installed copy, where every package is below `recreate_model`."""
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
    """Neither TensorFlow nor numpy delays the help."""
    assert not _loaded(*arguments) & (HEAVY | {"numpy"})


def test_the_api_imports_nothing_heavy() -> None:
    """It does not import the floors above either: each function imports what it needs."""
    code = "import sys, recreate_model.api; print(*{name.split('.')[0] for name in sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(result.stdout.split()) & (HEAVY | {"numpy", "calibration", "pipeline"})


def test_a_cached_run_imports_no_tensorflow(small_build: object) -> None:
    """An unchanged `all` only reads and hashes files. It imports neither TensorFlow nor LiteRT nor Vela."""
    from pipeline.request.request import Request

    assert isinstance(small_build, Request)
    loaded = _loaded(
        "all", "--model", small_build.model, "--checkpoint", "seeded", "--images", "procedural", "--calib",
        str(small_build.calib), "--limit", str(small_build.limit), "--targets", small_build.targets,
        "--out", str(small_build.out), "--quiet",
    )  # fmt: skip
    assert "pipeline" in loaded
    assert not loaded & (HEAVY - {"rich"})

"""An installed copy has one import name, imports rewritten to match, and every file that the code reads."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import setuptools

from pipeline.cortex_m import tflm_job
from pipeline.platforms import inference_job, mali_job, vulkan_job

ROOT = Path(__file__).parents[1]
MOVED = ("calibration", "pipeline")
MODULES = sorted(path for package in ("recreate_model", *MOVED) for path in (ROOT / package).rglob("*.py"))
NAME = "mobilenet_v2_0.35_96_seeded_INT8"
OPTIONS = (
    "--model", "0.35_96", "--checkpoint", "seeded", "--images", "procedural", "--calib", "4", "--limit", "2",
)  # fmt: skip


@pytest.fixture(scope="module")
def setup_script() -> ModuleType:
    """setup.py as a module; it builds nothing when it is imported."""
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _is_moved(name: str | None) -> bool:
    return (name or "").split(".")[0] in MOVED


class _Expected(ast.NodeTransformer):
    """The expected effect of the rewriting on the syntax tree of a module, implemented independently."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if _is_moved(node.module):
            node.module = f"recreate_model.{node.module}"
        return node

    def visit_Import(self, node: ast.Import) -> ast.AST:
        for alias in node.names:
            if _is_moved(alias.name):
                alias.asname = alias.asname or alias.name
                alias.name = f"recreate_model.{alias.name}"
        return node


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_rewriting_changes_every_import_of_a_moved_package_and_nothing_else(
    path: Path, setup_script: ModuleType
) -> None:
    """The syntax tree differs only in the names of the moved packages; a second rewriting changes nothing."""
    source = path.read_text(encoding="utf-8")
    found = setup_script.rewritten(source, str(path))
    assert ast.dump(ast.parse(found)) == ast.dump(_Expected().visit(ast.parse(source)))
    assert len(found.splitlines()) == len(source.splitlines())
    unchanged = [line for line in source.splitlines() if not line.lstrip().startswith(("from ", "import "))]
    assert [line for line in found.splitlines() if not line.lstrip().startswith(("from ", "import "))] == unchanged
    assert setup_script.rewritten(found, str(path)) == found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from pipeline import check\n", "from recreate_model.pipeline import check\n"),
        ("from  calibration.x import (\n    a,\n    b as c,\n)\n", None),
        ("import pipeline\n", "import recreate_model.pipeline as pipeline\n"),
        ("import os, pipeline.x as x, pipeline as p\n", None),
        ("é = 1; import pipeline.x as x; from pipeline import y\n", None),
        ("if True:\n\tfrom pipeline.x import y  # from pipeline.x import y\n", None),
        ('text = """\nfrom pipeline.x import y\n"""\n', 'text = """\nfrom pipeline.x import y\n"""\n'),
        ("from pipelines import x\nfrom . import pipeline\nimport calibration_x\n", None),
    ],
)
def test_rewriting_keeps_the_names_that_an_import_binds(
    source: str, expected: str | None, setup_script: ModuleType
) -> None:
    """For each form of import. Strings, comments and names with the same prefix stay unchanged."""
    found = setup_script.rewritten(source, "module.py")
    assert ast.dump(ast.parse(found)) == ast.dump(_Expected().visit(ast.parse(source)))
    assert found == (expected or found)


@pytest.mark.parametrize(
    "source", ["import pipeline.x\n", "from \\\n  pipeline import x\n", "from pipeline . x import y\n"]
)
def test_an_import_that_cannot_be_rewritten_is_refused(source: str, setup_script: ModuleType) -> None:
    """The build fails with the file and the line."""
    with pytest.raises(setup_script.SetupError, match=r"module\.py:2: .* cannot rewrite"):
        setup_script.rewritten(f"\n{source}", "module.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_string_names_a_moved_module(path: Path) -> None:
    """Rewriting does not change strings, so such a name would not be found in an installed copy."""
    texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    named = [text for text in texts if isinstance(text, str) and _is_moved(text) and "." in text]
    assert not [text for text in named if (ROOT / (text.replace(".", "/") + ".py")).is_file()]


def test_an_editable_install_is_refused(setup_script: ModuleType) -> None:
    """It would not have the layout of the wheel; the error gives the command to use instead."""
    command = setup_script.RefuseEditable(setuptools.Distribution())
    with pytest.raises(setup_script.SetupError, match=r"found an editable one.*next: `pip install \.`"):
        command.run()


def test_standalone_scripts_import_nothing_from_the_project() -> None:
    """They run where the project is not on the path; the toolchain script is a data file, which is not rewritten."""
    modules = (tflm_job, inference_job, mali_job, vulkan_job)
    scripts = [Path(str(module.__file__)) for module in modules]
    for script in (*scripts, *(ROOT / "recreate_model" / "prove" / "toolchains").glob("*.py")):
        assert not set(_imported(script)) & {"recreate_model", *MOVED}


def _imported(path: Path) -> Iterator[str]:
    """Yields the top-level names that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel built from the sdist, and the wheel built from the checkout."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    # A copy, so that no build folder appears in the checkout.
    for name in ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py", "artifacts/golden.json"):
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    for name in ("recreate_model", *MOVED):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir"]
    _run([*build, out / "from_sdist", copy], cwd=out)
    _run([*build, out / "direct", "--wheel", copy], cwd=out)
    (one,), (two,) = ((out / folder).glob("*.whl") for folder in ("from_sdist", "direct"))
    return one, two


@pytest.fixture(scope="module")
def installed(wheels: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The `bin` folder of an environment with the wheel, and a user's folder with packages of the same names."""
    environment, folder = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("project")
    python = environment / "bin" / "python"
    _run([sys.executable, "-m", "venv", "--without-pip", environment], cwd=folder)
    site = Path(_run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], cwd=folder).strip())
    # Makes the libraries of this environment available, but not the checkout.
    libraries = sysconfig.get_path("purelib")
    (site / "development.pth").write_text(f"import site; site.addsitedir({libraries!r})\n")
    _run([sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheels[0]], cwd=folder)
    for name in MOVED:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise ImportError('a package of the user, not of the project')\n")
    return environment / "bin", folder


def _run(command: Sequence[Path | str], cwd: Path, status: int = 0) -> str:
    """Returns the standard output of a command, run without the checkout and the environment settings of the caller."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "IMAGENET"))}
    result = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert result.returncode == status, result.stderr[-2000:]
    return result.stdout


@pytest.mark.slow
def test_the_sdist_and_the_checkout_give_the_same_wheel(wheels: tuple[Path, Path]) -> None:
    """File for file; its only package is `recreate_model`."""
    one, two = ({name: wheel.read(name) for name in wheel.namelist()} for wheel in map(zipfile.ZipFile, wheels))
    assert one == two
    assert {name.split("/")[0] for name in one if ".dist-info/" not in name} == {"recreate_model"}
    assert one["recreate_model/artifacts/golden.json"] == (ROOT / "artifacts" / "golden.json").read_bytes()


@pytest.mark.slow
def test_an_installed_copy_builds_what_a_checkout_builds(installed: tuple[Path, Path]) -> None:
    """Runs in a folder with the user's own `pipeline` and `calibration`, which must not be imported."""
    programs, folder = installed
    command: list[Path | str] = [programs / "recreate-model"]
    _run([*command, "all", *OPTIONS, "--jobs", "1", "--quiet"], cwd=folder)
    rows = json.loads(_run([*command, "status", *OPTIONS, "--json"], cwd=folder))
    assert {row["state"] for row in rows if row["stage"] != "platforms"} == {"fresh"}
    # Through the other entry point, and with worker processes.
    module = [programs / "python", "-m", "recreate_model"]
    ranges = folder / "artifacts" / NAME / "calibration" / "ranges.json"
    before = ranges.read_bytes()
    _run([*module, "calibrate", *OPTIONS, "--jobs", "2", "--force", "--quiet"], cwd=folder)
    assert ranges.read_bytes() == before


@pytest.mark.slow
def test_an_installed_copy_runs_the_first_example_of_the_api(installed: tuple[Path, Path]) -> None:
    """The example is a script in the user's folder, whose packages come first on the path."""
    programs, folder = installed
    first = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "api.md").read_text(), re.M | re.S)[0]
    (folder / "example.py").write_text(first)
    assert _run([programs / "python", "example.py"], cwd=folder) == "IDENTICAL\n"


@pytest.mark.slow
def test_an_installed_copy_finds_the_golden_digests(installed: tuple[Path, Path]) -> None:
    """Both builds of the check agree with them, in processes that the installed copy starts."""
    programs, folder = installed
    said = _run([programs / "recreate-model", "check", "--model", "0.35_96"], cwd=folder)
    assert f"{NAME}: " in said
    assert "artifacts, built twice, byte for byte the same" in said
    assert "that golden.json has are as recorded" in said

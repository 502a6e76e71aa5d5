"""The key of a stage: a digest over everything that can change its result.

These are its slice of the recipe, the digests of its input files, the source of every module of this project that it
runs (and the data files of packages among them), and the versions of its tools. Two runs with the same key have the
same result, so the second is not run.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.engine.work import Stage
from recreate_model.recipe import Recipe
from recreate_model.support.digest import Json, digest_bytes, digest_json

# The folder that holds `recreate_model`: the checkout, or site-packages.
_ROOT = Path(__file__).resolve().parents[__name__.count(".")]
_PACKAGES = ("recreate_model", "calibration", "pipeline")


@dataclass(frozen=True)
class KeyParts:
    """What enters a key, kept in the lock so that a changed key can be explained.

    Attributes:
        recipe: the stage's slice.
        inputs: path -> SHA-256.
        code: module -> SHA-256 of its source; for a package also file -> SHA-256 of what else lies in its folder.
        tools: distribution -> version; an optional one that is missing is not among them.
        stages: for a witness, stage -> key of each stage it records; empty for other stages.
    """

    stage: str
    recipe: Json
    inputs: Mapping[str, str]
    code: Mapping[str, str]
    tools: Mapping[str, str]
    stages: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return digest_json(asdict(self))

    def changes_since(self, other: KeyParts) -> list[str]:
        """What differs from the parts of another key of the same stage, as short phrases."""
        changes = [] if self.recipe == other.recipe else _recipe_changes(other.recipe, self.recipe)
        for noun, old, new in (
            ("input", other.inputs, self.inputs),
            ("code", other.code, self.code),
            ("tool", other.tools, self.tools),
            ("stage", other.stages, self.stages),
        ):
            for name in sorted(old.keys() | new.keys()):
                if old.get(name) != new.get(name):
                    changes.append(f"{noun} {name}: {_short(old.get(name))} -> {_short(new.get(name))}")
        return changes


def key_parts(
    stage: Stage, recipe: Recipe, inputs: Mapping[str, str], stages: Mapping[str, str] | None = None
) -> KeyParts:
    """The parts of a stage's key.

    Args:
        inputs: digests of the files of the stages it needs.
        stages: keys of those stages, for a witness.
    """
    modules = _reachable(stage.module)
    optional = tuple(name for name in stage.optional_tools if is_installed(name))
    return KeyParts(
        stage=stage.name,
        recipe=stage.reads(recipe),
        inputs=dict(inputs),
        code={module: _source_digest(module) for module in modules} | _data_digests(modules),
        tools={name: importlib.metadata.version(name) for name in tools_here((*stage.tools, *optional))},
        stages=dict(stages or {}),
    )


def tools_here(names: tuple[str, ...]) -> Iterator[str]:
    """The distributions as they are called here: TensorFlow's CPU build has a name of its own."""
    for name in names:
        yield "tensorflow-cpu" if name == "tensorflow" and is_installed("tensorflow-cpu") else name


def is_installed(distribution: str) -> bool:
    """Whether a distribution is installed; it may still not work."""
    try:
        return bool(importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        return False


@functools.cache
def _reachable(module: str) -> tuple[str, ...]:
    """The module and every module of this project that it imports, directly or not, anywhere in its source; sorted."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo.extend(_imports(current))
    return tuple(sorted(seen))


@functools.cache
def _imports(module: str) -> tuple[str, ...]:
    found: set[str] = set()
    for node in _run_nodes(ast.parse(_source(module))):
        if isinstance(node, ast.ImportFrom) and node.module:
            # `from package import name`: the name may be a module of its own, or something inside the package.
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return tuple(name for name in found if name.split(".")[0] in _PACKAGES and _file(name).is_file())


def _run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a module except those under `if TYPE_CHECKING`, which never run."""
    yield node
    inner: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        inner = node.orelse
    for child in inner:
        yield from _run_nodes(child)


@functools.cache
def _source(module: str) -> bytes:
    return _file(module).read_bytes()


def _file(module: str) -> Path:
    path = _ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def _source_digest(module: str) -> str:
    return digest_bytes(_source(module))


@functools.cache
def _data_digests(modules: tuple[str, ...]) -> dict[str, str]:
    """Path in the project -> SHA-256 of every data file in the folders of those modules that are packages.

    A module that reads such a file imports its package to find it.
    """
    folders = [_file(module).parent for module in modules if _file(module).name == "__init__.py"]
    files = sorted(path for folder in folders for path in folder.iterdir() if path.is_file() and path.suffix != ".py")
    return {path.relative_to(_ROOT).as_posix(): digest_bytes(path.read_bytes()) for path in files}


def _recipe_changes(old: Json, new: Json) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            change
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
            for change in (
                _recipe_changes(old[name], new[name])
                if isinstance(old.get(name), dict) and isinstance(new.get(name), dict)
                else [f"recipe {name}: {_short(old.get(name))} -> {_short(new.get(name))}"]
            )
        ]
    return [f"recipe: {_short(old)} -> {_short(new)}"]


def _short(value: Json) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return f"{len(value)} entries ({digest_json(value)[:8]})"
    text = str(value)
    return text[:12] if len(text) == 64 else text

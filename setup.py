"""Builds the wheel: `pipeline` and `calibration` go into it as packages of `recreate_model`.

pyproject.toml holds everything else. In a checkout the three packages lie side by side and nothing is rewritten.
"""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel
from setuptools.errors import SetupError

PACKAGE = "recreate_model"
MOVED = ("calibration", "pipeline")


def rewritten(source: str, path: str) -> str:
    """The source of a module with its absolute imports of the moved packages changed to `recreate_model.<package>`.

    Only import statements change, and each line stays in its place. `from pipeline.x import y` and
    `import pipeline.x as y` bind the same name as before; `import pipeline` becomes
    `import recreate_model.pipeline as pipeline`.

    Args:
        path: what to call the module in an error.

    Raises:
        SetupError: an import that cannot be rewritten so, such as `import pipeline.x`, which binds `pipeline`.
    """
    lines = source.encode().splitlines(keepends=True)  # ast counts columns in bytes of UTF-8
    # The last one first, so that the columns of those before it stay true.
    for node in sorted(_imports(source), key=lambda node: (node.lineno, node.col_offset), reverse=True):
        line, start = lines[node.lineno - 1], node.col_offset
        if isinstance(node, ast.ImportFrom):
            old = new = node.module or ""
            start = line.find(old.encode(), start + len("from"))
        else:
            old = node.name
            new = old if node.asname else f"{old} as {old}"
        end = start + len(old)
        if line[max(start, 0) : end] != old.encode() or "." in new.partition(" as ")[2]:
            raise SetupError(f"{path}:{node.lineno}: `{ast.unparse(node)}` is an import that setup.py cannot rewrite")
        lines[node.lineno - 1] = line[:start] + f"{PACKAGE}.{new}".encode() + line[end:]
    return b"".join(lines).decode()


def _imports(source: str) -> list[ast.ImportFrom | ast.alias]:
    """Every `from` statement, and every name in an `import` statement, that means a moved package."""
    found: list[ast.ImportFrom | ast.alias] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] in MOVED:
            found.append(node)
        elif isinstance(node, ast.Import):
            found += [alias for alias in node.names if alias.name.split(".")[0] in MOVED]
    return found


class BuildPy(build_py):
    """Copies the packages to their places in the wheel and rewrites their imports."""

    def run(self) -> None:
        # What an earlier build left there would get into the wheel.
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()

    def build_module(self, module: str, module_file: str, package: str) -> tuple[str, bool]:
        outfile, copied = super().build_module(module, module_file, package)
        source = Path(module_file).read_text(encoding="utf-8")
        Path(outfile).write_text(rewritten(source, module_file), encoding="utf-8")
        return outfile, copied


class RefuseEditable(editable_wheel):
    """An editable install cannot have the layout of the wheel, and a checkout needs none."""

    def run(self) -> None:
        raise SetupError(
            "expected a regular install; found an editable one, whose imports would not match the wheel's; "
            "done: nothing was installed; next: `pip install .`, or `python -m pipeline` in the checkout"
        )


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildPy, "editable_wheel": RefuseEditable})

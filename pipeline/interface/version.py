"""The version of this program: of the installed copy, or as the checkout's pyproject.toml states it."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

_DISTRIBUTION = "recreate-mobilenet-v2-int8"


def version() -> str:
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if project.is_file() and (found := re.search(r'^version = "(.*)"$', project.read_text(encoding="utf-8"), re.M)):
        return found[1]
    return importlib.metadata.version(_DISTRIBUTION)

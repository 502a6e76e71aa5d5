"""The options that a build was made with. They are kept beside it and are the defaults of every later command on it.

So a command that checks or uses the model never makes another one because an option was left out. An option that
contradicts the kept ones is refused, unless the command makes models. Not for: what the build is (the recipe, in the
lock) or the Ethos-U targets, which the lock has.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from absl import logging

from calibration.pictures.tfds_source import PREFIX as TFDS
from pipeline.request.request import OPTIONS, VALUE_TYPES, Request, flag
from recreate_model.support.digest import readable_json
from recreate_model.support.errors import UsageError

OPTIONS_FILE = ".options.json"
_FORMAT = "build-options/1"

_KEPT = tuple(name for name, option in OPTIONS.items() if option.kept)


def kept_options(folder: Path) -> dict[str, Any] | None:
    """The options of the build in a folder, by their names in a request; None if no readable ones were kept."""
    try:
        document = json.loads((folder / OPTIONS_FILE).read_text(encoding="utf-8"))
        if document["format"] != _FORMAT:
            return None
        options = {name: value for name, value in document["options"].items() if name in _KEPT}
        if not all(_fits(name, value) for name, value in options.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Then the typed options count, and the keys still show whether the model is the one meant.
        return None
    return {name: Path(value) if VALUE_TYPES[name] is Path else value for name, value in options.items()}


def _fits(name: str, value: Any) -> bool:
    """Whether a kept value has the type of its option: the file may have been edited."""
    return isinstance(value, int if VALUE_TYPES[name] is int else str) and not isinstance(value, bool)


def keep_options(folder: Path, request: Request) -> None:
    """Keeps the options of a request beside the build, with absolute paths."""
    default = Request()
    options = {
        name: str(value) if isinstance(value, Path) else value
        for name in _KEPT
        # The default depends on the environment, which may change.
        if (value := _absolute(name, getattr(request, name))) != getattr(default, name) or name == "images"
    }
    text = readable_json({"format": _FORMAT, "options": options})
    path = folder / OPTIONS_FILE
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    temporary = folder / f"{OPTIONS_FILE}.new"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def settle(
    request: Request, typed: Collection[str], kept: Mapping[str, Any] | None, own: Collection[str] | None
) -> Request:
    """The request with the kept options in place of those that were not typed.

    Args:
        request: what was typed, and the defaults.
        typed: names of the options that were typed.
        kept: options of the build; None if it has none.
        own: names of the options that this command may change; None for all.

    Raises:
        UsageError: a typed option contradicts the build, and the command may not change it.
    """
    if kept is None:
        return request
    for name in typed:
        if name in _KEPT and own is not None and name not in own and (has := _contradicted(name, request, kept)):
            raise UsageError(
                expected=f"the options that this build was made with, {has}",
                found=f"{flag(name)} {_absolute(name, getattr(request, name))}",
                done="the build was not changed",
                next_step=f"leave {flag(name)} out, or change the build: with `all`, or with --force",
            )
    outdated = {other for name in typed for other in OPTIONS[name].replaces}
    known = {name: value for name, value in kept.items() if name not in outdated and name not in typed}
    return replace(request, **known)


def warn_of_pictures(typed: Collection[str], kept: Mapping[str, Any]) -> None:
    """Warns if the build keeps other pictures than those that IMAGENET_DIR names."""
    named = _absolute("images", "auto")
    if os.environ.get("IMAGENET_DIR") and "images" not in typed and kept.get("images", named) != named:
        logging.warning("the build keeps --images %s; give --images for those that IMAGENET_DIR names", kept["images"])


def _contradicted(name: str, request: Request, kept: Mapping[str, Any]) -> str:
    """The kept option that a typed one contradicts, as it would be typed; empty if there is none."""
    for other in OPTIONS[name].replaces:
        if other in kept and name not in kept:
            return f"{flag(other)} {kept[other]}"
    has = kept.get(name, _absolute(name, getattr(Request(), name)))
    if has == _absolute(name, getattr(request, name)):
        return ""
    return f"without {flag(name)}" if has is None else f"{flag(name)} {has}"


def _absolute(name: str, value: Any) -> Any:
    """The value of an option, independent of the working directory and the environment."""
    if name == "images":
        if value == "auto":
            value = os.environ.get("IMAGENET_DIR") or "procedural"
        return value if not value or value == "procedural" or value.startswith(TFDS) else str(Path(value).absolute())
    return Path(value).absolute() if isinstance(value, Path) else value

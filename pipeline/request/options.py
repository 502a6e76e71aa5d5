"""The options that a build was made with: kept beside it, the default of every later command on it.

For: a command that checks, or makes something of the model, never makes another model by leaving an option out. An
option that contradicts the kept ones is refused, unless the command is one that makes models. Not for: what the build
is (its recipe, in the lock), or the Ethos-U targets, which the lock has.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from absl import logging

from calibration.pictures.tfds_source import PREFIX as TFDS
from pipeline.request.request import OPTIONS, Request, flag, value_type
from recreate_model.support.digest import readable_json
from recreate_model.support.errors import UsageError

OPTIONS_FILE = ".options.json"
_FORMAT = "build-options/1"

_KEPT = tuple(name for name, option in OPTIONS.items() if option.kept)
_TYPES = {part.name: value_type(part) for part in fields(Request)}


def kept_options(folder: Path) -> dict[str, Any] | None:
    """The options of the build in a folder, by their names in a request; None where nothing readable was kept."""
    try:
        document = json.loads((folder / OPTIONS_FILE).read_text(encoding="utf-8"))
        if document["format"] != _FORMAT:
            return None
        options = {name: value for name, value in document["options"].items() if name in _KEPT}
        if not all(_fits(name, value) for name, value in options.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Then what is typed counts, and the keys still tell whether the model is the one meant.
        return None
    return {name: Path(value) if _TYPES[name] is Path else value for name, value in options.items()}


def _fits(name: str, value: Any) -> bool:
    """Whether a kept value is of its option's type: anybody may have written the file."""
    return isinstance(value, int if _TYPES[name] is int else str) and not isinstance(value, bool)


def keep_options(folder: Path, request: Request) -> None:
    """Keeps a request's options beside the build; paths as they are from anywhere."""
    default = Request()
    options = {
        name: str(value) if isinstance(value, Path) else value
        for name in _KEPT
        # What the environment names for the default pictures may be another thing tomorrow.
        if (value := _from_anywhere(name, getattr(request, name))) != getattr(default, name) or name == "images"
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
    """The request with the kept options in the place of those that were not typed.

    Args:
        request: what was typed, and the defaults.
        typed: names of the options that were typed.
        kept: of the build; None where nothing is known of them.
        own: names of options that this command may change; None for every one.

    Raises:
        UsageError: an option that was typed contradicts the build, and is none that the command may change.
    """
    if kept is None:
        return request
    for name in typed:
        if name in _KEPT and own is not None and name not in own and (has := _contradicted(name, request, kept)):
            raise UsageError(
                expected=f"the options that this build was made with, {has}",
                found=f"{flag(name)} {_from_anywhere(name, getattr(request, name))}",
                done="the build is as it was",
                next_step=f"leave {flag(name)} out; `all` makes the build with other options, and --force does here",
            )
    outdated = {other for name in typed for other in OPTIONS[name].replaces}
    known = {name: value for name, value in kept.items() if name not in outdated and name not in typed}
    return replace(request, **known)


def warn_of_pictures(typed: Collection[str], kept: Mapping[str, Any]) -> None:
    """Says when the build keeps other pictures than those that the environment names."""
    named = _from_anywhere("images", "auto")
    if os.environ.get("IMAGENET_DIR") and "images" not in typed and kept.get("images", named) != named:
        logging.warning("the build keeps --images %s; give --images for those that IMAGENET_DIR names", kept["images"])


def _contradicted(name: str, request: Request, kept: Mapping[str, Any]) -> str:
    """The kept option that one that was typed contradicts, as it would be typed; empty where there is none."""
    for other in OPTIONS[name].replaces:
        if other in kept and name not in kept:
            return f"{flag(other)} {kept[other]}"
    has = kept.get(name, _from_anywhere(name, getattr(Request(), name)))
    if has == _from_anywhere(name, getattr(request, name)):
        return ""
    return f"without {flag(name)}" if has is None else f"{flag(name)} {has}"


def _from_anywhere(name: str, value: Any) -> Any:
    """An option's value as it means the same in every folder and environment."""
    if name == "images":
        if value == "auto":
            value = os.environ.get("IMAGENET_DIR") or "procedural"
        return value if not value or value == "procedural" or value.startswith(TFDS) else str(Path(value).absolute())
    return Path(value).absolute() if isinstance(value, Path) else value

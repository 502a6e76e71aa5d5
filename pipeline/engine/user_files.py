"""Files whose paths the user chose: read as text, or written completely or not at all, without overwriting anything.

Not for: the files of a build, which `store` publishes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from recreate_model.support.errors import InputError, ResourceError, reason


def write_new(folder: Path, texts: Mapping[str, str], option: str, done: str = "nothing was written") -> None:
    """Writes texts below `folder`; a file that exists there must have the same content.

    Args:
        texts: path below `folder` -> content.
        option: the option that named the folder, for errors.
        done: what was done before, for the error if writing fails.

    Raises:
        InputError: another file or folder is in the way. Nothing is written.
        ResourceError: writing failed. Nothing is written except folders.
    """
    try:
        new = {name: text for name, text in texts.items() if not _exists(folder, name, text, option)}
        folders = {(folder / name).parent for name in new}
        for parent in sorted(folders):
            parent.mkdir(parents=True, exist_ok=True)
        if not new:
            return
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as scratch:
            # All of them first, so that a full disk is noticed before any file has its final name.
            whole = {name: Path(scratch) / str(number) for number, name in enumerate(new)}
            for name, path in whole.items():
                path.write_bytes(new[name].encode())
            for name, path in whole.items():
                os.replace(path, folder / name)
    except OSError as error:
        raise ResourceError(
            expected=f"to write to {folder}",
            found=reason(error),
            done=done,
            next_step=f"give another {option}",
        ) from error


def read_text(path: Path, expected: str, next_step: str) -> str:
    """The text in a file.

    Args:
        expected, next_step: for the error.

    Raises:
        InputError: the file cannot be read, or is not UTF-8 text.
    """
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        found = reason(error) if isinstance(error, OSError) else "a file that is not text"
        raise InputError(expected=expected, found=found, next_step=next_step) from error


def _exists(folder: Path, name: str, text: str, option: str) -> bool:
    """Whether the file exists with this content; raises InputError if something else is in the way."""
    path = folder / name
    for above in path.parents:
        if above.is_relative_to(folder) and os.path.lexists(above) and not above.is_dir():
            raise _taken(f"a folder at {above}", "something that is not a folder", option)
    if not os.path.lexists(path):
        return False
    if path.is_file() and path.read_bytes() == text.encode():
        return True
    found = "a folder" if path.is_dir() else "other content" if path.is_file() else "something that is not a file"
    raise _taken(f"no file at {path}, or one with the same content", found, option)


def _taken(expected: str, found: str, option: str) -> InputError:
    return InputError(
        expected=expected,
        found=found,
        done="it is kept, and nothing was written",
        next_step=f"remove it, or give another {option}",
    )

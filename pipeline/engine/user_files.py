"""Files under names that the user chose: read as text, or written whole or not at all, and nothing is written over.

Not for: the files of a build, which `store` publishes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from recreate_model.support.errors import InputError, ResourceError


def write_new(folder: Path, texts: Mapping[str, str], option: str, done: str = "nothing was written") -> None:
    """Writes texts below `folder`, by their paths there; where one stands already it may only be the same.

    Args:
        option: of the command line, under which the user named the place.
        done: what was done besides, where the file system refuses.

    Raises:
        InputError: a name is taken by something else. Nothing is written.
        ResourceError: the file system refuses. Nothing is written, but for folders.
    """
    try:
        new = {name: text for name, text in texts.items() if not _stands(folder, name, text, option)}
        folders = {(folder / name).parent for name in new}
        for each in sorted(folders):
            each.mkdir(parents=True, exist_ok=True)
        if not new:
            return
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as scratch:
            # All of them first: a full disk is then found before anything has its name.
            whole = {name: Path(scratch) / str(number) for number, name in enumerate(new)}
            for name, path in whole.items():
                path.write_bytes(new[name].encode())
            for name, path in whole.items():
                os.replace(path, folder / name)
    except OSError as error:
        raise ResourceError(
            expected=f"to write to {folder}",
            found=error.strerror or str(error),
            done=done,
            next_step=f"give another {option}",
        ) from error


def read_text(path: Path, expected: str, next_step: str) -> str:
    """The text in a file; `expected` and `next_step` are for the InputError where it cannot be read, or is none."""
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror or str(error) if isinstance(error, OSError) else "a file that is not text"
        raise InputError(expected=expected, found=found, next_step=next_step) from error


def _stands(folder: Path, name: str, text: str, option: str) -> bool:
    """Whether the file is there with this content; raises InputError where something else is in its way."""
    path = folder / name
    for above in path.parents:
        if above.is_relative_to(folder) and os.path.lexists(above) and not above.is_dir():
            raise _taken(f"a folder at {above}", "something that is no folder", option)
    if not os.path.lexists(path):
        return False
    if path.is_file() and path.read_bytes() == text.encode():
        return True
    found = "a folder" if path.is_dir() else "another content" if path.is_file() else "something that is no file"
    raise _taken(f"nothing at {path}, or the same content", found, option)


def _taken(expected: str, found: str, option: str) -> InputError:
    return InputError(
        expected=expected,
        found=found,
        done="it is kept, and nothing was written",
        next_step=f"remove it, or give another {option}",
    )

"""Files under names that the user chose: each whole or not at all, and nothing of the user's is written over.

Not for: the files of a build, which `store` publishes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from recreate_model.errors import InputError, ResourceError


def write_new(folder: Path, texts: Mapping[str, str], option: str, done: str = "nothing was written") -> None:
    """Writes texts below `folder`, by their paths there; where one stands already it may only be the same.

    Args:
        option: of the command line, under which the user named the place.
        done: what was done besides, where the file system refuses.

    Raises:
        InputError: a name is taken by something else. Nothing is written.
        ResourceError: the file system refuses.
    """
    try:
        for name, text in texts.items():
            path = folder / name
            if path.exists() and not (path.is_file() and path.read_bytes() == text.encode()):
                raise InputError(
                    expected=f"nothing at {path}, or the same content",
                    found="another content" if path.is_file() else "something that is no file",
                    done="it is kept, and nothing was written",
                    next_step=f"remove it, or give another {option}",
                )
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as scratch:
            whole = Path(scratch) / "file"
            for name, text in texts.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                whole.write_bytes(text.encode())
                os.replace(whole, folder / name)
    except OSError as error:
        raise ResourceError(
            expected=f"to write to {folder}",
            found=error.strerror or str(error),
            done=done,
            next_step=f"give another {option}",
        ) from error

"""Ethos-U variants as C sources, in a folder that the user named.

For: `vela --c-array`. They are no files of the build: which of its variants goes into a firmware is the user's choice,
and a normal build need not hold four megabytes more for each. How a model becomes C is `c_array`'s affair.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.c_array import model_sources
from pipeline.vela_targets import variant_name
from recreate_model.digest import Json
from recreate_model.errors import InputError, ResourceError
from recreate_model.recipe import Target


def sources(folder: Path, build: str, variants: Sequence[Json]) -> dict[str, str]:
    """`<variant>/<id>.h` and `<variant>/<id>.c` with their texts, for all variants.

    The identifier names build and variant, so that a firmware can hold several.

    Args:
        folder: that holds the variants' folders.
        variants: as `vela.json` lists them.
    """
    texts: dict[str, str] = {}
    for variant in variants:
        name = variant_name(Target(**variant["target"]))
        model = (folder / name / variant["file"]).read_bytes()
        texts |= {f"{name}/{file}": text for file, text in model_sources(model, f"{build}_{name}").items()}
    return texts


def write(folder: Path, texts: Mapping[str, str]) -> None:
    """Writes all files below `folder`, each whole or not at all; what stands there with another content is kept.

    Raises:
        InputError: a name is taken by something else. Nothing is written.
        ResourceError: the file system refuses.
    """
    try:
        for name, text in texts.items():
            path = folder / name
            if path.exists() and not (path.is_file() and path.read_bytes() == text.encode()):
                raise InputError(
                    expected=f"nothing at {path}, or the same source",
                    found="another content" if path.is_file() else "something that is no file",
                    done="it is kept, and nothing was written",
                    next_step="remove it, or give another folder with --c-array",
                )
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".c-array-") as scratch:
            whole = Path(scratch) / "source"
            for name, text in texts.items():
                (folder / name).parent.mkdir(exist_ok=True)
                whole.write_bytes(text.encode())
                os.replace(whole, folder / name)
    except OSError as error:
        raise ResourceError(
            expected=f"to write to {folder}",
            found=error.strerror or str(error),
            done="the build is kept",
            next_step="give another folder with --c-array",
        ) from error

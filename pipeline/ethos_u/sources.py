"""Ethos-U variants as C sources, in a folder that the user named.

For: `vela --c-array`. They are no files of the build: which of its variants goes into a firmware is the user's choice,
and a normal build need not hold four megabytes more for each. How a model becomes C is `c_array`'s affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.c_array import model_sources
from pipeline.ethos_u.targets import variant_name
from recreate_model.recipe import Target
from recreate_model.support.digest import Json


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

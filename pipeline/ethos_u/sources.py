"""Ethos-U variants as C sources, for a folder that the user chooses.

For: `vela --c-array`. The sources are not part of the build: the user chooses the variant for a firmware, and the
sources of each would add four megabytes to every build. Not for: the format of the C sources (`c_array`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.c_array import model_sources
from pipeline.ethos_u.targets import variant_name
from recreate_model.recipe import Target
from recreate_model.support.digest import Json


def sources(folder: Path, build: str, variants: Sequence[Json]) -> dict[str, str]:
    """File name -> text of `<variant>/<id>.h` and `<variant>/<id>.c`, for all variants.

    The identifier contains the build and the variant, so one firmware can contain several.

    Args:
        folder: the folder with the variants' folders.
        build: name of the build.
        variants: the entries of `vela.json`.
    """
    texts: dict[str, str] = {}
    for variant in variants:
        name = variant_name(Target.from_json(variant["target"]))
        model = (folder / name / variant["file"]).read_bytes()
        texts |= {f"{name}/{file}": text for file, text in model_sources(model, f"{build}_{name}").items()}
    return texts

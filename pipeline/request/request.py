"""What the user asked for, as typed, with every default."""

from __future__ import annotations

import argparse
import difflib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from recreate_model.support.errors import UsageError

# How a model is made, as `--recipe` calls it.
TODAY, PUBLISHED = RECIPES = ("today", "published")


@dataclass(frozen=True)
class Request:
    """What the user asked for, as typed; every default is here.

    Attributes:
        background: an INT8 model whose class 0 a checkpoint without one gets; None to fill it in.
        of: the INT8 model that the build starts from; None for one that makes its own.
        recipe: `today`, or `published`: the publisher's converter and ranges.
        moves: a table of the folding factors, for `published`.
        published: the published model, or a folder with it in the ML-zoo's layout; None for the cache or a mirror.
    """

    model: str = "1.0_224"
    checkpoint: str = "auto"
    background: Path | None = None
    images: str = "auto"
    labels: Path | None = None
    label_base: int | None = None
    split: str | None = None
    calib: int = 100
    seed: int = 0
    manifest: Path | None = None
    limit: int = 200
    crop: str = "central-crop"
    ranges: Path | None = None
    range_method: str | None = None  # min-max, unless a table says otherwise
    targets: str = "all"
    optimise: str = "speed"
    vela_config: Path | None = None
    out: Path = Path("artifacts")
    jobs: int | None = None
    cluster: str | None = None
    of: Path | None = None
    recipe: str = TODAY
    moves: Path | None = None
    published: Path | None = None

    @classmethod
    def given(cls, arguments: argparse.Namespace, **fixed: str) -> Request:
        """What was typed; what was not, or cannot be with this command, is `fixed` or left to the defaults."""
        return cls(**{**typed(arguments), **fixed})


# Options whose name is not the request's.
_OTHERWISE_NAMED = {"crop": "--preprocess"}


def typed(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of a build that were typed, by their names in a request."""
    values = {part.name: getattr(arguments, part.name, None) for part in fields(Request)}
    return {name: value for name, value in values.items() if value is not None}


def flag(name: str) -> str:
    """How an option of a request is typed."""
    return _OTHERWISE_NAMED.get(name, f"--{name.replace('_', '-')}")


def check_least(flag: str, value: int, least: int) -> None:
    """Raises UsageError for a number that is too small."""
    if value < least:
        raise UsageError(expected=f"{flag} to be at least {least}", found=str(value), next_step=f"give {flag} {least}")


def meant(text: str, known: tuple[str, ...]) -> str:
    """The known word that a mistyped one is near to, as a next step; empty where there is none."""
    close = difflib.get_close_matches(text, known, n=1)
    return f"did you mean {close[0]}?" if close else ""

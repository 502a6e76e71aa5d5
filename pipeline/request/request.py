"""What the user asked for, as typed. Each option of a build is declared here once: help, default, and what it decides.

The command line, its help, docs/cli.md and the options that a build keeps all come from these declarations. An option
is not a field of a `Recipe`: a recipe identifies things by content (digests, pictures, targets). `resolve` makes the
recipe of a request.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from recreate_model.recipe import Preprocess
from recreate_model.support.errors import UsageError

# How a model is made, as `--recipe` calls it.
TODAY, PUBLISHED = RECIPES = ("today", "published")


@dataclass(frozen=True)
class Group:
    """Options that are listed together.

    Attributes:
        title: the heading in help and in docs/cli.md.
        commands: whose help lists them; empty for every command on a build.
    """

    title: str
    commands: tuple[str, ...] = ()


BUILD = Group("which build")
PICTURES = Group("pictures", ("calibrate", "quantize", "evaluate"))
CALIBRATION = Group("calibration", ("calibrate", "quantize"))
PUBLISHED_BYTES = Group("the published bytes", ("quantize", "verify", "platforms"))
EVALUATION = Group("evaluation", ("evaluate",))
ETHOS_U = Group("Ethos-U", ("vela",))
RUNNING = Group("running")
GROUPS = (BUILD, PICTURES, CALIBRATION, PUBLISHED_BYTES, EVALUATION, ETHOS_U, RUNNING)


@dataclass(frozen=True)
class Option:
    """How an option is typed, and what follows from it.

    Attributes:
        help: what it means, in one sentence without its default.
        default_text: the default in words, where its value does not say it.
        flags: as typed; empty for the name of the field.
        kept: whether the build keeps it, as the default of later commands on it.
        makes_model: whether it decides how the model is made, so that it is refused beside `--of`.
        replaces: fields that say the same thing otherwise; what a build keeps of them is forgotten when this is typed.
        changed_by: a command that may give it to a build that was made with another value, as nothing but its own stage
            depends on it.
        excludes: names options of which one at most can be typed, if they have this name in common.
    """

    help: str
    group: Group
    metavar: str = ""
    choices: tuple[str | int, ...] = ()
    default_text: str = ""
    flags: tuple[str, ...] = ()
    kept: bool = False
    makes_model: bool = False
    replaces: tuple[str, ...] = ()
    changed_by: str = ""
    excludes: str = ""


def _option(help: str, group: Group, **more: Any) -> dict[str, Option]:
    """Metadata of a field of the request."""
    return {"option": Option(help, group, **more)}


@dataclass(frozen=True)
class Request:
    """What the user asked for, as typed; every default is here. The attributes are the options, by their flags."""

    of: Path | None = field(
        default=None,
        metadata=_option(
            "start from this full-integer INT8 .tflite instead of a checkpoint",
            BUILD,
            metavar="MODEL",
        ),
    )
    model: str = field(
        default="1.0_224",
        metadata=_option("member of the family, such as 0.35_96", BUILD, metavar="WIDTH_RESOLUTION", makes_model=True),
    )
    checkpoint: str = field(
        default="auto",
        metadata=_option(
            "float weights: official (downloaded once, pinned by size and SHA-256), a path to an archive of its layout "
            "or to another form (frozen graph .pb, float .tflite, Keras .h5 or .keras, SavedModel folder), seeded "
            "(untrained, made from a seed), or auto (official if it is available, else seeded)",
            BUILD,
            metavar="auto|official|seeded|PATH",
            makes_model=True,
        ),
    )
    recipe: str = field(
        default=TODAY,
        metadata=_option(
            "today: TensorFlow as installed, ranges measured; published: the converter and the recorded ranges of the "
            "published model, for its SHA-1",
            BUILD,
            choices=RECIPES,
            makes_model=True,
        ),
    )
    background: Path | None = field(
        default=None,
        metadata=_option(
            "take class 0, which Keras checkpoints lack, from this INT8 .tflite",
            BUILD,
            metavar="MODEL",
            default_text="a class of zero weights and the lowest bias",
            makes_model=True,
        ),
    )
    out: Path = field(
        default=Path("artifacts"), metadata=_option("where build folders are made", BUILD, metavar="FOLDER")
    )
    images: str = field(
        default="auto",
        metadata=_option(
            "a folder of synset folders (n01440764/x.JPEG) or of pictures with a label file, a folder or file of "
            "TFRecords, a TFDS data set, procedural (made from a seed), or auto (IMAGENET_DIR, else procedural)",
            PICTURES,
            metavar="auto|procedural|PATH|tfds:NAME",
            kept=True,
            replaces=("labels", "label_base", "split"),
        ),
    )
    labels: Path | None = field(
        default=None,
        metadata=_option(
            "for a folder: rows of a picture's name and its class; synset folders need none",
            PICTURES,
            metavar="FILE",
            default_text="val.txt in the folder",
            kept=True,
        ),
    )
    label_base: int | None = field(
        default=None,
        metadata=_option(
            "number of the first class in a label file or in TFRecords",
            PICTURES,
            choices=(0, 1),
            default_text="inferred; refused if it cannot be",
            kept=True,
        ),
    )
    split: str | None = field(
        default=None,
        metadata=_option(
            "split of TFRecords or of a TFDS data set",
            PICTURES,
            metavar="NAME",
            default_text="the only one, or validation",
            kept=True,
        ),
    )
    seed: int = field(default=0, metadata=_option("seed of the choice of pictures", PICTURES, metavar="N", kept=True))
    preprocess: str = field(
        default=Preprocess().crop,
        metadata=_option(
            "how pictures are cut to the size of the input",
            PICTURES,
            choices=Preprocess.CROPS,
            kept=True,
        ),
    )
    calib: int = field(
        default=100,
        metadata=_option(
            "number of pictures to calibrate on",
            CALIBRATION,
            metavar="N",
            kept=True,
            makes_model=True,
            replaces=("manifest", "ranges"),
            excludes="ranges",
        ),
    )
    manifest: Path | None = field(
        default=None,
        metadata=_option(
            "calibrate on the pictures that a calibration/manifest.json lists",
            CALIBRATION,
            metavar="FILE",
            kept=True,
            makes_model=True,
            replaces=("calib", "ranges"),
            excludes="ranges",
        ),
    )
    ranges: Path | None = field(
        default=None,
        metadata=_option(
            "take the activation ranges from this table instead of measuring them",
            CALIBRATION,
            metavar="FILE",
            kept=True,
            makes_model=True,
            replaces=("calib", "manifest", "range_method"),
            excludes="ranges",
        ),
    )
    range_method: str | None = field(
        default=None,
        metadata=_option(
            "how outliers are cut off the ranges: min-max (not at all), percentile:P, mse or entropy",
            CALIBRATION,
            metavar="METHOD",
            default_text="min-max",
            kept=True,
            makes_model=True,
            replaces=("ranges",),
        ),
    )
    corrections: Path | None = field(
        default=None,
        metadata=_option(
            "for --recipe published where this CPU folds BatchNorm differently: corrections from `prove --record`",
            PUBLISHED_BYTES,
            metavar="FILE",
            flags=("--corrections", "--moves"),
            kept=True,
            makes_model=True,
        ),
    )
    published: Path | None = field(
        default=None,
        metadata=_option(
            "the published model, or a folder with it and its test vector",
            PUBLISHED_BYTES,
            metavar="PATH",
            default_text="fetched where needed",
            kept=True,
            replaces=("corrections",),  # the model shows what the table records
        ),
    )
    limit: int = field(
        default=200,
        metadata=_option("most pictures to evaluate on", EVALUATION, metavar="N", kept=True, changed_by="evaluate"),
    )
    targets: str = field(
        default="all",
        metadata=_option(
            "Ethos-U accelerators, such as ethos-u55-128, or accelerator:system_config:memory_mode",
            ETHOS_U,
            metavar="NAME[,NAME...]",
            default_text="every accelerator",
        ),
    )
    optimize: str = field(
        default="speed",
        metadata=_option(
            "what Vela optimizes for; size saves SRAM, and its variants have folders of their own",
            ETHOS_U,
            choices=("speed", "size", "both"),
            flags=("--optimize", "--optimise"),
        ),
    )
    vela_config: Path | None = field(
        default=None,
        metadata=_option(
            "a Vela configuration (.ini) of your own, whose sections --targets then names",
            ETHOS_U,
            metavar="FILE",
            default_text="Vela's Arm/vela.ini",
            kept=True,
            changed_by="vela",
        ),
    )
    jobs: int | None = field(
        default=None,
        metadata=_option(
            "number of worker processes",
            RUNNING,
            metavar="N",
            default_text="one for each processor",
        ),
    )
    cluster: str | None = field(
        default=None,
        metadata=_option(
            "work on the Dask cluster at this scheduler's address instead of processes here",
            RUNNING,
            metavar="tcp://HOST:PORT",
        ),
    )

    @classmethod
    def given(cls, arguments: argparse.Namespace) -> Request:
        """What was typed, and the defaults."""
        return cls(**typed(arguments))


OPTIONS: dict[str, Option] = {part.name: part.metadata["option"] for part in fields(Request)}
# What each holds where it is not None.
VALUE_TYPES = {
    part.name: {"int": int, "Path": Path, "str": str}[str(part.type).removesuffix(" | None")]
    for part in fields(Request)
}
# By their group, as a command may take some of them otherwise than the build has them.
PICTURE_OPTIONS, PUBLISHED_OPTIONS = (
    tuple(name for name, option in OPTIONS.items() if option.group is group) for group in (PICTURES, PUBLISHED_BYTES)
)


def flags(name: str) -> tuple[str, ...]:
    """Every spelling of an option of a request; the first is the one that messages use."""
    return OPTIONS[name].flags or (f"--{name.replace('_', '-')}",)


def flag(name: str) -> str:
    """How messages spell an option of a request."""
    return flags(name)[0]


def typed(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of a build that were typed, by their names in a request."""
    values = {name: getattr(arguments, name, None) for name in OPTIONS}
    return {name: value for name, value in values.items() if value is not None}


def default_text(name: str) -> str:
    """The default of an option as help and documents state it; empty for one without a default."""
    value = getattr(Request, name)
    return OPTIONS[name].default_text or ("" if value is None else str(value))


def mutually_exclusive(group: Group) -> Iterator[tuple[str, ...]]:
    """Names of the options of a group, together where at most one of them may be typed."""
    sets: dict[str, list[str]] = {}
    for name, option in OPTIONS.items():
        if option.group is group:
            sets.setdefault(option.excludes or name, []).append(name)
    yield from map(tuple, sets.values())


def check_least(flag: str, value: int, least: int) -> None:
    """Raises UsageError for a number that is too small."""
    if value < least:
        raise UsageError(expected=f"{flag} to be at least {least}", found=str(value), next_step=f"give {flag} {least}")


def meant(text: str, known: tuple[str, ...]) -> str:
    """The known word that a mistyped one is near to, as a next step; empty where there is none."""
    close = difflib.get_close_matches(text, known, n=1)
    return f"did you mean {close[0]}?" if close else ""

"""Recipes: frozen values that say what to build. They hold digests, never paths, times or host names.

`pipeline.request.resolve` maps a recipe to files on this machine; the stages do the work.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import Enum

from recreate_model.network.spec import Model
from recreate_model.support.digest import Json, digest_json

# Marks a field that `as_json` omits if it is empty. A field added later must not change the ids of older recipes.
_OMIT_IF_EMPTY = {"omit_if_empty": True}

# The formats of float weights, as shown to the user. `float_forms` detects them by content.
ARCHIVE = "archive"
FROZEN_GRAPH = "frozen graph"
TFLITE = "float TensorFlow Lite model"
KERAS_FILE = "Keras file"
SAVED_MODEL = "SavedModel"
FORMS = (FROZEN_GRAPH, TFLITE, KERAS_FILE, SAVED_MODEL)

# The range of an activation is its observed minimum and maximum: the default range method, and the only one whose
# output bytes are checked against golden digests.
MIN_MAX = "min-max"


@dataclass(frozen=True)
class Checkpoint:
    """The source of the float weights, identified by content.

    Attributes:
        kind: `official` (the pinned archive), `archive` (another archive of the same layout), `file` (float weights in
            another format), `seeded`, or `given` (an INT8 file instead of float weights).
        sha256: digest of the archive or file, or of a folder's files together; empty for seeded weights.
        seed: seed of the seeded weights; 0 for all other kinds.
        form: format of a `file`, one of FORMS; empty for all other kinds.
        background: SHA-256 of the INT8 model that supplies class 0 to a `file` without it; empty if there is none.
    """

    kind: str
    sha256: str = ""
    seed: int = 0
    form: str = field(default="", metadata=_OMIT_IF_EMPTY)
    background: str = field(default="", metadata=_OMIT_IF_EMPTY)

    @property
    def tag(self) -> str:
        """The part of a file name that identifies the checkpoint; empty for the official one, which is the default."""
        local = f"ckpt-{self.sha256[:8]}" + (f"-{self.background[:8]}" if self.background else "")
        return {"official": "", "seeded": "seeded", "given": "given", "archive": local, "file": local}[self.kind]


@dataclass(frozen=True)
class Preprocess:
    """How a decoded image becomes the network's input: crop, resize, then scale 0..255 to -1..1.

    Attributes:
        crop: `central-crop` keeps the aspect ratio and takes a central square of 87.5 % of the shorter side, as
            TF-Slim's VGG evaluation does; `inception` takes the central 87.5 % of each side and does not keep the
            aspect ratio, as TF-Slim's Inception evaluation does; `squash` takes the whole image and does not keep the
            aspect ratio, as the published recipe does.
    """

    crop: str = "central-crop"

    CROPS = ("central-crop", "inception", "squash")


@dataclass(frozen=True)
class Picture:
    """An image, identified by name and content.

    Attributes:
        id: path relative to the source's root, with forward slashes; for a data set, the image's name in the data set.
        sha256: digest of the file's bytes; for a procedural image, digest of its pixels, empty until it is generated.
        label: class 1..1000, or None if the source has no label. Class 0 is the background.
    """

    id: str
    sha256: str = ""
    label: int | None = None


@dataclass(frozen=True)
class Calibration:
    """The representative dataset that activation ranges are measured on, or a range table that replaces it.

    Attributes:
        kind: `folder`, `tfrecord`, the full name of a TFDS data set, `procedural`, `ranges` (a range table), or `given`
            (a user-supplied INT8 file, whose calibration is unknown).
        pictures: the images in reading order; empty for `ranges` and `given`.
        mantissa_bits: precision that ranges are rounded to, so that floating-point differences between CPUs rarely
            change a range.
        ranges_sha256: digest of the range table; empty if ranges are measured.
        range_method: how a range is chosen from the measured values, spelled as in `range_methods`; with a range
            table, the method recorded in it; empty if unknown.
    """

    kind: str
    pictures: tuple[Picture, ...] = ()
    mantissa_bits: int = 10
    ranges_sha256: str = ""
    range_method: str = MIN_MAX

    @property
    def cuts_outliers(self) -> bool:
        """Whether the range method is known to exclude some of the measured values."""
        return self.range_method not in (MIN_MAX, "")


@dataclass(frozen=True)
class Evaluation:
    """The images that accuracy is measured on.

    Attributes:
        kind: as in `Calibration`, except `ranges`.
        pictures: the images in reading order; images known to be in the representative dataset are excluded.
        overlap: number of images excluded for that reason; None if the representative dataset is unknown.
    """

    kind: str
    pictures: tuple[Picture, ...] = ()
    overlap: int | None = 0


class Optimization(Enum):
    """What Vela optimizes for. The values are those of Vela's own option."""

    SPEED = "Performance"
    SIZE = "Size"

    @property
    def word(self) -> str:
        """The value of `--optimize`."""
        return self.name.lower()


@dataclass(frozen=True)
class Target:
    """One Ethos-U configuration.

    Attributes:
        accelerator: Vela's accelerator name, such as `ethos-u55-128`.
        system_config: section of the Vela configuration file that describes the system.
        memory_mode: section of the Vela configuration file that describes the memory mode.
        optimize: what Vela optimizes for.
        config_sha256: digest of the user's Vela configuration file; empty for Vela's own `Arm/vela.ini`.
    """

    accelerator: str
    system_config: str
    memory_mode: str
    optimize: Optimization = field(default=Optimization.SPEED, metadata={"json": "optimise"})  # as Vela spells it
    config_sha256: str = field(default="", metadata=_OMIT_IF_EMPTY)

    @classmethod
    def from_json(cls, value: Json) -> Target:
        """Parse what `as_json` returns.

        Raises:
            TypeError, KeyError, ValueError: the value is not that of a target.
        """
        rest = dict(value)
        return cls(optimize=Optimization(rest.pop("optimise")), **rest)


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the bytes of a build.

    Attributes:
        toolchain: version of the TensorFlow release that converts the archive's own frozen graph, as the publisher
            did; empty if the installed TensorFlow converts the graph that this program writes.
        given: stem of the user-supplied INT8 file that the build starts from; empty if the build makes its own model.
    """

    model: Model
    checkpoint: Checkpoint
    calibration: Calibration
    evaluation: Evaluation
    preprocess: Preprocess
    targets: tuple[Target, ...]
    toolchain: str = field(default="", metadata=_OMIT_IF_EMPTY)
    given: str = field(default="", metadata=_OMIT_IF_EMPTY)

    @property
    def network(self) -> str:
        """Name of the float network: the model's name, followed by the checkpoint's tag if it has one."""
        if self.given:
            return self.given
        return "_".join(part for part in (self.model.name, self.checkpoint.tag) if part)

    @property
    def name(self) -> str:
        """Stem of the INT8 model's file name; it contains the checkpoint's tag if there is one."""
        return self.given or f"{self.network}_INT8"

    @property
    def folder(self) -> str:
        """Name of the build folder. Builds that share `name` but may have different models get different folders."""
        if self.given:
            return f"{self.given}_given-{self.checkpoint.sha256[:8]}"
        return f"{self.name}_published" if self.toolchain else self.name

    @property
    def id(self) -> str:
        """SHA-256 of the whole recipe: equal ids mean equal artifacts."""
        return digest_json(as_json(self))

    @property
    def model_id(self) -> str:
        """SHA-256 of the parts that determine the INT8 model: equal ids mean equal models."""
        parts = [as_json(part) for part in (self.model, self.checkpoint, self.calibration, self.preprocess)]
        return digest_json([*parts, self.toolchain] if self.toolchain else parts)


def as_json(value: object) -> Json:
    """Return a recipe, or a part of one, as the plain JSON value that parsing its JSON text would give."""
    if isinstance(value, tuple):
        return [as_json(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {
            part.metadata.get("json", part.name): as_json(getattr(value, part.name))
            for part in dataclasses.fields(value)
            if getattr(value, part.name) or "omit_if_empty" not in part.metadata
        }
    return value.value if isinstance(value, Enum) else value

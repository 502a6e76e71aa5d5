"""Recipes: frozen values that say what to build. They hold digests and never paths, clocks or hosts.

Not for: where things lie on this machine (that is `pipeline.request.resolve`), or how a step is done (the stages).
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field

from recreate_model.support.digest import Json, digest_json
from recreate_model.support.errors import UsageError

# The published family: mobilenet_v2_{1.4,1.3,1.0,0.75,0.5,0.35}_{224,192,160,128,96}, the two widest only at 224.
_WIDTHS = ("1.4", "1.3", "1.0", "0.75", "0.5", "0.35")
_WIDEST = ("1.4", "1.3")
_RESOLUTIONS = (224, 192, 160, 128, 96)

# A field that a recipe's JSON leaves out where it is empty, so that recipes without it keep their ids.
_LEFT_OUT_WHERE_EMPTY = {"left_out_where_empty": True}

# The forms of float weights, as they are told: `float_forms` knows them by content.
ARCHIVE = "archive"
FROZEN_GRAPH = "frozen graph"
TFLITE = "float TensorFlow Lite model"
KERAS_FILE = "Keras file"
SAVED_MODEL = "SavedModel"
FORMS = (FROZEN_GRAPH, TFLITE, KERAS_FILE, SAVED_MODEL)

# The range of an activation is what it reached: the default, and the only method whose bytes are claimed.
MIN_MAX = "min-max"


@dataclass(frozen=True)
class Model:
    """One member of the MobileNetV2 family.

    Attributes:
        width: the width multiplier as the published names spell it, such as "1.0"; empty for a given file, which may
            be any network.
        resolution: height and width of the input in pixels; 0 for a given file that takes no picture.
    """

    width: str = "1.0"
    resolution: int = 224

    @property
    def name(self) -> str:
        return f"mobilenet_v2_{self.width}_{self.resolution}"

    @classmethod
    def family(cls) -> tuple[Model, ...]:
        """All 22 members."""
        sizes = {width: _RESOLUTIONS[:1] if width in _WIDEST else _RESOLUTIONS for width in _WIDTHS}
        return tuple(cls(width, resolution) for width, all_sizes in sizes.items() for resolution in all_sizes)

    @classmethod
    def parse(cls, text: str) -> Model:
        """`1.0_224`, with or without the family's name in front. Raises UsageError for anything outside the family."""
        match = re.fullmatch(r"(?:mobilenet_v2_)?(\d\.\d+)_(\d+)", text)
        if match and (model := cls(match[1], int(match[2]))) in cls.family():
            return model
        raise UsageError(
            expected=f"a model of the family: width one of {', '.join(_WIDTHS)}, resolution one of "
            f"{', '.join(map(str, _RESOLUTIONS))} ({' and '.join(_WIDEST)} only at {_RESOLUTIONS[0]})",
            found=f"{text!r}",
            next_step="give --model 1.0_224",
        )


@dataclass(frozen=True)
class Checkpoint:
    """Where the float weights come from, by content.

    Attributes:
        kind: `official` (the pinned archive), `archive` (another archive of the same layout), `file` (such floats
            in another form), `seeded`, or `given`: no float weights, but an INT8 file.
        sha256: of the archive or file, or over the files of a folder; empty for seeded weights.
        seed: of the seeded weights; 0 for an archive.
        form: of a `file`, one of FORMS; else empty.
        background: SHA-256 of the INT8 model whose class 0 a `file` without one gets; empty where none is given.
    """

    kind: str
    sha256: str = ""
    seed: int = 0
    form: str = field(default="", metadata=_LEFT_OUT_WHERE_EMPTY)
    background: str = field(default="", metadata=_LEFT_OUT_WHERE_EMPTY)

    @property
    def tag(self) -> str:
        """What distinguishes file names of this checkpoint: nothing for the official one, as it is the one meant."""
        local = f"ckpt-{self.sha256[:8]}" + (f"-{self.background[:8]}" if self.background else "")
        return {"official": "", "seeded": "seeded", "given": "given", "archive": local, "file": local}[self.kind]


@dataclass(frozen=True)
class Preprocess:
    """From a decoded picture to the network's input: crop, resize, then scale 0..255 to -1..1.

    Attributes:
        crop: `central-crop` keeps the aspect and takes a central square of 87.5 % of the shorter side, as TF-Slim's
            VGG evaluation does; `inception` takes 87.5 % of each side and changes the aspect, as TF-Slim's Inception
            evaluation does; `squash` takes it all and changes the aspect, as the published recipe does.
    """

    crop: str = "central-crop"

    CROPS = ("central-crop", "inception", "squash")


@dataclass(frozen=True)
class Picture:
    """A picture by name and content.

    Attributes:
        id: path below the source's root, with forward slashes; of a data set's picture the name it has there.
        sha256: of the file's bytes; for procedural pictures of the pixels, and empty until they are made.
        label: 1..1000, or None where the source knows none. 0 is the background class.
    """

    id: str
    sha256: str = ""
    label: int | None = None


@dataclass(frozen=True)
class Calibration:
    """What the activation ranges are measured on, or the range table given instead.

    Attributes:
        kind: `folder`, `tfrecord`, the full name of a TFDS data set, `procedural`, `ranges`, or `given`, of which
            nothing is known.
        pictures: in the order they are read; empty for `ranges`.
        mantissa_bits: to which the ranges are rounded, so that noise between CPUs rarely shows.
        ranges_sha256: of the range table given; empty when ranges are measured.
        range_method: how a range is chosen from what was measured, as `range_methods` spells it; that of
            the table where one is given, empty where nobody knows it.
    """

    kind: str
    pictures: tuple[Picture, ...] = ()
    mantissa_bits: int = 10
    ranges_sha256: str = ""
    range_method: str = MIN_MAX

    @property
    def cuts_outliers(self) -> bool:
        """Whether it is known that the ranges do not hold all values measured."""
        return self.range_method not in (MIN_MAX, "")


@dataclass(frozen=True)
class Evaluation:
    """The pictures accuracy is measured on.

    Attributes:
        kind: as that of `Calibration`, but for `ranges`.
        pictures: in order; none of them calibrated, as far as is known.
        overlap: how many were left out because they calibrated; None where nobody knows what did.
    """

    kind: str
    pictures: tuple[Picture, ...] = ()
    overlap: int | None = 0


@dataclass(frozen=True)
class Target:
    """One Ethos-U configuration, named as Vela and its configuration file name them.

    Attributes:
        optimise: `Performance` or `Size`.
        config_sha256: of the user's configuration file that has these names; empty for Vela's own `Arm/vela.ini`.
    """

    accelerator: str
    system_config: str
    memory_mode: str
    optimise: str = "Performance"
    config_sha256: str = field(default="", metadata=_LEFT_OUT_WHERE_EMPTY)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the bytes of a build.

    Attributes:
        toolchain: version of the TensorFlow that converts the archive's own frozen graph, as the publisher's did; empty
            where today's converts the graph that this program writes.
        given: stem of the INT8 file that the build starts from; empty where the build makes its own model.
    """

    model: Model
    checkpoint: Checkpoint
    calibration: Calibration
    evaluation: Evaluation
    preprocess: Preprocess
    targets: tuple[Target, ...]
    toolchain: str = field(default="", metadata=_LEFT_OUT_WHERE_EMPTY)
    given: str = field(default="", metadata=_LEFT_OUT_WHERE_EMPTY)

    @property
    def network(self) -> str:
        """Name of the float network: the model, and the checkpoint unless it is the official one."""
        if self.given:
            return self.given
        return "_".join(part for part in (self.model.name, self.checkpoint.tag) if part)

    @property
    def name(self) -> str:
        """Stem of the model's file; a seeded or local checkpoint shows in it."""
        return self.given or f"{self.network}_INT8"

    @property
    def folder(self) -> str:
        """Name of the build folder: builds whose models may differ under one name have folders of their own."""
        if self.given:
            return f"{self.given}_given-{self.checkpoint.sha256[:8]}"
        return f"{self.name}_published" if self.toolchain else self.name

    @property
    def id(self) -> str:
        """SHA-256 over the whole recipe: equal ids mean equal artifacts."""
        return digest_json(as_json(self))

    @property
    def model_id(self) -> str:
        """SHA-256 over the parts that decide the INT8 model: equal ids mean equal models."""
        parts = [as_json(part) for part in (self.model, self.checkpoint, self.calibration, self.preprocess)]
        return digest_json([*parts, self.toolchain] if self.toolchain else parts)


def as_json(value: object) -> Json:
    """A recipe, or a part of one, as plain JSON: what reading its JSON text would give."""
    if isinstance(value, tuple):
        return [as_json(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {
            part.name: as_json(getattr(value, part.name))
            for part in dataclasses.fields(value)
            if getattr(value, part.name) or "left_out_where_empty" not in part.metadata
        }
    return value

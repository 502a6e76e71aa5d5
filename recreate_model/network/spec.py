"""What identifies a family of networks and its published model: names, pins, operators, classes, input scaling.

Nothing else in the project states them. To add a family, add a `Spec` here, a module with its layers and its graph
beside `mobilenet_v2`, and its row in `networks`; CONTRIBUTING.md has the steps.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from recreate_model.support.errors import UsageError
from recreate_model.support.resources import Resource


@dataclass(frozen=True)
class Published:
    """A published INT8 model of the family, and the files around it.

    Attributes:
        width, resolution: of the member of the family.
        sha1, size: of the model; the size in bytes.
        toolchain: version of the TensorFlow that converted it, found by its traces in the file.
        operators: of the model in order, without repetitions.
        input_quantization, output_quantization: as `verify` spells them.
        model, input, output: the model and its test vector: int8 input and expected int8 output, as `.npy`.
    """

    width: str
    resolution: int
    sha1: str
    size: int
    toolchain: str
    operators: tuple[str, ...]
    input_quantization: str
    output_quantization: str
    model: Resource
    input: Resource
    output: Resource

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(1, height, width, 3)."""
        return (1, self.resolution, self.resolution, 3)


@dataclass(frozen=True)
class Spec:
    """A family of networks.

    Attributes:
        prefix: how the names of its members begin.
        title: as a card spells it.
        description: first sentence of a card.
        paper: address of the paper.
        scope: under which the graph has its nodes.
        widths, resolutions: of the members; those of `widest` exist at the first resolution only.
        classes: number of scores: ImageNet's classes and the background, which is class 0.
        input_name, output_name: of the float graph.
        int8_input_name, int8_output_name: of the INT8 model, as the published one has them.
        input_half_range: a pixel of 0..255 becomes `pixel / input_half_range - 1`, -1..1.
        archives: the pinned official checkpoints; the name of each is that of its member.
        published: the model that the card is about.
    """

    prefix: str
    title: str
    description: str
    paper: str
    scope: str
    widths: tuple[str, ...]
    widest: tuple[str, ...]
    resolutions: tuple[int, ...]
    classes: int
    input_name: str
    output_name: str
    int8_input_name: str
    int8_output_name: str
    input_half_range: float
    archives: tuple[Resource, ...]
    published: Published


_ZOO = (
    "https://github.com/ARM-software/ML-zoo/raw/e0aa361b03c738047b9147d1a50e3f2dcb13dbcb/models/image_classification/"
    "mobilenet_v2_1.0_224/tflite_int8/"
)

MOBILENET_V2 = Spec(
    prefix="mobilenet_v2",
    title="MobileNet v2",
    description="INT8 quantised version of MobileNet v2 model.",
    paper="https://arxiv.org/pdf/1801.04381.pdf",
    scope="MobilenetV2",
    widths=("1.4", "1.3", "1.0", "0.75", "0.5", "0.35"),
    widest=("1.4", "1.3"),
    resolutions=(224, 192, 160, 128, 96),
    classes=1001,
    input_name="input",
    output_name="MobilenetV2/Predictions/Reshape_1",
    int8_input_name="tfl.quantize",
    int8_output_name="MobilenetV2/Predictions/Reshape_11",
    input_half_range=127.5,
    archives=(
        Resource(
            name="mobilenet_v2_1.0_224",
            file_name="mobilenet_v2_1.0_224.tgz",
            size=78_306_834,
            sha256="318084bc1b63d6d7b854553e09cdf77078b1c0168be27c59a0d44253b5ed49dc",
            urls=("https://storage.googleapis.com/mobilenet_v2/checkpoints/mobilenet_v2_1.0_224.tgz",),
            instead="--checkpoint PATH with an archive you have, or --checkpoint seeded",
        ),
    ),
    published=Published(
        width="1.0",
        resolution=224,
        sha1="8de7996dfeadb5ab6f09e3114f3905fd03879eee",
        size=4_020_936,
        toolchain="2.5.0",
        operators=("ADD", "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "RESHAPE", "SOFTMAX"),
        input_quantization="scale 0.007843137718737125, zero point -1",
        # A softmax is at most 1, so this does not depend on the calibration pictures.
        output_quantization="scale 0.00390625, zero point -128",
        model=Resource(
            name="published-model",
            file_name="mobilenet_v2_1.0_224_INT8.tflite",
            size=4_020_936,
            sha256="bd8d56b80557a5fca7acf14f61e5339285c02810f7d7afa714b9763fc4b86e95",
            urls=(_ZOO + "mobilenet_v2_1.0_224_INT8.tflite",),
        ),
        input=Resource(
            name="published-input",
            file_name="mobilenet_v2_1.0_224_INT8_input.npy",
            size=150_656,
            sha256="454b7a6fea8ed14e236e831f1d77114a476a348fbbfab2dce5341d7e9e17cc64",
            urls=(_ZOO + "testing_input/tfl.quantize/0.npy",),
        ),
        output=Resource(
            name="published-output",
            file_name="mobilenet_v2_1.0_224_INT8_output.npy",
            size=1_129,
            sha256="f1b5d4fce5a6f8ddaf13352229cd862285f6cd0d48b17a7d11ec5881ba499ae7",
            urls=(_ZOO + "testing_output/MobilenetV2/Predictions/Reshape_11/0.npy",),
        ),
    ),
)
_PUBLISHED = MOBILENET_V2.published
_PUBLISHED_FILES = (_PUBLISHED.model, _PUBLISHED.input, _PUBLISHED.output)
# Every pinned file by its name.
RESOURCES: dict[str, Resource] = {resource.name: resource for resource in (*MOBILENET_V2.archives, *_PUBLISHED_FILES)}


@dataclass(frozen=True)
class Model:
    """One member of a family.

    Attributes:
        width: width multiplier, spelled as in the published names, such as "1.0"; empty for a user-supplied INT8 file,
            which may be any network.
        resolution: height and width of the input in pixels; 0 for a user-supplied INT8 file whose input is no image.
    """

    width: str = "1.0"
    resolution: int = 224

    @property
    def spec(self) -> Spec:
        """The family that the model is a member of. There is one so far."""
        return MOBILENET_V2

    @property
    def name(self) -> str:
        """The published name, such as `mobilenet_v2_1.0_224`."""
        return f"{self.spec.prefix}_{self.width}_{self.resolution}"

    @classmethod
    def family(cls) -> tuple[Model, ...]:
        """Return all 22 members."""
        spec = MOBILENET_V2
        sizes = {width: spec.resolutions[:1] if width in spec.widest else spec.resolutions for width in spec.widths}
        return tuple(cls(width, resolution) for width, all_sizes in sizes.items() for resolution in all_sizes)

    @classmethod
    def parse(cls, text: str) -> Model:
        """Parse `1.0_224` or `mobilenet_v2_1.0_224`.

        Raises:
            UsageError: the text names no member of the family.
        """
        spec = MOBILENET_V2
        match = re.fullmatch(rf"(?:{re.escape(spec.prefix)}_)?(\d\.\d+)_(\d+)", text)
        if match and (model := cls(match[1], int(match[2]))) in cls.family():
            return model
        names = [f"{model.width}_{model.resolution}" for model in cls.family()]
        nearest = difflib.get_close_matches(text.removeprefix(f"{spec.prefix}_"), names, n=1)
        raise UsageError(
            expected=f"a model of the family: width one of {', '.join(spec.widths)}, resolution one of "
            f"{', '.join(map(str, spec.resolutions))} ({' and '.join(spec.widest)} only at {spec.resolutions[0]})",
            found=f"{text!r}",
            next_step=f"give --model {nearest[0] if nearest else '1.0_224'}",
        )


PUBLISHED_MODEL = Model(_PUBLISHED.width, _PUBLISHED.resolution)

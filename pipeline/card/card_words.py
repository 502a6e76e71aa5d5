"""The sentences of the model card: what the model is, where it comes from, and what a reader must know first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recreate_model.network.labels import IMAGENET_CLASSES
from recreate_model.network.spec import MOBILENET_V2, PUBLISHED_MODEL, Model
from recreate_model.recipe import Recipe
from recreate_model.support.digest import digest_bytes
from recreate_model.tflite.full_integer import picture_size
from recreate_model.tflite.model_view import ModelView, Tensor

_SPEC = MOBILENET_V2
_IDENTICAL = f"It is the published {PUBLISHED_MODEL.name}_INT8, byte for byte."


@dataclass(frozen=True)
class Words:
    """The words of one card.

    Attributes:
        title: of the whole card.
        warning: the first line of the card; empty for none.
        terms: what follows the name of the license.
        origin: how the model was made.
        labels, code: paragraphs on the class labels, and on the code that made the model.
        paper: address of the paper on the network; empty if the network is not known.
    """

    title: str
    warning: str
    description: str
    terms: str
    origin: str
    labels: str
    code: str
    paper: str


def words_of(recipe: Recipe, model: bytes, tools: Mapping[str, str], labeled: bool, conversion: str = "") -> Words:
    """The words for a model.

    Args:
        model: the bytes of the INT8 model.
        tools: name -> version of the tools that made the model.
        labeled: whether labels.txt is beside the card.
        conversion: how a pinned toolchain converted the checkpoint; empty if the installed one did.
    """
    labels = (
        "The class labels associated with this model are in [labels.txt](labels.txt); the script `get_class_labels.sh` "
        "of the recreation code writes them too."
        if labeled
        else "No labels fit the classes of this model."
    )
    if recipe.given:
        return _of_given(recipe, model, tools, labels)
    how = " --recipe published" * bool(recipe.toolchain)
    description, warning = _description_and_warning(recipe)
    if digest_bytes(model, "sha1") == _SPEC.published.sha1:
        description, warning = f"{_SPEC.description} Trained on ImageNet.", f"{warning} {_IDENTICAL}".strip()
    return Words(
        title=_title(recipe.model),
        warning=warning,
        description=description,
        terms=f" for the code; the terms of the {_file(recipe)}'s weights are theirs"
        * (recipe.checkpoint.kind in ("archive", "file")),
        origin=_origin(recipe, tools, conversion),
        labels=labels,
        code=f"This model was made by `python -m pipeline all{how}` of the project this card comes from; the code is "
        "in its `recreate_model/`.",
        paper=_SPEC.paper,
    )


def _of_given(recipe: Recipe, model: bytes, tools: Mapping[str, str], labels: str) -> Words:
    published = digest_bytes(model, "sha1") == _SPEC.published.sha1
    warning = f"Given, SHA-256 {recipe.checkpoint.sha256}: the model was not built here."
    description = "A full-integer INT8 model. How it was trained and quantized is not known to this build."
    if published:
        warning += f" {_IDENTICAL}"
        description = f"{_SPEC.description} Trained on ImageNet."
    return Words(
        title=_title(PUBLISHED_MODEL) if published else f"{recipe.given}",
        warning=warning,
        description=description,
        terms=" for the code; the terms of the model are its owner's" * (not published),
        origin=f"Everything else in this folder was made from the model's bytes.{_made_with(tools)}",
        labels=labels,
        code="The files beside the model were made by `python -m pipeline all --of MODEL` of the project this card "
        "comes from; how such a model is made is in its `recreate_model/`.",
        paper=_SPEC.paper if published else "",
    )


def _title(model: Model) -> str:
    return f"{model.spec.title} {model.width} {model.resolution} INT8"


def _description_and_warning(recipe: Recipe) -> tuple[str, str]:
    """The description, and the warning unless the weights are the official ones."""
    checkpoint = recipe.checkpoint
    if checkpoint.kind == "official":
        return f"{_SPEC.description} Trained on ImageNet.", ""
    if checkpoint.kind == "seeded":
        warning = f"Seeded stand-in: weights drawn from seed {checkpoint.seed}, not the trained model."
        return f"{_SPEC.description} Not trained: for trying the pipeline only.", warning
    built = "an archive" if checkpoint.kind == "archive" else f"a {checkpoint.form}"
    official = "the official one" if checkpoint.kind == "archive" else "the official archive"
    warning = f"Built from {built} with SHA-256 {checkpoint.sha256}, not from {official}."
    return f"{_SPEC.description} How the {_file(recipe)}'s weights were trained is not known to this build.", warning


def _file(recipe: Recipe) -> str:
    """The kind of file that has the float weights."""
    return recipe.checkpoint.form or "archive"


def warnings_of(recipe: Recipe) -> list[str]:
    """Further warnings at the top of the card."""
    if recipe.calibration.kind == "procedural" and recipe.checkpoint.kind != "seeded":
        return ["Calibrated on procedural pictures, which resemble no photograph."]
    return []


def _origin(recipe: Recipe, tools: Mapping[str, str], conversion: str) -> str:
    checkpoint, calibration = recipe.checkpoint, recipe.calibration
    weights = (
        f"the {_file(recipe)} with SHA-256 `{checkpoint.sha256}`" if checkpoint.sha256 else f"seed {checkpoint.seed}"
    )
    ranges = f"from the table with SHA-256 `{calibration.ranges_sha256}`"
    if calibration.kind != "ranges":
        pictures = f"{len(calibration.pictures)} {'procedural ' * (calibration.kind == 'procedural')}pictures"
        ranges = f"measured on {pictures}, rounded to {calibration.mantissa_bits} mantissa bits"
    if calibration.cuts_outliers:
        ranges += f", outliers cut off by the method {calibration.range_method}"
    if recipe.toolchain:
        ranges += ", which were recovered from the published file"
    converted = f" Converted {conversion}." if conversion else ""
    quantized = f"Float weights from {weights}, quantized after training. Activation ranges {ranges}."
    return f"{quantized}{converted}{_made_with(tools)}"


def _made_with(tools: Mapping[str, str]) -> str:
    return f" Made with {', '.join(f'{name} {tools[name]}' for name in sorted(tools))}." if tools else ""


def description_of(view: ModelView, tensor: Tensor, recipe: Recipe) -> str:
    """What an input or an output of the model is."""
    if tensor is view.input and (size := picture_size(view)):
        return f"Single {size}x{size} RGB image with INT8 values between -128 and 127"
    if tensor is view.output and (
        not recipe.given or tensor.shape in ((1, IMAGENET_CLASSES), (1, IMAGENET_CLASSES + 1))
    ):
        return f"Per-class confidence for {tensor.shape[1]} ImageNet classes"
    return "INT8 values between -128 and 127"

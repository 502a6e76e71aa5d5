"""A build that starts from a given INT8 file, `--of MODEL`: its recipe, and the options that do not apply to it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pipeline.engine.work import Work
from pipeline.request.request import OPTIONS, flag
from recreate_model.network.labels import IMAGENET_CLASSES
from recreate_model.network.spec import Model
from recreate_model.recipe import Calibration, Checkpoint, Evaluation, Preprocess, Recipe
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import InputError, UsageError
from recreate_model.tflite.full_integer import check_full_integer, described, picture_fault, picture_size
from recreate_model.tflite.model_view import ModelView, read_file, read_model


def given_recipe(path: Path) -> Recipe:
    """The recipe of a build that starts from the file, without pictures and targets.

    Raises:
        InputError: the file does not exist, or is not a full-integer INT8 model.
    """
    data = read_file(path)
    view = read_model(data, path.name)
    check_full_integer(view, path.name)
    stem = path.stem if path.suffix.lower() == ".tflite" else path.name
    if not stem.isprintable():
        raise InputError(
            expected="--of to name a file with a printable name", found=ascii(path.name), next_step="rename it"
        )
    return Recipe(
        Model("", picture_size(view)),
        Checkpoint("given", digest_bytes(data)),
        Calibration("given", mantissa_bits=0, range_method=""),
        Evaluation(""),
        Preprocess(),
        (),
        given=stem,
    )


def check_options(command: str, names: Collection[str], making: Collection[str]) -> None:
    """Refuses options and commands that make a model, if `--of` gives one.

    Args:
        command: the command that was typed.
        names: of the options that were typed, as a request names them.
        making: the commands that make models.

    Raises:
        UsageError: `--of` was typed beside one of them.
    """
    if "of" not in names:
        return
    if command in making:
        raise UsageError(
            expected=f"`{command}` without --of, as a given model is not made here",
            found="--of",
            next_step="give --of to `all`, or to a command that works on a model, such as `vela`",
        )
    if found := [flag(name) for name, option in OPTIONS.items() if option.makes_model and name in names]:
        raise UsageError(
            expected="no options that decide how a model is made beside --of",
            found=", ".join(found),
            next_step="leave them out, or --of",
        )


def check_pictures(work: Work) -> None:
    """Raises InputError if a given model does not take a picture as this program prepares it."""
    if work.recipe.given and (found := picture_fault(read_model(work.model))):
        raise InputError(
            expected="one input, a square RGB picture with values from -1 to 1",
            found=found,
            next_step="give a model that takes such pictures",
        )


def check_classes(view: ModelView) -> int:
    """Number of classes of a given classifier: ImageNet's 1000, or one more if the first is the background.

    Raises:
        InputError: the model has another output.
    """
    if len(view.outputs) != 1 or view.output.shape not in ((1, IMAGENET_CLASSES), (1, IMAGENET_CLASSES + 1)):
        raise InputError(
            expected=f"one score for each of ImageNet's {IMAGENET_CLASSES} classes, or one more for the background",
            found=described(view, view.outputs),
            next_step="give an ImageNet classifier",
        )
    return view.output.shape[1]

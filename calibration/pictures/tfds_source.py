"""Opens TFDS data sets by name. TensorFlow Datasets finds the prepared files; the records are read without it."""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

from calibration.pictures.record_index import Features
from calibration.pictures.records import RecordSet
from calibration.pictures.shards import choose_split
from recreate_model.support.capture import captured
from recreate_model.support.errors import InputError

PREFIX = "tfds:"
# NAME, NAME/CONFIG, NAME:VERSION, NAME/CONFIG:VERSION. Unlike in TFDS, builder arguments are not accepted.
_NAME = re.compile(r"(?P<name>\w+)(?:/(?P<config>[\w.+-]+))?(?::(?P<version>[\d.*]+))?")
_EVALUATED = ("validation", "test")
_FORMAT = "tfrecord"
_FILE_NAME = "file_name"
_DEFAULT_FOLDER = "~/tensorflow_datasets"


def find_records(wanted: str, split: str | None) -> RecordSet:
    """Finds the records of `tfds:NAME[/CONFIG][:VERSION]` in TFDS_DATA_DIR or TFDS's default folder.

    Args:
        wanted: the data set, with the prefix `tfds:`.
        split: name of the split; None for the only one, or else the validation or test split.

    Raises:
        InputError: the data set is unknown, not prepared, prepared in another format, does not have the split, or does
            not consist of pictures.
    """
    match = _NAME.fullmatch(wanted.removeprefix(PREFIX))
    if match is None:
        raise InputError(
            expected="--images tfds:NAME, tfds:NAME/CONFIG or tfds:NAME/CONFIG:VERSION",
            found=wanted,
            next_step="give a name such as tfds:imagenet2012 or tfds:imagenet_v2/matched-frequency:3.0.0",
        )
    # TFDS, and TensorFlow which it imports, print warnings that do not concern the user.
    with captured():
        return _record_set(_builder(match), split)


def _builder(match: re.Match[str]) -> Any:
    import tensorflow_datasets as tfds

    wanted = match[0]
    # Without `data_dir`, TFDS also searches the folders that the user has registered.
    folder = {"data_dir": named} if (named := os.environ.get("TFDS_DATA_DIR")) else {}
    try:
        return tfds.builder(wanted, **folder)
    except tfds.core.DatasetNotFoundError as error:
        known = set(tfds.list_builders(with_community_datasets=False))  # the list has duplicates
        close = difflib.get_close_matches(match["name"], sorted(known))
        raise InputError(
            expected=f"{PREFIX}{wanted} to be a data set that TFDS knows, or one in {named or _DEFAULT_FOLDER}",
            found=f"no {wanted}",
            next_step=f"did you mean {' or '.join(close)}?" if close else "correct its name, or set TFDS_DATA_DIR",
        ) from error
    except Exception as error:  # TFDS raises ValueError, AssertionError and others
        raise InputError(
            expected=f"TFDS to open {PREFIX}{wanted}",
            found=str(error).strip().partition("\n")[0].rpartition('}": ')[2] or type(error).__name__,
            next_step=_choices(match)
            or f"restore its folder, or remove the folder and run {_prepare(wanted, named or _DEFAULT_FOLDER)}",
        ) from error


def _choices(match: re.Match[str]) -> str:
    """The next step for an unknown config or version: the ones that exist. Empty if both are known."""
    import tensorflow_datasets as tfds

    try:
        known = tfds.builder_cls(match["name"])
    except tfds.core.DatasetNotFoundError:
        return ""
    configs = [config.name for config in known.BUILDER_CONFIGS]
    versions = [str(version) for version in (known.VERSION, *known.SUPPORTED_VERSIONS) if version]
    if match["config"] in (None, *configs) and match["version"] in (None, *versions):
        return ""
    return f"give one of the configs {', '.join(configs) or '(none)'} and the versions {', '.join(versions)}"


def _record_set(builder: Any, split: str | None) -> RecordSet:
    info = builder.info
    name = f"{PREFIX}{info.full_name.rpartition('/')[0]}:{builder.version}"
    if not info.splits:
        raise _unprepared(builder, name)
    if info.file_format.value != _FORMAT:
        raise InputError(
            expected=f"{name} to be prepared as {_FORMAT}",
            found=f"{info.file_format.value} in {builder.data_dir}",
            next_step=f"prepare it in another folder and set TFDS_DATA_DIR to it: {_prepare(name, 'FOLDER')}",
        )
    chosen = choose_split(list(info.splits), split, _EVALUATED, name)
    split_info = info.splits[chosen]
    # Absolute, as the workers of a cluster have another current folder.
    files = tuple(Path(path).absolute() for path in split_info.filepaths)
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise InputError(
            expected=f"{name} to have all {len(files)} shards of {chosen}",
            found=f"no {missing[0]}",
            next_step=f"restore it, or remove {builder.data_dir} and run {_prepare(name, builder.data_dir_root)}",
        )
    features, class_names = _features(info.features, name)
    kind = f"{name}/{chosen}"
    return RecordSet(kind, kind, files, features, class_names, tuple(split_info.shard_lengths))


def _features(found: Any, name: str) -> tuple[Features, tuple[str, ...]]:
    """The names of the features for picture, class and file name, found by their types, and the class names."""
    import tensorflow_datasets as tfds

    types = tfds.features
    images = [
        key
        for key, feature in found.items()
        if isinstance(feature, types.Image) and not isinstance(feature, types.LabeledImage)
    ]
    if len(images) != 1:
        raise InputError(
            expected=f"{name} to have one picture in each example",
            # TFDS does not keep them in a fixed order.
            found=", ".join(sorted(images)) if images else f"none among {', '.join(sorted(found))}",
            next_step="give a data set of classified pictures, such as tfds:imagenet2012",
        )
    labels = [key for key, feature in found.items() if isinstance(feature, types.ClassLabel)]
    # With several labels, it is not known which one is the class of the picture.
    label = labels[0] if len(labels) == 1 else ""
    file_name = _FILE_NAME if _FILE_NAME in found and isinstance(found[_FILE_NAME], types.Text) else ""
    return Features(images[0], label, file_name), tuple(found[label].names) if label else ()


def _unprepared(builder: Any, name: str) -> InputError:
    steps = _prepare(name, builder.data_dir_root)
    if instructions := builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        manual = Path(builder.data_dir_root) / "downloads" / "manual"
        summary = " ".join(instructions.split())[:300]
        steps = f"put the files that TFDS needs into {manual} ({summary}), then run {steps}"
    here = Path(builder.data_dir)
    versions = sorted(path.name for path in here.parent.glob("[0-9]*.[0-9]*.[0-9]*") if path != here)
    return InputError(
        expected=f"{name} to be prepared in {builder.data_dir_root}",
        found=f"version {', '.join(versions)} there" if versions else "no complete version there",
        next_step=steps,
    )


def _prepare(name: str, folder: os.PathLike[str] | str) -> str:
    """The command that prepares a data set. `tfds build` is not used, as it always needs Apache Beam."""
    arguments = f"{json.dumps(name.removeprefix(PREFIX))}, data_dir={json.dumps(os.fspath(folder))}"
    code = f"import tensorflow_datasets as tfds; tfds.builder({arguments}).download_and_prepare()"
    return f"python -c {shlex.quote(code)}"

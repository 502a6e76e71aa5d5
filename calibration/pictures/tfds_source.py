"""TFDS data sets by name. TensorFlow Datasets says what is prepared and where; the records are read without it."""

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
# NAME, NAME/CONFIG, NAME:VERSION, NAME/CONFIG:VERSION. TFDS takes arguments for its builders too; we do not.
_NAME = re.compile(r"(?P<name>\w+)(?:/(?P<config>[\w.+-]+))?(?::(?P<version>[\d.*]+))?")
_EVALUATED = ("validation", "test")
_FORMAT = "tfrecord"
_NAMED = "file_name"
_DEFAULT_FOLDER = "~/tensorflow_datasets"


def find_records(wanted: str, split: str | None) -> RecordSet:
    """The records of `tfds:NAME[/CONFIG][:VERSION]`, below TFDS_DATA_DIR or TFDS's own folder.

    Raises:
        InputError: unknown, not prepared, prepared in another format, without that split, or not of pictures.
    """
    match = _NAME.fullmatch(wanted.removeprefix(PREFIX))
    if match is None:
        raise InputError(
            expected="--images tfds:NAME, tfds:NAME/CONFIG or tfds:NAME/CONFIG:VERSION",
            found=wanted,
            next_step="give it as tfds:imagenet2012 or tfds:imagenet_v2/matched-frequency:3.0.0",
        )
    # It warns of much that is no concern here, and TensorFlow, which it loads, writes to the terminal.
    with captured():
        return _described(_builder(match), split)


def _builder(match: re.Match[str]) -> Any:
    import tensorflow_datasets as tfds

    wanted = match[0]
    # Without one TFDS also looks into the folders a user has registered with it.
    folder = {"data_dir": named} if (named := os.environ.get("TFDS_DATA_DIR")) else {}
    try:
        return tfds.builder(wanted, **folder)
    except tfds.core.DatasetNotFoundError as error:
        known = set(tfds.list_builders(with_community_datasets=False))  # some stand there twice
        close = difflib.get_close_matches(match["name"], sorted(known))
        raise InputError(
            expected=f"{PREFIX}{wanted} to be a data set TFDS knows, or one in {named or _DEFAULT_FOLDER}",
            found=f"no {wanted}",
            next_step=f"did you mean {' or '.join(close)}?" if close else "correct its name, or set TFDS_DATA_DIR",
        ) from error
    except Exception as error:  # ValueError, AssertionError and others, for what it does not like
        raise InputError(
            expected=f"TFDS to open {PREFIX}{wanted}",
            found=str(error).strip().partition("\n")[0].rpartition('}": ')[2] or type(error).__name__,
            next_step=_choices(match)
            or f"restore its folder, or remove it and run {_prepare(wanted, named or _DEFAULT_FOLDER)}",
        ) from error


def _choices(match: re.Match[str]) -> str:
    """The configs and versions there are, where one was asked for that is not; else nothing."""
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


def _described(builder: Any, split: str | None) -> RecordSet:
    info = builder.info
    name = f"{PREFIX}{info.full_name.rpartition('/')[0]}:{builder.version}"
    if not info.splits:
        raise _unprepared(builder, name)
    if info.file_format.value != _FORMAT:
        raise InputError(
            expected=f"{name} to be prepared as {_FORMAT}",
            found=f"{info.file_format.value} in {builder.data_dir}",
            next_step=f"prepare it in another folder, and name that in TFDS_DATA_DIR: {_prepare(name, 'FOLDER')}",
        )
    chosen = choose_split(list(info.splits), split, _EVALUATED, name)
    described = info.splits[chosen]
    # Workers of a cluster start elsewhere, where a relative path would mean another folder.
    files = tuple(Path(path).absolute() for path in described.filepaths)
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise InputError(
            expected=f"{name} to have all {len(files)} shards of {chosen}",
            found=f"no {missing[0]}",
            next_step=f"restore it, or remove {builder.data_dir} and run {_prepare(name, builder.data_dir_root)}",
        )
    features, class_names = _features(info.features, name)
    kind = f"{name}/{chosen}"
    return RecordSet(kind, kind, files, features, class_names, tuple(described.shard_lengths))


def _features(found: Any, name: str) -> tuple[Features, tuple[str, ...]]:
    """What the picture, its class and its file name are called, by their types, and the names of the classes."""
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
            # Sorted, as TFDS keeps them in no order.
            found=", ".join(sorted(images)) if images else f"none among {', '.join(sorted(found))}",
            next_step="give a data set of classified pictures, such as tfds:imagenet2012",
        )
    labels = [key for key, feature in found.items() if isinstance(feature, types.ClassLabel)]
    # Of several nobody knows which is meant.
    label = labels[0] if len(labels) == 1 else ""
    named = _NAMED if _NAMED in found and isinstance(found[_NAMED], types.Text) else ""
    return Features(images[0], label, named), tuple(found[label].names) if label else ()


def _unprepared(builder: Any, name: str) -> InputError:
    steps = _prepare(name, builder.data_dir_root)
    if asked := builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        manual = Path(builder.data_dir_root) / "downloads" / "manual"
        steps = f"put what TFDS asks for into {manual} ({' '.join(asked.split())[:300]}), then run {steps}"
    here = Path(builder.data_dir)
    versions = sorted(path.name for path in here.parent.glob("[0-9]*.[0-9]*.[0-9]*") if path != here)
    return InputError(
        expected=f"{name} to be prepared in {builder.data_dir_root}",
        found=f"version {', '.join(versions)} there" if versions else "no whole version of it there",
        next_step=steps,
    )


def _prepare(name: str, folder: os.PathLike[str] | str) -> str:
    """The command that prepares a data set. `tfds build` would need Apache Beam, whatever it builds."""
    arguments = f"{json.dumps(name.removeprefix(PREFIX))}, data_dir={json.dumps(os.fspath(folder))}"
    code = f"import tensorflow_datasets as tfds; tfds.builder({arguments}).download_and_prepare()"
    return f"python -c {shlex.quote(code)}"

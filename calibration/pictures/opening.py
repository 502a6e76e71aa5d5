"""Opens the picture source that `--images` names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from absl import logging

from calibration.pictures import tfds_source
from calibration.pictures.folder import SUFFIXES, FolderSource, has_pictures
from calibration.pictures.record_index import SLIM, Bar, no_bar
from calibration.pictures.records import RecordSet, open_records
from calibration.pictures.shards import check_complete, choose_split, find_splits
from calibration.pictures.sources import StoredSource
from recreate_model.support.errors import UsageError

# The published recipe expects the validation set as data/validation_data/{val.txt,validation_images/*.JPEG}, or as
# TFRecords in data/validation_data/validation-*.
_PUBLISHED_LAYOUT = "validation_data"
_EVALUATED = ("validation",)


@dataclass(frozen=True)
class Reading:
    """Options for reading a source.

    Attributes:
        label_file: label file for a folder of pictures; None for `val.txt` in the folder, if there is one.
        label_base: number of the first class, 0 or 1; None to infer it.
        split: split of a data set; None for the only one, or the validation split.
    """

    label_file: Path | None = None
    label_base: int | None = None
    split: str | None = None


def open_source(images: str, reading: Reading, bar: Bar = no_bar) -> StoredSource:
    """Opens the source of `--images`: a TFDS data set, a file or folder of TFRecords, or a folder of pictures.

    The folder may also be the parent folder in the published recipe's layout. If a folder has both pictures and
    records, the pictures are used unless `reading` names a split.

    Args:
        images: the value of `--images`.
        bar: shows progress while records are listed.

    Raises:
        UsageError: an option does not apply to this kind of source.
        InputError: the source cannot be read.
    """
    if images.startswith(tfds_source.PREFIX):
        refuse(
            "a TFDS data set, which defines its own labels", labels=reading.label_file, label_base=reading.label_base
        )
        return open_records(tfds_source.find_records(images, reading.split), None, bar)
    if not images:  # such as an unset shell variable; a relative path would be the current folder
        raise UsageError(
            expected="--images to name pictures",
            found="an empty value",
            next_step="give a folder, tfds:NAME or procedural",
        )
    # Absolute, as the workers of a cluster have another current folder.
    root = Path(images).absolute()
    if (root / _PUBLISHED_LAYOUT).is_dir():
        root /= _PUBLISHED_LAYOUT
    if root.is_file() and not root.name.lower().endswith(SUFFIXES):
        refuse("a single file of records", labels=reading.label_file, split=reading.split)
        return open_records(RecordSet("tfrecord", str(root), (root,), SLIM), reading.label_base, bar)
    splits = find_splits(root) if root.is_dir() else {}
    if splits and reading.split is None and has_pictures(root):
        logging.warning(
            "%s has both pictures and TFRecords; using the pictures. For the records give --split %s",
            root,
            " or ".join(splits),
        )
        splits = {}
    if splits:
        refuse("TFRecords, which include their labels", labels=reading.label_file)
        split = choose_split(splits, reading.split, _EVALUATED, str(root))
        check_complete(splits[split])
        return open_records(RecordSet("tfrecord", str(root), splits[split], SLIM), reading.label_base, bar)
    if root.is_dir():
        refuse("a folder in which no file has the name of a TFRecord file", split=reading.split)
    return FolderSource(root, reading.label_file, reading.label_base)


def refuse(what: str, **options: object) -> None:
    """Raises UsageError if one of the options is given, as it has no effect with `what`."""
    for name, value in options.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                expected=f"no {flag} with {what}",
                found=f"{flag} {value}",
                next_step=f"leave {flag} out, or give other --images",
            )

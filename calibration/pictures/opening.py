"""From what a user calls their pictures to the source that holds them."""

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

# Where the published recipe wants the validation set: data/validation_data/{val.txt,validation_images/*.JPEG}, or
# data/validation_data/validation-* as TFRecords.
_PUBLISHED_LAYOUT = "validation_data"
_EVALUATED = ("validation",)


@dataclass(frozen=True)
class Reading:
    """How to read a source, where it does not say itself.

    Attributes:
        label_file: of a folder's pictures; None for its own `val.txt`, if there is one.
        label_base: number of the first class, 0 or 1; None to find it out.
        split: of a data set; None for the only one, or the one to evaluate with.
    """

    label_file: Path | None = None
    label_base: int | None = None
    split: str | None = None


def open_source(images: str, reading: Reading, bar: Bar = no_bar) -> StoredSource:
    """The source of `--images`: a TFDS data set, a file or folder of TFRecords, or a folder of pictures.

    The folder may be the one above in the published recipe's layout. Where pictures and records lie in one folder, the
    pictures are taken, unless a split is asked for.

    Raises:
        UsageError: an option that says nothing about this kind of source.
        InputError: what is there cannot be read.
    """
    if images.startswith(tfds_source.PREFIX):
        refuse(
            "a TFDS data set, which says what its labels are", labels=reading.label_file, label_base=reading.label_base
        )
        return open_records(tfds_source.find_records(images, reading.split), None, bar)
    if not images:  # as of a variable that is not set; it would mean the folder one happens to be in
        raise UsageError(
            expected="--images to name pictures", found="nothing", next_step="give a folder, tfds:NAME or procedural"
        )
    # Workers of a cluster start elsewhere, where a relative path would mean another folder.
    root = Path(images).absolute()
    if (root / _PUBLISHED_LAYOUT).is_dir():
        root /= _PUBLISHED_LAYOUT
    if root.is_file() and not root.name.lower().endswith(SUFFIXES):
        refuse("a single file of records", labels=reading.label_file, split=reading.split)
        return open_records(RecordSet("tfrecord", str(root), (root,), SLIM), reading.label_base, bar)
    splits = find_splits(root) if root.is_dir() else {}
    if splits and reading.split is None and has_pictures(root):
        logging.warning(
            "%s has pictures and TFRecords; the pictures are taken. For the records give --split %s",
            root,
            " or ".join(splits),
        )
        splits = {}
    if splits:
        refuse("TFRecords, which have their labels with them", labels=reading.label_file)
        split = choose_split(splits, reading.split, _EVALUATED, str(root))
        check_complete(splits[split])
        return open_records(RecordSet("tfrecord", str(root), splits[split], SLIM), reading.label_base, bar)
    if root.is_dir():
        refuse("a folder in which no file is named as TFRecords are", split=reading.split)
    return FolderSource(root, reading.label_file, reading.label_base)


def refuse(what: str, **options: object) -> None:
    """Raises UsageError where one is given: what would change nothing is a misunderstanding, and not passed over."""
    for name, value in options.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                expected=f"no {flag} with {what}",
                found=f"{flag} {value}",
                next_step=f"leave {flag} out, or give other --images",
            )

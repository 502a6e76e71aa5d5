"""Finds the TFRecord files in a folder, and the split of a data set that each belongs to, by their names."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from calibration.pictures.tfrecord import unreadable
from recreate_model.support.errors import InputError

# Names of TF-Slim and TFDS: validation-00000-of-00128, imagenet2012-validation.tfrecord-00000-of-00064.
_NUMBERED = re.compile(r"(?P<stem>.+?)(?:\.tfrecords?)?-(?P<number>\d{5,6})-of-(?P<count>\d{5,6})(?:\.tfrecords?)?")
_BY_SUFFIX = re.compile(r"(?P<stem>.+?)[-_.]?\d*\.tfrecords?(?:[-_.]?\d+)?(?:\.gz|\.gzip|\.zlib|\.zz)?")
# The published recipe reads validation-*, with any suffix.
_PUBLISHED = re.compile(r"(?P<stem>validation)-[^.]+")


def find_splits(folder: Path) -> Mapping[str, tuple[Path, ...]]:
    """Split -> its TFRecord files in a folder, sorted by name. Empty if no file has the name of a TFRecord file.

    Raises:
        InputError: the folder cannot be listed.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    try:
        for name in sorted(os.listdir(folder)):
            if not name.startswith(".") and (split := _split(name)) and (folder / name).is_file():
                found[split].append(folder / name)
    except OSError as error:
        raise unreadable(folder, error) from error
    return {split: tuple(paths) for split, paths in found.items()}


def choose_split(splits: Collection[str], wanted: str | None, preferred: Sequence[str], where: str) -> str:
    """The split to read: `wanted`, else the only one, else the first of `preferred` that exists.

    Args:
        splits: names of the splits that exist.
        where: name of the data set for error messages.

    Raises:
        InputError: `wanted` does not exist, or the choice is ambiguous.
    """
    listed = ", ".join(sorted(splits)) or "none"
    if wanted is not None:
        if wanted in splits:
            return wanted
        raise InputError(
            expected=f"split {wanted} in {where}",
            found=f"splits: {listed}",
            next_step="give --split one of those" if splits else "give --images another set",
        )
    found = list(splits) if len(splits) == 1 else [split for split in preferred if split in splits]
    if not found:
        raise InputError(
            expected=f"a single split in {where}, or one named {' or '.join(preferred)}",
            found=f"splits: {listed}",
            next_step="give --split one of those" if splits else "give --images another set",
        )
    return found[0]


def check_complete(files: Sequence[Path]) -> None:
    """Raises InputError if names such as NAME-00003-of-00128 show a missing shard, or different numbers of shards."""
    divisions: dict[tuple[Path, str], dict[int, dict[int, Path]]] = defaultdict(lambda: defaultdict(dict))
    for path in files:
        if match := _NUMBERED.fullmatch(path.name):
            divisions[path.parent, match["stem"]][int(match["count"])][int(match["number"])] = path
    for (folder, stem), by_count in divisions.items():
        if len(by_count) > 1:
            raise InputError(
                expected=f"the shards of {stem} in {folder} to have the same number of shards in their names",
                found=f"shards of {' and of '.join(map(str, sorted(by_count)))}, which may repeat pictures",
                next_step="move the shards of one of them to another folder",
            )
        ((count, shards),) = by_count.items()
        missing = sorted(set(range(count)) - shards.keys())
        if missing:
            name = re.sub(r"-\d{5,6}-of-", f"-{missing[0]:05d}-of-", next(iter(shards.values())).name)
            raise InputError(
                expected=f"{folder} to have all {count} shards of {stem}",
                found=f"{len(shards)}: no {name}" + (f", nor {len(missing) - 1} others" if len(missing) > 1 else ""),
                next_step="restore the missing ones; to read only some of the shards, rename these",
            )


def _split(name: str) -> str | None:
    """The split in the name of a TFRecord file: its last part before numbers and suffixes; None for other names."""
    for pattern in (_NUMBERED, _BY_SUFFIX, _PUBLISHED):
        if match := pattern.fullmatch(name):
            stem: str = match["stem"]
            return stem.rpartition("-")[2] or stem
    return None

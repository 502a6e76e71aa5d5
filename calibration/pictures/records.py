"""The source of pictures in TFRecords, plain ones or those of a prepared TFDS data set.

A picture's id is the file name in its record, or else the SHA-256 of the picture. It does not depend on the shard.

Not for: finding the files (`shards`, `tfds_source`), or listing their records (`record_index`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import logging

from calibration.pictures import preprocess, tfrecord
from calibration.pictures.class_labels import Label, class_ids, class_of_synset, known_class
from calibration.pictures.record_index import Bar, Features, Row, bad_example, no_bar, picture_of, read_index
from calibration.pictures.sources import StoredSource
from recreate_model.recipe import Picture
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import InputError


@dataclass(frozen=True)
class RecordSet:
    """The files of one split of a data set.

    Attributes:
        kind: as in `recipe.Calibration`.
        name: what messages call it.
        files: the shards, in order.
        features: names of the features in each example.
        class_names: name of each class number, if the data set lists them; else empty.
        counts: number of records in each file, if the data set states them; else empty.
    """

    kind: str
    name: str
    files: tuple[Path, ...]
    features: Features
    class_names: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class RecordSource(StoredSource):
    """A source of pictures in TFRecords.

    Attributes:
        records: the files.
        rows: picture id -> its record.
        labels: picture id -> class id, for pictures that have one.
    """

    records: RecordSet
    rows: Mapping[str, Row]
    labels: Mapping[str, int]

    @property
    def kind(self) -> str:
        return self.records.kind

    @property
    def name(self) -> str:
        return self.records.name

    def pictures(self) -> list[Picture]:
        return [
            Picture(name, row.sha256, self.labels.get(name) or known_class(name)) for name, row in self.rows.items()
        ]

    def encoded(self, picture_id: str) -> bytes:
        row = self.rows.get(picture_id)
        if row is None:
            raise InputError(
                expected=f"{picture_id} in {self.name}",
                found=f"{len(self.rows)} other pictures",
                next_step="give --images the data set that has this picture",
            )
        path = self.records.files[row.shard]
        data = tfrecord.record_at(path, row.number, row.offset)
        try:
            image = picture_of(data, self.records.features)
        except ValueError as error:
            raise bad_example(path, row.number, row.offset, error) from error
        found = digest_bytes(image)
        if found != row.sha256:
            raise InputError(
                expected=f"record {row.number} of {path}, at byte {row.offset}, as it was when the set was listed",
                found=f"another picture (SHA-256 {found[:12]}... instead of {row.sha256[:12]}...)",
                next_step="run again when no other program writes to that folder",
            )
        return image

    def read(self, picture_id: str) -> tuple[Array, str]:
        image, row = self.encoded(picture_id), self.rows[picture_id]
        # Errors name the record too, as a picture in a shard cannot be found by its name.
        where = f"{picture_id} (record {row.number} of {self.records.files[row.shard]})"
        return preprocess.decode(image, where), row.sha256


def open_records(records: RecordSet, label_base: int | None, bar: Bar = no_bar) -> RecordSource:
    """Lists the pictures of a data set, from its records or from the cached index of them.

    Args:
        label_base: number of the first class, 0 or 1; None to infer it.
        bar: as for `record_index.read_index`.

    Raises:
        InputError: a file or record cannot be read, there is no record, a label is out of range, the label base cannot
            be inferred, or a picture is listed twice.
    """
    index = read_index(records.files, records.features, bar)
    _check_counts(records, index)
    if not index:
        raise InputError(
            expected=f"pictures in {records.name}",
            found=f"no record in {_count(len(records.files), 'file')}",
            next_step="create the data set again, or give another --split or --images",
        )
    for shard in sorted(set(range(len(records.files))) - {row.shard for row in index}):
        if not records.counts:
            logging.warning("no record in %s; it may be truncated", records.files[shard])
    rows = _by_id(records, index)
    raw = {name: row.label for name, row in rows.items() if row.label is not None}
    if records.class_names:
        labels = _labels_by_class_name(records, raw, rows)
    else:
        labels = class_ids(raw, label_base, records.name)
    source = RecordSource(records, rows, labels)
    if not raw and not any(picture.label for picture in source.pictures()):
        logging.warning("no picture in %s has a label, so top-1 accuracy cannot be measured", records.name)
    return source


def _check_counts(records: RecordSet, index: Sequence[Row]) -> None:
    found = Counter(row.shard for row in index)
    for shard, count in enumerate(records.counts):
        if found[shard] != count:
            raise InputError(
                expected=f"{_count(count, 'record')} in {records.files[shard]}, as the data set states",
                found=f"{found[shard]}",
                next_step="restore that file, or prepare the data set again",
            )


def _by_id(records: RecordSet, index: Iterable[Row]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    repeated = 0
    for row in index:
        earlier = rows.setdefault(row.name or row.sha256, row)
        if earlier is row:
            continue
        if row.name or earlier.label != row.label:
            places = " and ".join(f"record {one.number} of {records.files[one.shard]}" for one in (earlier, row))
            found = f"in {places}" if row.name else f"as {earlier.label} and as {row.label} ({places})"
            raise InputError(
                expected=f"{'each file name once' if row.name else 'each picture under one label'} in {records.name}",
                found=f"{row.name or row.sha256} {found}",
                next_step="remove one of them, or move shards of another set elsewhere",
            )
        repeated += 1
    if repeated:
        logging.warning(
            "%s in %s left out: the picture is there twice, and no file name distinguishes the two",
            _count(repeated, "record"),
            records.name,
        )
    return rows


def _labels_by_class_name(records: RecordSet, raw: Mapping[str, Label], rows: Mapping[str, Row]) -> dict[str, int]:
    """Picture id -> class id, by the class names of the data set; only for classes among ImageNet's 1000."""
    names = records.class_names
    labels = {}
    for name, number in raw.items():
        if not (isinstance(number, int) and 0 <= number < len(names)):
            row = rows[name]
            raise InputError(
                expected=f"every label in {records.name} to be 0..{len(names) - 1}, or -1 if unknown",
                found=f"{number!r} for {name} (record {row.number} of {records.files[row.shard]})",
                next_step="prepare the data set again",
            )
        label = class_of_synset(names[number])
        if label is not None:
            labels[name] = label
    others = len(raw) - len(labels)
    if others:
        logging.warning(
            "%d of %s in %s are of classes that are not ImageNet's 1000, such as %s; they count as unlabeled",
            others,
            _count(len(rows), "picture"),
            records.name,
            next(names[number] for name, number in raw.items() if name not in labels and isinstance(number, int)),
        )
    return labels


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

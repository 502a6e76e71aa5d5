"""The index of the pictures in a set of TFRecords: built once, then kept in the user's cache.

Every command needs the list of pictures, and reading and hashing 50,000 of them takes most of a minute. An index is
valid for files with the same names, sizes and change times. A record that is read by its index entry is checked again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from calibration.pictures import tfrecord
from calibration.pictures.class_labels import Label
from recreate_model.support.digest import Json, digest_bytes, digest_json
from recreate_model.support.errors import InputError
from recreate_model.support.resources import cache_folder

_FORMAT = "record-index/2"
_SYNSET = re.compile(r"n\d{8}")
Kind = TypeVar("Kind", bytes, int)
_UNKNOWN = -1  # the label of pictures whose class is unknown


@dataclass(frozen=True)
class Features:
    """Names of the features of an example; empty for a feature it does not have."""

    image: str
    label: str = ""
    file_name: str = ""
    synset: str = ""


Bar = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]
"""Shows the progress of a long step, as `pipeline.engine.work.Progress.bar`."""

# TF-Slim's names, which the published recipe uses too.
SLIM = Features("image/encoded", "image/class/label", "image/filename", "image/class/synset")


class Row(NamedTuple):
    """The index entry of one record.

    Attributes:
        shard: index of its file.
        number: number of the record in that file, from 1.
        offset: where the record begins in that file, in bytes.
        name: file name of the picture in the record, or empty.
        label: label in the record; None if it has none.
        sha256: of the encoded picture.
    """

    shard: int
    number: int
    offset: int
    name: str
    label: Label | None
    sha256: str


def no_bar(description: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
    """Shows nothing."""
    return contextlib.nullcontext(lambda count: None)


def read_index(files: Sequence[Path], features: Features, bar: Bar = no_bar) -> tuple[Row, ...]:
    """Every record of these files, in order.

    Args:
        bar: shows how many bytes were read; not called if the index is cached.

    Raises:
        InputError: a file or a record cannot be read.
    """
    key = _key(files, features)
    name = digest_json([key["features"], [row[0] for row in key["files"]]])[:32]
    cached = cache_folder() / "indexes" / f"{name}.json"
    rows = _read_cached(cached, key)
    if rows is None:
        with bar("listing the records", sum(size for _, size, *_ in key["files"])) as advance:
            rows = tuple(row for shard, path in enumerate(files) for row in _rows(shard, path, features, advance))
        _write_cached(cached, key, rows)
    return rows


def picture_of(data: bytes, features: Features) -> bytes:
    """The encoded picture in the data of a record. Raises ValueError if it has none."""
    return _single_value(tfrecord.features(data), features.image, bytes)


def bad_example(path: Path, number: int, offset: int, why: ValueError) -> InputError:
    """The error for an intact record without the expected features."""
    return InputError(
        expected=f"record {number} of {path}, at byte {offset}, to hold a picture and its label",
        found=str(why),
        next_step="give --images records as TF-Slim writes them, a data set as tfds:NAME, or a folder of pictures",
    )


def _rows(shard: int, path: Path, features: Features, advance: Callable[[int], None]) -> Iterator[Row]:
    for number, (offset, data) in enumerate(tfrecord.records(path), start=1):
        try:
            example = tfrecord.features(data)
            image = _single_value(example, features.image, bytes)
            name = _text(example, features.file_name)
            yield Row(shard, number, offset, name, _label(example, features), digest_bytes(image))
        except ValueError as error:
            raise bad_example(path, number, offset, error) from error
        advance(len(data))


def _label(example: dict[str, list[tfrecord.Value]], features: Features) -> Label | None:
    synset = _text(example, features.synset)
    # A synset that is not one of the 1000 is refused later: the number beside it belongs to another list of classes.
    if _SYNSET.fullmatch(synset):
        return synset
    if not example.get(features.label):
        return None
    number = _single_value(example, features.label, int)
    return None if number == _UNKNOWN else number


def _text(example: dict[str, list[tfrecord.Value]], name: str) -> str:
    if not example.get(name):
        return ""
    try:
        return _single_value(example, name, bytes).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"a feature {name} that is not UTF-8") from error


def _single_value(example: dict[str, list[tfrecord.Value]], name: str, kind: type[Kind]) -> Kind:
    if name not in example:
        raise ValueError(f"no feature {name} among {', '.join(sorted(example)) or 'none'}")
    values = example[name]
    if len(values) != 1 or not isinstance(values[0], kind):
        what = "string" if kind is bytes else "integer"
        raise ValueError(f"a feature {name} that is not a single {what}")
    return values[0]


def _key(files: Sequence[Path], features: Features) -> Json:
    states = []
    for path in files:
        try:
            state = path.stat()
        except OSError as error:
            raise tfrecord.unreadable(path, error) from error
        # Copying tools can preserve the modification time, but nothing can set the status change time.
        states.append([os.fsencode(path.resolve()).hex(), state.st_size, state.st_mtime_ns, state.st_ctime_ns])
    return {"format": _FORMAT, "features": [*vars(features).values()], "files": states}


def _read_cached(path: Path, key: Json) -> tuple[Row, ...] | None:
    """The cached index for this key; None if there is none or its digest does not match."""
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
        if digest != digest_bytes(text).encode():
            return None
        document = json.loads(text)
    except (OSError, ValueError):
        return None
    valid = isinstance(document, dict) and document.get("key") == key
    return tuple(Row(*row) for row in document["rows"]) if valid else None


def _write_cached(path: Path, key: Json, rows: Sequence[Row]) -> None:
    text = json.dumps({"key": key, "rows": rows}, separators=(",", ":")).encode()
    # A cache that cannot be written only costs time.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as stream:
            try:
                stream.write(digest_bytes(text).encode() + b"\n" + text)
                stream.close()
                os.replace(stream.name, path)
            except BaseException:
                os.unlink(stream.name)
                raise

"""Which pictures stand where in a set of TFRecords: read once, then kept in the user's cache.

Reading and hashing 50,000 pictures takes a good part of a minute, and every command has to list them. An index belongs
to files of given names, sizes and times of change; a record that is read through it is checked again.
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
_UNKNOWN = -1  # what data sets say where nobody knows the class


@dataclass(frozen=True)
class Features:
    """What the features of an example are called; empty where there is none of the kind."""

    image: str
    label: str = ""
    file_name: str = ""
    synset: str = ""


Bar = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]
"""Shows how far a long step is, as `pipeline.engine.work.Progress.bar`."""

# TF-Slim's, which the published recipe has taken over.
SLIM = Features("image/encoded", "image/class/label", "image/filename", "image/class/synset")


class Row(NamedTuple):
    """One record.

    Attributes:
        shard: which of the files.
        number: which record of that file, from 1.
        offset: where it begins there, in bytes.
        name: the picture's file name as the record has it, or empty.
        label: as the record has it; None where it says nothing.
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
    """Every record of these files, in their order.

    Args:
        bar: shows how many bytes were read; not called where the cache knew.

    Raises:
        InputError: a file or a record that cannot be read.
    """
    key = _key(files, features)
    kept = cache_folder() / "indexes" / f"{digest_json([key['features'], [row[0] for row in key['files']]])[:32]}.json"
    rows = _kept(kept, key)
    if rows is None:
        with bar("listing the records", sum(size for _, size, *_ in key["files"])) as advance:
            rows = tuple(row for shard, path in enumerate(files) for row in _rows(shard, path, features, advance))
        _keep(kept, key, rows)
    return rows


def picture_of(data: bytes, features: Features) -> bytes:
    """The encoded picture in the data of a record. Raises ValueError where there is none."""
    return _one(tfrecord.features(data), features.image, bytes)


def no_example(path: Path, number: int, offset: int, why: ValueError) -> InputError:
    """A whole record that is not what is looked for."""
    return InputError(
        expected=f"record {number} of {path}, at byte {offset}, to hold a picture and its label",
        found=str(why),
        next_step="give --images records as TF-Slim writes them, a data set as tfds:NAME, or a folder of pictures",
    )


def _rows(shard: int, path: Path, features: Features, advance: Callable[[int], None]) -> Iterator[Row]:
    for number, (offset, data) in enumerate(tfrecord.records(path), start=1):
        try:
            example = tfrecord.features(data)
            image = _one(example, features.image, bytes)
            name = _text(example, features.file_name)
            yield Row(shard, number, offset, name, _label(example, features), digest_bytes(image))
        except ValueError as error:
            raise no_example(path, number, offset, error) from error
        advance(len(data))


def _label(example: dict[str, list[tfrecord.Value]], features: Features) -> Label | None:
    synset = _text(example, features.synset)
    # One that is none of the 1000 is refused later: the number beside it belongs to another list of classes.
    if _SYNSET.fullmatch(synset):
        return synset
    if not example.get(features.label):
        return None
    number = _one(example, features.label, int)
    return None if number == _UNKNOWN else number


def _text(example: dict[str, list[tfrecord.Value]], name: str) -> str:
    if not example.get(name):
        return ""
    try:
        return _one(example, name, bytes).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"a feature {name} that is not UTF-8") from error


def _one(example: dict[str, list[tfrecord.Value]], name: str, kind: type[Kind]) -> Kind:
    if name not in example:
        raise ValueError(f"no feature {name} among {', '.join(sorted(example)) or 'none'}")
    values = example[name]
    if len(values) != 1 or not isinstance(values[0], kind):
        what = "text or bytes" if kind is bytes else "a whole number"
        raise ValueError(f"a feature {name} that is not one value, {what}")
    return values[0]


def _key(files: Sequence[Path], features: Features) -> Json:
    states = []
    for path in files:
        try:
            state = path.stat()
        except OSError as error:
            raise tfrecord.unreadable(path, error) from error
        # Copying tools set the time of the content back; that of the last change of any kind nobody can set.
        states.append([os.fsencode(path.resolve()).hex(), state.st_size, state.st_mtime_ns, state.st_ctime_ns])
    return {"format": _FORMAT, "features": [*vars(features).values()], "files": states}


def _kept(path: Path, key: Json) -> tuple[Row, ...] | None:
    """What was kept under this key, if every byte of it is right."""
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
        if digest != digest_bytes(text).encode():
            return None
        document = json.loads(text)
    except (OSError, ValueError):
        return None
    known = isinstance(document, dict) and document.get("key") == key
    return tuple(Row(*row) for row in document["rows"]) if known else None


def _keep(path: Path, key: Json, rows: Sequence[Row]) -> None:
    text = json.dumps({"key": key, "rows": rows}, separators=(",", ":")).encode()
    # A cache that cannot be written costs time and nothing else.
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

"""The build folder: files under their final names, and `lock.json`, the record of what they are and how they were made.

A file is valid only while the lock lists it and its digest agrees. Publishing a stage removes its record from the lock,
renames each finished file to its final name, and then replaces the lock with the new record, by a rename too. If the
process is killed in between, the next run finds a stage without a valid record and makes it again. A file lock keeps
two runs apart.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from pipeline.engine.keys import KeyParts
from recreate_model.support.digest import Json, digest_file, readable_json
from recreate_model.support.exclusive import exclusive

LOCK_FILE = "lock.json"
_FORMAT = "build-lock/1"
_SCRATCH = ".scratch-"
_MUTEX = ".mutex"


@dataclass(frozen=True)
class Record:
    """One stage in the lock.

    Attributes:
        parts: of the key; None while the stage is published.
        outputs: path in the build folder -> SHA-256.
    """

    parts: KeyParts | None
    outputs: Mapping[str, str]


class Store:
    """One build folder. Hold `exclusive` to change it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def exclusive(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """Holds the folder for this process; `on_wait` is called once if another holds it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self.folder / _MUTEX, on_wait):
            for left_behind in self.folder.glob(f"{_SCRATCH}*"):
                shutil.rmtree(left_behind, ignore_errors=True)
            yield

    def records(self) -> dict[str, Record]:
        """The lock's stages by name; empty without a readable lock."""
        try:
            document = json.loads((self.folder / LOCK_FILE).read_text(encoding="utf-8"))
            if document["format"] != _FORMAT:
                return {}
            return {name: _record(entry) for name, entry in document["stages"].items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (ValueError, KeyError, TypeError, AttributeError):
            # A damaged lock proves nothing: everything is made again.
            return {}

    def damaged(self, record: Record) -> list[str]:
        """Those of the record's files that are missing or changed, sorted."""
        return sorted(path for path, digest in record.outputs.items() if not self._intact(path, digest))

    def _intact(self, path: str, digest: str) -> bool:
        try:
            return digest_file(self.folder / path) == digest
        except OSError:
            return False

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder of this run alone on the same file system, removed afterwards."""
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, stage: str, parts: KeyParts, scratch: Path) -> Record:
        """Moves the files in `scratch` to their final names, removes those of an earlier run, and records it."""
        made = {path.relative_to(scratch).as_posix(): path for path in sorted(scratch.rglob("*")) if path.is_file()}
        record = Record(parts, {name: digest_file(path) for name, path in made.items()})
        records = self.records()
        earlier = records.get(stage, Record(None, {}))
        # Old and new names together, so that a run that is killed here leaves no file without a record.
        self._write(records | {stage: replace(record, parts=None, outputs={**earlier.outputs, **record.outputs})})
        for name, path in made.items():
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
        for name in earlier.outputs.keys() - made.keys():
            self._remove(name)
        self._write(records | {stage: record})
        return record

    def _remove(self, name: str) -> None:
        path = self.folder / name
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == self.folder or any(folder.iterdir()):
                break
            folder.rmdir()

    def _write(self, records: Mapping[str, Record]) -> None:
        document = {
            "format": _FORMAT,
            "stages": {
                # Sorted, so that the lock does not depend on the order in which stages ran.
                name: as_json(record)
                for name, record in sorted(records.items())
            },
        }
        temporary = self.folder / f".{LOCK_FILE}.new"
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(readable_json(document))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, self.folder / LOCK_FILE)


def as_json(record: Record) -> Json:
    """One stage as the lock has it."""
    return {
        "key": record.parts.key if record.parts else None,
        "parts": asdict(record.parts) if record.parts else None,
        "outputs": dict(record.outputs),
    }


def _record(entry: Json) -> Record:
    """Reads one stage of the lock; raises ValueError, KeyError, TypeError or AttributeError if it is damaged."""
    outputs = dict(entry["outputs"])
    for path in outputs:
        # A record decides what is removed, so it must not reach out of the build folder.
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError(path)
    if entry["parts"] is None:
        return Record(None, outputs)
    parts = KeyParts(**entry["parts"])
    if entry["key"] != parts.key:
        raise ValueError("the key is not that of its parts")
    return Record(parts, outputs)

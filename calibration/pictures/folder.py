"""The source of pictures in folders: one folder for each synset, or a single folder with a label file."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.pictures.class_labels import Label, class_ids, class_of_synset, known_class
from calibration.pictures.sources import StoredSource
from recreate_model.recipe import Picture
from recreate_model.support.errors import InputError, UsageError, reason

LABEL_FILE = "val.txt"
_SYNSETS = "give --images a folder of synset folders (n01440764/x.JPEG), or `procedural`"
SUFFIXES = (".jpeg", ".jpg", ".png")
_NUMBER = re.compile(r"[0-9]{1,9}")  # limited, as Python refuses to convert thousands of digits


@dataclass(frozen=True)
class FolderSource(StoredSource):
    """Pictures in a folder and in its subfolders.

    The class of a picture is that of its folder, if the folder is named after a synset; else that of its row in the
    label file, if there is one; else the known class, if it is an official validation picture.

    Attributes:
        root: the folder.
        label_file: a file with rows of a file name and a label; None for `val.txt` in `root`, if there is one.
        label_base: number of the first class in that file, 0 or 1; None to infer it.
    """

    root: Path
    label_file: Path | None = None
    label_base: int | None = None

    @property
    def kind(self) -> str:
        return "folder"

    @property
    def name(self) -> str:
        return str(self.root)

    def pictures(self) -> list[Picture]:
        try:
            ids = sorted(path.relative_to(self.root).as_posix() for path in _picture_files(self.root))
        except OSError as error:
            where = str(error.filename)  # may be a subfolder or a link
            raise InputError(
                expected=f"{self.root} to be a folder of pictures",
                found=(reason(error)) + ("" if where in ("None", str(self.root)) else f": {where}"),
                next_step=_SYNSETS,
            ) from error
        for name in ids:
            if not _is_utf8(name):
                raise InputError(
                    expected=f"the names of the pictures in {self.root} to be UTF-8",
                    found=ascii(name),
                    next_step="rename it",
                )
        if not ids:
            raise InputError(
                expected=f"pictures ({', '.join(SUFFIXES)}) in {self.root}",
                found="none there, and none in its subfolders",
                next_step=_SYNSETS,
            )
        classes = {name: class_of_synset(Path(name).parent.name) for name in ids}
        listed = self._listed([name for name, label in classes.items() if label is None])
        return [Picture(name, label=classes[name] or listed.get(name) or known_class(name)) for name in ids]

    def encoded(self, picture_id: str) -> bytes:
        try:
            return (self.root / picture_id).read_bytes()
        except OSError as error:
            raise InputError(
                expected=f"{picture_id} to be readable in {self.root}",
                found=reason(error),
                next_step="restore or remove that picture, then run again",
            ) from error

    def _listed(self, ids: list[str]) -> dict[str, int]:
        """Picture id -> class id from the label file; empty if there is no label file."""
        if self.label_file and not ids:
            raise UsageError(
                expected=f"no --labels if every picture in {self.root} is in a folder named after its synset",
                found=f"--labels {self.label_file}",
                next_step="leave --labels out, or give other --images",
            )
        file = self.label_file or self.root / LABEL_FILE
        raw = _labels_in(file, ids) if ids and (self.label_file or file.is_file()) else {}
        return class_ids(raw, self.label_base, str(file))


def _labels_in(file: Path, ids: Sequence[str]) -> dict[str, Label]:
    """The label of each picture: from the row with its path, or else from the only row with its file name."""
    rows = read_label_file(file)
    by_file_name: dict[str, list[Label]] = defaultdict(list)
    for row, label in rows.items():
        by_file_name[_file_name(row)].append(label)
    namesakes = Counter(map(_file_name, ids))
    raw = {}
    for name in ids:
        found = [rows[name]] if name in rows else by_file_name[_file_name(name)]
        if len(found) != 1 or (name not in rows and namesakes[_file_name(name)] > 1):
            raise InputError(
                expected=f"{file} to have a row for each picture",
                found=f"none for {name}" + (f", and {_file_name(name)} in several folders" if found else ""),
                next_step="add it" + (" with its folder" if found else ", or move the pictures without a label away"),
            )
        raw[name] = found[0]
    return raw


def read_label_file(path: Path) -> dict[str, Label]:
    """File name -> label, from rows such as `ILSVRC2012_val_00000001.JPEG 65` or `x.JPEG n01440764`.

    Raises:
        InputError: the file cannot be read, a row is not a name and a label, or a name is listed twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            expected=f"{path} to be a text file of labels",
            found=getattr(error, "strerror", None) or "bytes that are not UTF-8",
            next_step="give --labels a file of rows such as `ILSVRC2012_val_00000001.JPEG 65`",
        ) from error
    rows: dict[str, Label] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        # The label is the last word, as names may contain spaces and commas.
        label = re.split(r"[\s,]", line.strip())[-1]
        name = line.strip().removesuffix(label).rstrip(" \t,")
        if not name or not (_NUMBER.fullmatch(label) or class_of_synset(label)):
            raise InputError(
                expected=f"row {number} of {path} to be a file name and a class number or synset",
                found=repr(line.strip()[:60]),
                next_step="correct that row",
            )
        if name in rows:
            raise InputError(
                expected=f"each picture once in {path}",
                found=f"{name} again in row {number}",
                next_step="remove one of its rows",
            )
        rows[name] = int(label) if _NUMBER.fullmatch(label) else label
    return rows


def has_pictures(root: Path) -> bool:
    """Whether there is a picture in this folder or its subfolders."""
    try:
        return any(_picture_files(root))
    except OSError:
        return True  # listing the pictures will report the error


def _picture_files(root: Path) -> Iterator[Path]:
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith("."):
                with os.scandir(entry) as inner:
                    yield from (Path(file.path) for file in inner if _is_picture(file))
            elif _is_picture(entry):
                yield Path(entry.path)


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_picture(entry: os.DirEntry[str]) -> bool:
    # Some systems store metadata of a picture in a hidden file with the same name after a dot.
    return entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".") and entry.is_file()

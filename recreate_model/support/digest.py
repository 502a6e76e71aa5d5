"""Digests and canonical JSON. The project identifies all content by these."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from recreate_model.support.errors import reason

Json = Any  # a plain JSON value, as json.loads returns it

_CHUNK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


def digest_bytes(data: bytes, algorithm: str = "sha256") -> str:
    """Return the hexadecimal digest of `data`."""
    return hashlib.new(algorithm, data).hexdigest()


def digest_file(path: Path, algorithm: str = "sha256") -> str:
    """Return the hexadecimal digest of the file at `path`, which is read in chunks and may be of any size."""
    state = hashlib.new(algorithm)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()


def is_sha256(value: object) -> bool:
    """Return whether `value` is a SHA-256 digest as this project writes it: 64 lowercase hexadecimal digits."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def read_document(text: str, form: str) -> Json:
    """Parse a JSON object whose key "format" has the value `form`.

    Raises:
        ValueError, KeyError, RecursionError: the text is no such object; `document_fault` describes the error.
    """
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("JSON that is not an object")
    if document["format"] != form:
        raise ValueError(f"format {document['format']!r}")
    return document


def document_fault(error: Exception) -> str:
    """Return what was found instead of a document, given the error from reading it with `read_document`."""
    if isinstance(error, OSError):
        return reason(error)
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return "a file that is not JSON"
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def canonical_json(value: Json) -> bytes:
    """Return the serialization of a JSON value that digests are computed from: sorted keys, no spaces, ASCII, no NaN.

    Raises:
        ValueError: the value contains NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def digest_json(value: Json) -> str:
    """Return the SHA-256 of the canonical JSON of `value`."""
    return digest_bytes(canonical_json(value))


def readable_json(value: Json) -> str:
    """Return JSON for people and for diff: indented, keys in the value's own order, with a newline at the end.

    Raises:
        ValueError: the value contains NaN or an infinity.
    """
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

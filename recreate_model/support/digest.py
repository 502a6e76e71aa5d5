"""Digests and canonical JSON: the two ways the project gives a name to content."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

# Plain JSON: what json.loads gives back. The alias says so where a type checker cannot.
Json = Any

_CHUNK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


def digest_bytes(data: bytes, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of `data`."""
    return hashlib.new(algorithm, data).hexdigest()


def digest_file(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of the file at `path`, read in pieces so that its size does not matter."""
    state = hashlib.new(algorithm)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()


def is_sha256(value: object) -> bool:
    """Whether this is how a SHA-256 is written here: 64 hexadecimal digits, none of them a capital."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def read_document(text: str, form: str) -> Json:
    """The JSON object in `text` that says of itself to have the format `form`.

    Raises:
        ValueError, KeyError, RecursionError: it is none; `document_fault` has the words for it.
    """
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("JSON that is no object")
    if document["format"] != form:
        raise ValueError(f"format {document['format']!r}")
    return document


def document_fault(error: Exception) -> str:
    """What was found instead of a document, by the error that reading it raised."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return "a file that is not JSON"
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def canonical_json(value: Json) -> bytes:
    """The one serialisation of a JSON value that digests are taken of: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def digest_json(value: Json) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    return digest_bytes(canonical_json(value))


def readable_json(value: Json) -> str:
    """JSON for people and for diff: indented, in the order of the value's own keys, ending in a newline."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

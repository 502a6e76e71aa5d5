"""Inputs pinned by size and SHA-256, and their download into the cache.

A mirror only has to supply the pinned bytes; it does not matter which mirror does. Files that the user names are not
handled here.

All projects of a user share the cache. A cached file's name begins with its hash, so versions never collide. Only the
content of a cached file is checked, so a file copied there by hand is as good as a downloaded one.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from absl import logging

from recreate_model.support.archive import placeholder
from recreate_model.support.digest import digest_file
from recreate_model.support.errors import ResourceError
from recreate_model.support.exclusive import exclusive

Progress = Callable[[int, int], None]  # called with the bytes received so far and the total
Pause = Callable[[float], object]  # called with seconds

_BLOCK = 1 << 16  # bytes per read; at most this much is lost when a connection breaks
_TIMEOUT = (5.0, 30.0)  # seconds: to connect, short so that being offline is noticed soon; to receive each block
_PAUSE = 0.5  # seconds before the second attempt at a mirror; doubled for each further attempt
_FINAL, _NO_RESPONSE, _BROKEN, _FROM_ZERO = 1, 2, 4, 5  # total attempts at a mirror, by the last failure


@dataclass(frozen=True)
class Resource:
    """An input pinned by content.

    Attributes:
        name: unique name of the resource.
        file_name: name of the file on a mirror; unique among all resources.
        size: size in bytes.
        sha256: hexadecimal digest of the file.
        urls: mirrors, in the order of preference.
        instead: what a user without the file can do; the last part of an error's next step.
    """

    name: str
    file_name: str
    size: int
    sha256: str
    urls: tuple[str, ...]
    instead: str = ""


def cache_folder() -> Path:
    """Return RECREATE_MODEL_CACHE, or else the user's cache folder on this system. The folder may not exist yet."""
    if named := os.environ.get("RECREATE_MODEL_CACHE"):
        return Path(named).expanduser()
    import platformdirs  # imported here to keep `--help` fast

    return platformdirs.user_cache_path("recreate-model")


def cache_path(resource: Resource, cache: Path) -> Path:
    """Return the resource's path in the cache, whether or not the file exists."""
    return cache / f"{resource.sha256[:16]}-{resource.file_name}"


def mirrors(resource: Resource) -> tuple[str, ...]:
    """Return the URLs to try, in order: the file below each of RECREATE_MODEL_MIRRORS, then the table's URLs."""
    own = os.environ.get("RECREATE_MODEL_MIRRORS", "").split()
    return (*(f"{base.rstrip('/')}/{resource.file_name}" for base in own), *resource.urls)


def cached(resource: Resource, cache: Path) -> Path | None:
    """Return the path of the verified file in the cache, or None. A damaged file is logged as a warning."""
    path = cache_path(resource, cache)
    fault = _fault(resource, path)
    if fault and os.path.lexists(path):
        logging.warning("the cached file %s is damaged: %s; it is not used", path, fault)
    return None if fault else path


def fetch(resource: Resource, cache: Path, progress: Progress | None = None, *, pause: Pause = time.sleep) -> Path:
    """Return the path of the verified file in the cache; download it if needed, from the first mirror that has it.

    An interrupted download is resumed, and a damaged file is replaced. If several processes need the same file, one
    downloads it and the others wait.

    Args:
        resource: what to fetch.
        cache: cache folder; created if missing.
        progress: called after each received block.
        pause: called to wait between attempts.

    Raises:
        ResourceError: no mirror has the file, or the cache is not writable.
    """
    target = cache_path(resource, cache)
    part, lock = (target.with_name(target.name + suffix) for suffix in (".part", ".lock"))
    if _fault(resource, target) is None:
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with exclusive(
            lock, lambda: logging.warning("waiting for another process that fetches %s", resource.file_name)
        ):
            if _fault(resource, target):  # no fault: another process has downloaded it meanwhile
                _download(resource, target, part, progress or (lambda have, size: None), pause)
                part.replace(target)
    except OSError as error:
        raise ResourceError(
            expected=f"space and permission to write {resource.size:,} bytes to {target}",
            found=str(error),
            done="the received bytes are kept for the next run" if _size(part) else "nothing was written",
            next_step="free some space, or set RECREATE_MODEL_CACHE to a writable folder",
        ) from error
    return target


class _MirrorError(Exception):
    """A failed attempt at a mirror.

    Attributes:
        attempts: give the mirror up after this many attempts in total.
        discard: the received bytes are wrong and must be deleted.
    """

    def __init__(self, reason: str, attempts: int, *, discard: bool = False) -> None:
        super().__init__(reason)
        self.attempts = attempts
        self.discard = discard


def _download(resource: Resource, target: Path, part: Path, progress: Progress, pause: Pause) -> None:
    """Download to `part`, trying one mirror after the other.

    Raises:
        ResourceError: no mirror has the file.
    """
    reasons = []
    for url in mirrors(resource):
        for count in itertools.count(1):
            if (failure := _attempt(url, resource, part, progress)) is None:
                return
            if count >= failure.attempts:
                reasons.append(f"{url}: {failure}")
                break
            pause(_PAUSE * 2 ** (count - 1))
    kept = _size(part)
    by_hand = f"get {resource.file_name} from {resource.urls[0]} and put it at {target}"
    raise ResourceError(
        expected=f"{resource.file_name} of {resource.size:,} bytes from a mirror",
        found="; ".join(reasons),
        done=f"{kept:,} bytes are kept for the next run" if kept else "nothing was written",
        next_step=", or ".join(filter(None, ("connect to the network and run again", by_hand, resource.instead))),
    )


def _attempt(url: str, resource: Resource, part: Path, progress: Progress) -> _MirrorError | None:
    """Try a mirror once. Return None if `part` now holds the resource, verified and flushed to disk."""
    try:
        resumed = _receive(url, resource, part, progress)
        if fault := _fault(resource, part):
            # The mirror's file may have changed since the interrupted download, so a fresh download can succeed.
            # A file that came in one piece will not get better.
            raise _MirrorError(fault, _FROM_ZERO if resumed else _FINAL, discard=True)
    except _MirrorError as error:
        if error.discard:
            part.unlink(missing_ok=True)
        return error
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    return None


def _receive(url: str, resource: Resource, part: Path, progress: Progress) -> bool:
    """Download the rest of `part`. Return whether it was resumed, that is, holds bytes of an earlier response.

    Raises:
        _MirrorError: the attempt failed.
    """
    import requests  # imported here: a build with cached inputs does not need it
    import urllib3

    have = _size(part)
    if have >= resource.size:  # complete or too long; the caller verifies it
        return True
    # Identity encoding, and a raw read below: some servers label a .tgz as gzip-encoded, and it would be decompressed.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
            blocks: Iterator[bytes] = answer.raw.stream(_BLOCK, decode_content=False)
            head = next(blocks, b"")
            start = have = _start(answer.status_code, answer.headers, head, have, resource.size)
            with part.open("ab" if start else "wb") as stream:
                for block in itertools.chain([head], blocks):
                    have += len(block)
                    if have > resource.size:
                        raise _MirrorError(f"more than {resource.size:,} bytes", _FINAL, discard=True)
                    stream.write(block)
                    progress(have, resource.size)
    except requests.ConnectTimeout:
        raise _MirrorError(f"no connection within {_TIMEOUT[0]:g} s", _FINAL) from None
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _MirrorError(f"no response ({_root(error)})", _NO_RESPONSE) from error
    except requests.RequestException as error:
        raise _MirrorError(f"request failed ({_root(error)})", _FINAL) from error
    except urllib3.exceptions.HTTPError as error:
        reason = f"connection lost after {have:,} of {resource.size:,} bytes ({_root(error)})"
        raise _MirrorError(reason, _BROKEN) from error
    if have < resource.size:
        raise _MirrorError(f"ended after {have:,} of {resource.size:,} bytes", _BROKEN)
    return start > 0


def _start(status: int, headers: Mapping[str, str], head: bytes, have: int, size: int) -> int:
    """Return the byte offset at which a response's body begins, 0 or `have`.

    Args:
        status: HTTP status code.
        headers: response headers.
        head: first block of the body.
        have: bytes received earlier.
        size: bytes of the whole file.

    Raises:
        _MirrorError: the response is not the wanted file.
    """
    if status == 416 and have:
        raise _MirrorError("HTTP 416: no bytes after those already received", _FROM_ZERO, discard=True)
    if status not in (200, 206):
        temporary = status in (408, 429) or status >= 500
        raise _MirrorError(f"HTTP {status}", _BROKEN if temporary else _FINAL)
    if status == 206:
        sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        if sent is None or int(sent[1]) != have:
            raise _MirrorError("HTTP 206 with the wrong range", _FROM_ZERO if have else _FINAL, discard=True)
        if sent[2] not in (str(size), "*"):
            raise _MirrorError(f"{sent[2]} bytes, expected {size}", _FINAL)
        return have
    if what := placeholder(head):
        raise _MirrorError(f"{what} instead of the file", _FINAL)
    if (length := headers.get("Content-Length", "")).isdecimal() and int(length) != size:
        raise _MirrorError(f"{length} bytes, expected {size}", _FINAL)
    return 0


def _root(error: BaseException) -> str:
    """Return the message of an error's root cause: `Connection refused`, not the connection pool and its retries."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return str(error)


def _fault(resource: Resource, path: Path) -> str | None:
    """Return what is wrong with the file at `path`, or None if it is the resource byte for byte."""
    try:
        if (size := path.stat().st_size) != resource.size:
            return f"{size} bytes, expected {resource.size}"
        if (sha256 := digest_file(path)) != resource.sha256:
            return f"SHA-256 {sha256}, expected {resource.sha256}"
    except OSError as error:
        return str(error)
    return None


def _size(path: Path) -> int:
    """Return the size of a file in bytes, or 0 if there is none."""
    try:
        return path.stat().st_size
    except OSError:  # missing or inaccessible; opening it will report why
        return 0

"""The inputs that are pinned by size and SHA-256, and how they come into the cache.

For: having the very bytes a build is defined by, from whichever mirror answers. Not for: files the user names.

The cache is shared by every project of a user. A name there begins with the file's hash, so that versions never meet;
a file is believed by its content only, so one that was put there by hand is as good as one that was fetched.
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

Progress = Callable[[int, int], None]  # takes the bytes there are and the bytes there will be
Pause = Callable[[float], object]  # takes seconds

_BLOCK = 1 << 16  # bytes; what one broken connection can cost
_TIMEOUT = (5.0, 30.0)  # seconds: for a connection, so that being offline is soon known; then for each piece
_PAUSE = 0.5  # seconds before the second try of a mirror, doubled for each further one
_FINAL, _NO_ANSWER, _BROKEN, _FROM_ZERO = 1, 2, 4, 5  # tries a mirror has in all, by what went wrong last


@dataclass(frozen=True)
class Resource:
    """An input pinned by content.

    Attributes:
        file_name: as a mirror and the user know the file; unique in the table.
        size: in bytes.
        urls: mirrors, the best first.
        instead: what a user without the file can do, as the end of an error's "next".
    """

    name: str
    file_name: str
    size: int
    sha256: str
    urls: tuple[str, ...]
    instead: str = ""


_ZOO = (
    "https://github.com/ARM-software/ML-zoo/raw/e0aa361b03c738047b9147d1a50e3f2dcb13dbcb/models/image_classification/"
    "mobilenet_v2_1.0_224/tflite_int8/"
)

_TABLE = (
    Resource(
        name="mobilenet_v2_1.0_224",
        file_name="mobilenet_v2_1.0_224.tgz",
        size=78_306_834,
        sha256="318084bc1b63d6d7b854553e09cdf77078b1c0168be27c59a0d44253b5ed49dc",
        urls=("https://storage.googleapis.com/mobilenet_v2/checkpoints/mobilenet_v2_1.0_224.tgz",),
        instead="--checkpoint PATH with an archive you have, or --checkpoint seeded",
    ),
    Resource(
        name="published-model",
        file_name="mobilenet_v2_1.0_224_INT8.tflite",
        size=4_020_936,
        sha256="bd8d56b80557a5fca7acf14f61e5339285c02810f7d7afa714b9763fc4b86e95",
        urls=(_ZOO + "mobilenet_v2_1.0_224_INT8.tflite",),
    ),
    Resource(
        name="published-input",
        file_name="mobilenet_v2_1.0_224_INT8_input.npy",
        size=150_656,
        sha256="454b7a6fea8ed14e236e831f1d77114a476a348fbbfab2dce5341d7e9e17cc64",
        urls=(_ZOO + "testing_input/tfl.quantize/0.npy",),
    ),
    Resource(
        name="published-output",
        file_name="mobilenet_v2_1.0_224_INT8_output.npy",
        size=1_129,
        sha256="f1b5d4fce5a6f8ddaf13352229cd862285f6cd0d48b17a7d11ec5881ba499ae7",
        urls=(_ZOO + "testing_output/MobilenetV2/Predictions/Reshape_11/0.npy",),
    ),
)
RESOURCES: dict[str, Resource] = {resource.name: resource for resource in _TABLE}


def cache_folder() -> Path:
    """The folder RECREATE_MODEL_CACHE names, or the user's cache folder of this system. It may not exist yet."""
    if named := os.environ.get("RECREATE_MODEL_CACHE"):
        return Path(named).expanduser()
    import platformdirs  # here, as the command line's help must not wait for packages

    return platformdirs.user_cache_path("recreate-model")


def cache_path(resource: Resource, cache: Path) -> Path:
    """Where the resource lies in the cache, or would: the name begins with the hash, so that versions never collide."""
    return cache / f"{resource.sha256[:16]}-{resource.file_name}"


def mirrors(resource: Resource) -> tuple[str, ...]:
    """The resource's URLs in the order they are tried: those below RECREATE_MODEL_MIRRORS, then the table's."""
    own = os.environ.get("RECREATE_MODEL_MIRRORS", "").split()
    return (*(f"{base.rstrip('/')}/{resource.file_name}" for base in own), *resource.urls)


def cached(resource: Resource, cache: Path) -> Path | None:
    """The cached file if every byte of it is right, else None; a damaged one is reported as a warning to the log."""
    path = cache_path(resource, cache)
    fault = _fault(resource, path)
    if fault and os.path.lexists(path):
        logging.warning("the cached file %s is damaged: %s; it is not used", path, fault)
    return None if fault else path


def fetch(resource: Resource, cache: Path, progress: Progress | None = None, *, pause: Pause = time.sleep) -> Path:
    """The verified file in the cache, brought there from the first mirror that has it.

    What an earlier run left unfinished is continued, and a damaged file is replaced. Of several processes that ask at
    once, one fetches.

    Args:
        resource: what to fetch.
        cache: folder, made where it does not exist.
        progress: called for each piece that arrives.
        pause: waits before another try.

    Raises:
        ResourceError: no mirror has the file, or the cache cannot be written.
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
            if _fault(resource, target):  # else another process was faster
                _download(resource, target, part, progress or (lambda have, size: None), pause)
                part.replace(target)
    except OSError as error:
        raise ResourceError(
            expected=f"room and permission to write {resource.size:,} bytes as {target}",
            found=str(error),
            done="what has arrived is kept for the next run" if _size(part) else "nothing was written",
            next_step="free some space, or set RECREATE_MODEL_CACHE to a folder that can be written",
        ) from error
    return target


class _MirrorError(Exception):
    """A try that failed: after how many in all to give this mirror up, and whether to discard what has arrived."""

    def __init__(self, reason: str, tries: int, *, discard: bool = False) -> None:
        super().__init__(reason)
        self.tries = tries
        self.discard = discard


def _download(resource: Resource, target: Path, part: Path, progress: Progress, pause: Pause) -> None:
    """Fill `part` from one mirror after the other until it is the resource. Raises ResourceError when none is left."""
    reasons = []
    for url in mirrors(resource):
        for count in itertools.count(1):
            if (failure := _attempt(url, resource, part, progress)) is None:
                return
            if count >= failure.tries:
                reasons.append(f"{url}: {failure}")
                break
            pause(_PAUSE * 2 ** (count - 1))
    kept = _size(part)
    by_hand = f"get {resource.file_name} from {resource.urls[0]} and put it at {target}"
    raise ResourceError(
        expected=f"{resource.file_name} of {resource.size:,} bytes from a mirror",
        found="; ".join(reasons),
        done=f"{kept:,} bytes are kept for the next run" if kept else "nothing was written",
        next_step=", or ".join(filter(None, ("connect and run again", by_hand, resource.instead))),
    )


def _attempt(url: str, resource: Resource, part: Path, progress: Progress) -> _MirrorError | None:
    """Try a mirror once. Returns None when `part` is the resource, verified and on the disk."""
    try:
        resumed = _receive(url, resource, part, progress)
        if fault := _fault(resource, part):
            # A mirror may have changed between two pieces; what came in one piece will not come better.
            raise _MirrorError(fault, _FROM_ZERO if resumed else _FINAL, discard=True)
    except _MirrorError as error:
        if error.discard:
            part.unlink(missing_ok=True)
        return error
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    return None


def _receive(url: str, resource: Resource, part: Path, progress: Progress) -> bool:
    """Bring `part` to its full size, or raise _MirrorError. Returns whether bytes of an earlier answer are in it."""
    import requests  # here, as a build whose inputs are cached needs none of it
    import urllib3

    have = _size(part)
    if have >= resource.size:  # all of it, or too much: the check after this will tell
        return True
    # Unencoded, and read raw below: some servers call a .tgz "gzip encoded" and would have it unpacked on the way.
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
        raise _MirrorError(f"no answer ({_root(error)})", _NO_ANSWER) from error
    except requests.RequestException as error:
        raise _MirrorError(f"cannot be asked ({_root(error)})", _FINAL) from error
    except urllib3.exceptions.HTTPError as error:
        raise _MirrorError(f"broke off after {have:,} of {resource.size:,} bytes ({_root(error)})", _BROKEN) from error
    if have < resource.size:
        raise _MirrorError(f"ended after {have:,} of {resource.size:,} bytes", _BROKEN)
    return start > 0


def _start(status: int, headers: Mapping[str, str], head: bytes, have: int, size: int) -> int:
    """At which byte of the file an answer begins, 0 or `have`; raises _MirrorError where it is of no use.

    `head` is the first piece of its body, `have` the bytes there are already, `size` those of the whole file.
    """
    if status == 416 and have:
        raise _MirrorError("HTTP 416: has nothing behind what has arrived", _FROM_ZERO, discard=True)
    if status not in (200, 206):
        again = status in (408, 429) or status >= 500
        raise _MirrorError(f"HTTP {status}", _BROKEN if again else _FINAL)
    if status == 206:
        sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        if sent is None or int(sent[1]) != have:
            raise _MirrorError("HTTP 206 with the wrong range", _FROM_ZERO if have else _FINAL, discard=True)
        if sent[2] not in (str(size), "*"):
            raise _MirrorError(f"{sent[2]} bytes, expected {size}", _FINAL)
        return have
    if what := placeholder(head):
        raise _MirrorError(f"{what} in its place", _FINAL)
    if (length := headers.get("Content-Length", "")).isdecimal() and int(length) != size:
        raise _MirrorError(f"{length} bytes, expected {size}", _FINAL)
    return 0


def _root(error: BaseException) -> str:
    """What the system said at the bottom of an error: `Connection refused` rather than a pool and its retries."""
    while below := error.__cause__ or error.__context__:
        error = below
    return str(error)


def _fault(resource: Resource, path: Path) -> str | None:
    """What is wrong with the file at `path`, or None if it is the resource byte for byte."""
    try:
        if (size := path.stat().st_size) != resource.size:
            return f"{size} bytes, expected {resource.size}"
        if (sha256 := digest_file(path)) != resource.sha256:
            return f"SHA-256 {sha256}, expected {resource.sha256}"
    except OSError as error:
        return str(error)
    return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # no such file, or none that can be used: opening it will tell
        return 0

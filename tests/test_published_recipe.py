"""`--recipe published`: an archive in the official form gives the published bytes, and another is refuted."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.ranges.range_table import from_json, to_json
from pipeline.interface import cli
from pipeline.request import published_recipe
from pipeline.request.published_recipe import recorded_ranges
from recreate_model.floats import frozen_graph
from recreate_model.network.layer import EPSILON
from recreate_model.network.spec import MOBILENET_V2, PUBLISHED_MODEL, RESOURCES
from recreate_model.prove import corrections, toolchain
from recreate_model.prove.channels import add_ulps, factors
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_bytes, digest_file
from recreate_model.support.errors import InputError, UsageError
from recreate_model.support.resources import cache_folder
from tests.test_bad_input import assert_one_error, run

ARCHIVE = Path("checkpoint") / "official_form" / "mobilenet_v2_1.0_224.tgz"
STAND_IN = Path("checkpoint") / "mobilenet_v2_1.0_224.tgz"
PUBLISHED = Path("published") / "official"
MODEL = PUBLISHED / "mobilenet_v2_1.0_224_INT8.tflite"
EMULATOR = shutil.which("qemu-x86_64")


def typed(*words: object) -> int:
    """Runs a command in this process. Raises the error that the command line would print."""
    return cli._dispatch(cli._parse(["pipeline", *map(str, words)]))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--corrections", "table.json"), "--corrections"),
        (("--recipe", "published", "--calib", 5), "--calib"),
        (("--recipe", "published", "--range-method", "mse"), "--range-method"),
        (("--recipe", "published", "--model", "0.35_96"), "--model 0.35_96"),
        (("--recipe", "published", "--checkpoint", "seeded"), "--checkpoint seeded"),
    ],
)
def test_an_option_that_contradicts_the_recipe_is_invalid_usage(words: tuple[object, ...], named: str) -> None:
    """The recipe fixes ranges, model and weights; a table of moves is only for this recipe."""
    with pytest.raises(UsageError, match=named):
        typed("all", *words)


@pytest.mark.parametrize("flag", ["--corrections", "--published"])
def test_a_missing_file_is_refused_before_the_build(flag: str, tmp_path: Path) -> None:
    """Even if the build would not need the file, so that no missing path is kept as an option."""
    archive = tmp_path / "mobilenet_v2_1.0_224.tgz"
    archive.write_bytes(b"\x1f\x8b")
    with pytest.raises(InputError, match=str(tmp_path / "nothing")):
        typed("all", "--recipe", "published", "--checkpoint", archive, flag, tmp_path / "nothing", "--out", tmp_path)


def test_the_recorded_ranges_name_their_source() -> None:
    """It is the digest of the published file; they list no pictures, as none is known."""
    table, digest = recorded_ranges()
    assert table.recovered_from == RESOURCES["published-model"].sha256
    assert (table.pictures, table.network, table.graph_sha256) == ((), "mobilenet_v2_1.0_224", "")
    assert digest == digest_bytes(to_json(table).encode())


@pytest.mark.shared
def test_the_recorded_ranges_are_those_of_the_published_file(shared: Path, tmp_path: Path) -> None:
    """Recovering them again gives the same ranges."""
    target = tmp_path / "ranges.json"
    flags = ("--checkpoint", shared / ARCHIVE, "--output", target, "--out", tmp_path)
    assert run("recover", shared / MODEL, *flags).returncode == 0
    assert from_json(target.read_text(), "the table").spans == recorded_ranges()[0].spans


@pytest.fixture(scope="module")
def table(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of moves for the published file, recorded on this CPU."""
    path = tmp_path_factory.mktemp("moves") / "moves.json"
    done = run("prove", shared / MODEL, "--checkpoint", shared / ARCHIVE, "--record", path)
    assert done.returncode == 0, done.stderr
    return path


def build(command: str, archive: Path, out: Path, *flags: object, **environment: str) -> Any:
    """Builds the published recipe in another process, and returns the finished process."""
    words = ("--recipe", "published", "--checkpoint", archive, "--out", out, "--images", "procedural", *flags)
    return run(command, *words, **environment)


def folder_of(out: Path) -> Path:
    (folder,) = out.glob("*_published")
    return folder


@pytest.mark.shared
def test_the_archive_gives_the_published_bytes(shared: Path, tmp_path: Path) -> None:
    """SHA-1 and size match, and the deployables, the card and the provenance are made from those bytes."""
    flags = ("--limit", 2, "--targets", "ethos-u55-128", "--published", shared / PUBLISHED)
    done = build("all", shared / ARCHIVE, tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    folder = folder_of(tmp_path)
    (model,) = folder.glob("*_INT8.tflite")
    assert model.read_bytes() == (shared / MODEL).read_bytes()
    rows = {row["what"]: row for row in json.loads((folder / "verify.json").read_text())["rows"]}
    assert {row["verdict"] for row in rows.values()} == {"match"}
    assert rows["SHA-1"]["expected"] == MOBILENET_V2.published.sha1
    card = (folder / "README.md").read_text()
    conversion = json.loads((folder / "conversion.json").read_text())
    assert "It is the published mobilenet_v2_1.0_224_INT8, byte for byte." in card
    assert published_recipe.sentence(conversion) in card
    statement = json.loads((folder / "provenance.intoto.json").read_text())
    assert statement["predicate"]["buildDefinition"]["internalParameters"]["conversion"] == conversion
    assert run("attest", "--check", folder / "provenance.intoto.json").returncode == 0
    assert len(list((folder / "ethos_u").glob("**/*_vela.tflite"))) == 1
    assert run("verify", "--recipe", "published", "--checkpoint", shared / ARCHIVE, "--out", tmp_path).returncode == 0


@pytest.mark.shared
def test_a_table_instead_of_the_published_model_makes_only_reports_stale(
    table: Path, shared: Path, tmp_path: Path
) -> None:
    """Both move the factors to the same model, so every file made from the model stays up to date."""
    flags = ("--limit", 0, "--targets", "ethos-u55-128")
    assert build("all", shared / ARCHIVE, tmp_path, *flags, "--published", shared / PUBLISHED).returncode == 0
    path = folder_of(tmp_path) / "conversion.json"
    document = json.loads(path.read_text())
    if document["corrections"] is None:
        pytest.skip("this CPU folds as the publisher's did")
    assert build("quantize", shared / ARCHIVE, tmp_path, "--corrections", table, "--force").returncode == 0
    assert json.loads(path.read_text())["corrected_by"] == "recorded table"
    done = run("status", "--recipe", "published", "--checkpoint", shared / ARCHIVE, "--out", tmp_path, "--json")
    stale = {row["stage"] for row in json.loads(done.stdout) if row["state"] == "stale"}
    assert stale == {"card", "attest"}


@pytest.mark.shared
def test_a_statement_with_other_moves_is_refused(shared: Path, tmp_path: Path) -> None:
    """The provenance covers the moves, so a statement with other moves fails its check."""
    flags = ("--limit", 0, "--targets", "ethos-u55-128", "--published", shared / PUBLISHED)
    assert build("all", shared / ARCHIVE, tmp_path, *flags).returncode == 0
    path = folder_of(tmp_path) / "provenance.intoto.json"
    document = json.loads(path.read_text())
    document["predicate"]["buildDefinition"]["internalParameters"]["conversion"]["sha1_uncorrected"] = (
        MOBILENET_V2.published.sha1[::-1]
    )
    path.write_text(json.dumps(document))
    assert run("attest", "--check", path).returncode == 1


def emulate_another_cpu(cache: Path) -> None:
    """Prepares a cache whose TensorFlow 2.5.0 runs on an emulated Haswell."""
    (chain,) = toolchain.parse(published_recipe.TOOLCHAIN)
    python = toolchain.ensure(chain, cache_folder(), print)
    folder = cache / "toolchains" / python.parent.parent.name
    (folder / "bin").mkdir(parents=True)
    (folder / ".complete").touch()
    script = folder / "bin" / "python"
    script.write_text(f'#!/bin/sh\nexec {EMULATOR} -cpu Haswell {python} "$@"\n')
    script.chmod(0o755)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.skipif(EMULATOR is None, reason="no qemu-x86_64 here; Debian's package is qemu-user")
def test_another_cpu_reaches_the_bytes_with_the_recorded_table(table: Path, shared: Path, tmp_path: Path) -> None:
    """TensorFlow 2.5.0 on an emulated Haswell folds differently; the table moves its factors to the published bytes."""
    emulate_another_cpu(tmp_path / "cache")
    done = build(
        "quantize",
        shared / ARCHIVE,
        tmp_path / "out",
        "--corrections",
        table,
        RECREATE_MODEL_CACHE=str(tmp_path / "cache"),
    )
    assert done.returncode == 0, done.stderr
    folder = folder_of(tmp_path / "out")
    (model,) = folder.glob("*_INT8.tflite")
    assert digest_file(model, "sha1") == MOBILENET_V2.published.sha1
    conversion = json.loads((folder / "conversion.json").read_text())
    # The emulator computes 1/sqrt exactly, and no real CPU does.
    assert conversion["corrected_by"] == "recorded table"
    assert conversion["corrections"]["channels"] > 0


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.skipif(EMULATOR is None, reason="no qemu-x86_64 here; Debian's package is qemu-user")
def test_another_cpu_without_a_table_says_what_is_missing(shared: Path, tmp_path: Path) -> None:
    """Without the published file or a table nothing shows how the publisher's CPU folded, and no model is made."""
    emulate_another_cpu(tmp_path / "cache")
    environment = {"RECREATE_MODEL_CACHE": str(tmp_path / "cache"), "https_proxy": "http://localhost:9"}
    done = build("quantize", shared / ARCHIVE, tmp_path / "out", **environment)
    assert_one_error(done, 4, MOBILENET_V2.published.sha1, "--published", "--corrections", "no model was made")


@pytest.mark.shared
def test_a_table_of_another_graph_is_refused(table: Path, shared: Path, tmp_path: Path) -> None:
    """The stand-in archive with the table of the official form; the error has both digests."""
    found = digest_bytes(graph_of(shared / STAND_IN))
    done = build("quantize", shared / STAND_IN, tmp_path, "--corrections", table)
    assert_one_error(done, 3, found, json.loads(table.read_text())["graph_sha256"], "--record FILE")


@pytest.mark.shared
def test_a_file_that_is_not_the_published_one_is_refused(shared: Path, tmp_path: Path) -> None:
    """One byte is appended; the error has both SHA-1. The archive is one whose factors must be moved on any CPU."""
    other = tmp_path / "other.tflite"
    other.write_bytes((shared / MODEL).read_bytes() + b"\0")
    done = build("quantize", shared / STAND_IN, tmp_path, "--published", other)
    assert_one_error(done, 3, MOBILENET_V2.published.sha1, digest_file(other, "sha1"))


def graph_of(archive: Path) -> bytes:
    """Returns the frozen graph of an archive."""
    with tarfile.open(archive) as tar:
        (member,) = (each for each in tar if each.name.endswith("_frozen.pb"))
        stream = tar.extractfile(member)
        assert stream is not None
        return stream.read()


def changed_archive(archive: Path, target: Path, change: Callable[[Any], None]) -> Path:
    """Writes a copy of an archive after `change` has edited the GraphDef of its frozen graph; returns its path."""
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef.FromString(graph_of(archive))
    change(graph)
    data = graph.SerializeToString(deterministic=True)
    with tarfile.open(archive) as old, tarfile.open(target, "w:gz", compresslevel=1) as new:
        for member in old:
            if not member.isfile():
                continue
            stream = old.extractfile(member)
            assert stream is not None
            content = data if member.name.endswith("_frozen.pb") else stream.read()
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return target


def _constant(graph: Any, node: str, place: int) -> Any:
    """Returns the constant that is input `place` of a node, behind any Identity nodes."""
    nodes = {each.name: each for each in graph.node}
    found = nodes[nodes[node].input[place]]
    while found.op == "Identity":
        found = nodes[found.input[0]]
    return found


def _change(constant: Any, edit: Callable[[Any], None]) -> None:
    from tensorflow.python.framework import tensor_util

    values = tensor_util.MakeNdarray(constant.attr["value"].tensor).copy()
    edit(values)
    constant.attr["value"].tensor.CopyFrom(tensor_util.make_tensor_proto(values))


def _batch_norm(graph: Any, scope: str) -> str:
    (name,) = (each.name for each in graph.node if each.op.startswith("FusedBatchNorm") and scope in each.name)
    return str(name)


def _one_weight(graph: Any) -> None:
    """Adds 0.01 to a weight of a projection."""
    (node,) = (each for each in graph.node if each.op == "Conv2D" and "expanded_conv_3/project" in each.name)

    def edit(values: Any) -> None:
        values[0, 0, 5, 7] += 0.01

    _change(_constant(graph, node.name, 1), edit)


def _positive_gamma(graph: Any) -> None:
    """Makes every gamma of the first depthwise layer positive; the published file has negative ones."""

    def edit(values: Any) -> None:
        assert (values < 0).any()
        np.abs(values, out=values)

    _change(_constant(graph, _batch_norm(graph, "expanded_conv/depthwise"), 1), edit)


def _one_name(graph: Any) -> None:
    """Renames a residual addition."""
    for node in graph.node:
        node.name = node.name.replace("expanded_conv_4/add", "expanded_conv_4/sum")
        for place, source in enumerate(node.input):
            node.input[place] = source.replace("expanded_conv_4/add", "expanded_conv_4/sum")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_one_weight, ("expanded_conv_3/project", "refute")),
        (_positive_gamma, ("expanded_conv/depthwise", "refute")),
        (_one_name, ("expanded_conv_4", "every number explained, and other bytes")),
    ],
    ids=["one weight", "positive gamma", "one name"],
)
def test_a_changed_graph_gives_an_error_that_names_the_difference(
    change: Callable[[Any], None], named: tuple[str, ...], shared: Path, tmp_path: Path
) -> None:
    """It names the tensor or node that differs; the status is 1, and no model is made."""
    archive = changed_archive(shared / ARCHIVE, tmp_path / "changed.tgz", change)
    done = build("quantize", archive, tmp_path / "out", "--published", shared / PUBLISHED)
    assert_one_error(done, 1, "no model was made", *named)
    assert not list((tmp_path / "out").glob("**/*_INT8.tflite"))


def other_statistics(graph: Any, table: Path) -> None:
    """Replaces the BatchNorm of the depthwise layers by other numbers that fold to the same floats, to the last bits.

    A channel keeps its own numbers if, after rounding, no factor within two ulps gives the published scale: no CPU
    could have made the file from it.
    """
    generator = np.random.default_rng(7)
    shifts = corrections.from_json(table.read_text(), "the table").shifts
    layers = frozen_graph.read_layers(graph.SerializeToString(), PUBLISHED_MODEL, "the graph")
    values = frozen_graph.as_values(layers)
    nodes = {node.name: node for node in graph.node}
    for each in layers:
        if each.bias is not None:
            continue
        given = factors(each.layer, values)
        folded, bias = given.fold(shifts[each.layer.name])
        count = each.layer.outputs
        old = [each.batch_norm[f"{each.layer.name}/BatchNorm/{part}"] for part in ("gamma", "beta")]
        old += [each.batch_norm[f"{each.layer.name}/BatchNorm/moving_{part}"] for part in ("mean", "variance")]
        # Tensor names depend on which layers have a negative gamma: only the first one does.
        gamma = (np.where(old[0] < 0, -1, 1) * generator.uniform(0.3, 3, count)).astype(np.float32)
        variance = generator.uniform(0.05, 4, count).astype(np.float32)
        mean = generator.normal(0, 0.5, count).astype(np.float32)
        factor = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + EPSILON)
        weights = (folded / factor[:, None]).astype(np.float32)
        reached = _reach(weights, folded, factor.astype(np.float32))
        assert reached.mean() > 0.9
        new = (gamma, (bias + mean * factor).astype(np.float32), mean, variance)
        name = _batch_norm(graph, f"{each.layer.name.removeprefix('MobilenetV2/')}/")
        for place, (ours, theirs) in enumerate(zip(new, old, strict=True), 1):
            _replace(_constant(graph, name, place), np.where(reached, ours, theirs))
        raw = np.where(reached[:, None], weights, given.weights).T.reshape(3, 3, count, 1)
        _replace(_constant(graph, nodes[nodes[name].input[0]].name, 1), raw)


def _replace(constant: Any, values: Array) -> None:
    _change(constant, lambda old: old.__setitem__(..., values))


def _reach(weights: Array, folded: Array, factor: Array) -> Array:
    """Moves the largest weight of each channel so that a factor within two ulps gives the folded one, if possible.

    Changes `weights` in place, and returns for each channel whether it succeeded.
    """
    reached = np.zeros(len(folded), bool)
    for channel, row in enumerate(folded):
        place = int(np.abs(row).argmax())
        near = [add_ulps(factor[channel : channel + 1], np.array([shift]))[0] for shift in (0, -1, 1, -2, 2)]
        candidates = [add_ulps(weights[channel, place : place + 1], np.array([units]))[0] for units in range(-8, 9)]
        hits = [value for each in near for value in candidates if value * each == row[place]]
        reached[channel] = bool(hits)
        weights[channel, place] = hits[0] if hits else 0
    return reached


@pytest.mark.shared
def test_other_batch_norm_values_with_the_same_product_give_the_same_bytes(
    table: Path, shared: Path, tmp_path: Path
) -> None:
    """Only the folded floats matter: gamma, mean and variance of the depthwise channels are different ones."""
    archive = changed_archive(shared / ARCHIVE, tmp_path / "other.tgz", lambda graph: other_statistics(graph, table))
    done = build("quantize", archive, tmp_path / "out", "--published", shared / PUBLISHED)
    assert done.returncode == 0, done.stderr
    (model,) = folder_of(tmp_path / "out").glob("*_INT8.tflite")
    assert digest_file(model, "sha1") == MOBILENET_V2.published.sha1


@pytest.mark.shared
def test_other_weights_are_refuted(shared: Path, tmp_path: Path) -> None:
    """The weights of the stand-in archive come from another training."""
    done = build("quantize", shared / STAND_IN, tmp_path, "--published", shared / PUBLISHED)
    assert_one_error(done, 1, "numbers refute it", "no model was made")

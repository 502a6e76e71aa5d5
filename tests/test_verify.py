"""Verification and evaluation: what is claimed, what is not, and figures with their intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from calibration.parallel.workers import Workers
from calibration.ranges.range_table import from_json
from pipeline.claims import verify
from pipeline.claims.claim import Row, holds
from pipeline.claims.evaluate import Proportion
from pipeline.console import NoBars
from pipeline.engine import golden
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from recreate_model.floats.frozen_graph import GraphComparison
from recreate_model.network import architecture
from recreate_model.network.spec import Model
from recreate_model.prove.rederive import rederive
from recreate_model.quantize import convert
from recreate_model.recipe import Checkpoint, Recipe
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_bytes
from recreate_model.tflite.model_view import read_model
from tests.conftest import SMALL, SMALL_REQUEST, build

NAME = "mobilenet_v2_0.35_96_seeded_INT8"
Origin = tuple[bytes, Mapping[str, tuple[float, float]]]
EXACT = asdict(GraphComparison(exact=262))


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """The recipe of the small build."""
    return resolve(SMALL_REQUEST, NoBars(), may_fetch=False)[0]


@pytest.fixture(scope="module")
def model(finished_build: Request) -> bytes:
    """The small build's INT8 model."""
    return (finished_build.out / NAME / f"{NAME}.tflite").read_bytes()


@pytest.fixture(scope="module")
def origin(finished_build: Request, small_float: bytes) -> Origin:
    """What the small build's model was made from: the float model and its ranges."""
    path = finished_build.out / NAME / "calibration" / "ranges.json"
    return small_float, from_json(path.read_text(), "ranges").spans


def _verdicts(table: tuple[Row, ...]) -> dict[str, str]:
    return {row.what: row.verdict for row in table}


def test_everything_claimed_of_a_good_model_holds(recipe: Recipe, model: bytes, origin: Origin) -> None:
    """With the golden digest every claim matches; a seeded build does not claim the published bytes."""
    table = verify.rows(recipe, model, *origin, digest_bytes(model), EXACT)
    assert holds(table)
    assert _verdicts(table)["SHA-256"] == _verdicts(table)["float weights"] == "match"
    assert _verdicts(table)["SHA-1"] == _verdicts(table)["size"] == "not claimed"
    assert all(row.why for row in table)


def test_what_is_not_recorded_is_not_claimed(recipe: Recipe, model: bytes, origin: Origin) -> None:
    """Without an entry in golden.json and without a frozen graph there is nothing to compare with."""
    verdicts = _verdicts(verify.rows(recipe, model, *origin, None, None))
    assert verdicts["SHA-256"] == verdicts["float weights"] == "not claimed"


def test_one_changed_weight_is_noticed(recipe: Recipe, model: bytes, origin: Origin) -> None:
    """After one step in one weight the SHA-256 differs, and the row of the weights names the tensor."""
    changed = convert.parse(model)
    largest = max((buffer for buffer in changed.buffers if buffer.data is not None), key=lambda b: len(b.data))
    largest.data = largest.data.copy()
    largest.data[1000] ^= 1
    table = verify.rows(recipe, convert.pack(changed), *origin, digest_bytes(model), EXACT)
    sha256, weights = (row for row in table if row.verdict == "differs")
    assert (sha256.what, weights.what) == ("SHA-256", "INT8 weights")
    total = int(weights.expected.split()[0])
    assert weights.found == f"{total - 1} of {total}, not MobilenetV2/Logits/Conv2d_1c_1x1/Conv2D"


@pytest.mark.parametrize(
    ("kind", "what"), [("bias", "INT32 biases"), ("scale", "activation scales"), ("zero point", "activation scales")]
)
def test_one_changed_number_is_noticed(kind: str, what: str, recipe: Recipe, model: bytes, origin: Origin) -> None:
    """A bias off by one, a scale off by its last bit and a zero point off by one each fail their own row."""
    changed = convert.parse(model)
    graph = changed.subgraphs[0]
    operator = graph.operators[4]
    if kind == "bias":
        buffer = changed.buffers[graph.tensors[operator.inputs[2]].buffer]
        buffer.data = buffer.data.copy()
        buffer.data[0] ^= 1
    else:
        # The output of an addition: no bias scale depends on it.
        addition = next(op for op in graph.operators if type(op.builtinOptions).__name__ == "AddOptionsT")
        quantization = graph.tensors[addition.outputs[0]].quantization
        if kind == "scale":
            quantization.scale = np.nextafter(quantization.scale, np.float32(1))
        else:
            quantization.zeroPoint = quantization.zeroPoint + 1
    table = verify.rows(recipe, convert.pack(changed), *origin, None, EXACT)
    assert what in {row.what for row in table if row.verdict == "differs"}


def test_a_model_of_other_ranges_is_noticed(recipe: Recipe, model: bytes, origin: Origin) -> None:
    """Its activation scales do not follow from the ranges."""
    name = "MobilenetV2/expanded_conv_2/add"
    small_float, spans = origin
    wider = {**spans, name: (spans[name][0] * 1.01, spans[name][1])}
    table = verify.rows(recipe, model, small_float, wider, None, EXACT)
    assert [row.what for row in table if row.verdict == "differs"] == ["activation scales"]


def test_a_changed_name_is_noticed(recipe: Recipe, model: bytes, origin: Origin) -> None:
    """The published card claims the name of the input."""
    changed = convert.parse(model)
    changed.subgraphs[0].tensors[changed.subgraphs[0].inputs[0]].name = b"input"
    table = verify.rows(recipe, convert.pack(changed), *origin, None, EXACT)
    assert [row.what for row in table if row.verdict == "differs"] == ["input name"]


def test_a_float_model_is_noticed(recipe: Recipe, small_float: bytes, origin: Origin) -> None:
    """Types, names, quantization and float tensors all differ."""
    table = verify.rows(recipe, small_float, *origin, None, EXACT)
    differs = {row.what for row in table if row.verdict == "differs"}
    assert {"input type", "output type", "output quantization", "float tensors"} <= differs


def test_weights_that_are_not_the_frozen_graphs_are_noticed(recipe: Recipe, model: bytes, origin: Origin) -> None:
    """If a checkpoint's averages differ from its frozen graph, the row names the tensor."""
    other = asdict(GraphComparison(exact=262, first_other="MobilenetV2/Conv/weights, by up to 1e-07"))
    (row,) = (row for row in verify.rows(recipe, model, *origin, None, other) if row.verdict == "differs")
    assert (row.what, "not MobilenetV2/Conv/weights" in row.found) == ("float weights", True)


def test_a_frozen_graph_without_comparable_weights_is_not_checked(recipe: Recipe, model: bytes, origin: Origin) -> None:
    """Nothing was compared, so it is no match, and the row says why."""
    nothing = asdict(GraphComparison(not_checked="no Softmax"))
    (row,) = (row for row in verify.rows(recipe, model, *origin, None, nothing) if row.what == "float weights")
    assert (row.verdict, "no Softmax" in row.why) == ("not checked", True)


def test_channels_with_tiny_weights_are_derived_too(small_weights: dict[str, Array]) -> None:
    """Training leaves channels with weights far below their bias; the quantizer widens their scales."""
    random = np.random.default_rng(3)
    values = dict(small_weights)
    for layer in architecture.layers(SMALL):
        weights = values[layer.weights_name]
        count = weights.shape[2 if layer.depthwise else 3]
        factor = np.where(random.random(count) < 0.5, 1, 10.0 ** random.uniform(-12, 0, count)).astype(np.float32)
        values[layer.weights_name] = weights * factor.reshape((1, 1, -1, 1) if layer.depthwise else (1, 1, 1, -1))
    float_model = convert.convert_float(architecture.frozen_graph(SMALL, values))
    spans = {
        name: (0.0, random.uniform(0.5, 6)) if name.endswith("Relu6") else (-random.uniform(1, 100), 100.0)
        for name in convert.activations(float_model)
    } | {"input": (-1.0, 1.0)}
    found = rederive(read_model(float_model), read_model(convert.quantize(float_model, spans)), spans)
    for agreement in (found.activations, found.weights, found.biases):
        assert agreement.matching == agreement.total > 0, agreement.first_other


def test_the_published_figures_are_shown_for_the_official_checkpoint_alone(
    recipe: Recipe, model: bytes, origin: Origin
) -> None:
    """They are shown beside ours and not claimed: the calibration pictures behind them are lost."""
    official = replace(recipe, model=Model(), checkpoint=Checkpoint("official", "0" * 64))
    row = next(row for row in verify.rows(official, model, *origin, None, EXACT) if row.what == "SHA-1")
    assert (row.expected, row.verdict) == (verify.MOBILENET_V2.published.sha1, "not claimed")
    row = next(row for row in verify.rows(recipe, model, *origin, None, EXACT) if row.what == "SHA-1")
    assert row.expected == ""


def test_a_claim_that_fails_fails_the_build(small_build: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a wrong golden digest the stage fails when it runs, and again when it is reused."""
    monkeypatch.setattr(golden, "model_claims", lambda recipe: "0" * 64)
    for state in ("built", "reused"):
        (outcome,) = (row for row in build(small_build, ("verify",)) if row.stage == "verify")
        assert (outcome.state, outcome.holds) == (state, False)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (1, 1, 0.2065, 1.0),
        (8, 20, 0.2188, 0.6134),
    ],
)
def test_intervals_are_wilson_score_intervals(hits: int, n: int, low: float, high: float) -> None:
    """Bounds as R's binom.confint(method = "wilson") gives them, to four digits."""
    assert Proportion(hits, n).interval == pytest.approx((low, high), abs=5e-5)


def test_accuracy_needs_labels(finished_build: Request) -> None:
    """Procedural pictures have none: agreement is measured, top-1 is not."""
    document = json.loads((finished_build.out / NAME / "evaluate.json").read_text())
    assert document["float_top1"] is document["int8_top1"] is None
    assert document["agreement"]["n"] == SMALL_REQUEST.limit


def test_accuracy_is_counted_on_labeled_pictures(small_build: Request, picture_folder: Path) -> None:
    """In synset folders both models have a top-1, over all pictures that did not calibrate."""
    build(replace(small_build, images=str(picture_folder), calib=4, limit=100), ("evaluate",))
    document = json.loads((small_build.out / NAME / "evaluate.json").read_text())
    assert document["float_top1"]["n"] == document["int8_top1"]["n"] == document["pictures"] == 8


def test_a_classifier_with_one_answer_is_right_for_that_class_alone(
    picture_folder: Path, small_weights: dict[str, object]
) -> None:
    """A network that always gives one class is right for the pictures of that class and for no others."""
    from calibration.pictures.folder import FolderSource
    from calibration.pictures.inputs import Inputs
    from calibration.selection import select
    from pipeline.claims.evaluate import evaluate
    from recreate_model.recipe import Preprocess
    from tests.conftest import SMALL

    selection = select(FolderSource(picture_folder), calib=0, limit=100)
    label = selection.evaluation[0].label
    assert label is not None
    name = "MobilenetV2/Logits/Conv2d_1c_1x1"
    biases = np.zeros(1001, np.float32)
    biases[label] = 90
    certain = {**small_weights, f"{name}/biases": biases}
    model = convert.convert_float(architecture.frozen_graph(SMALL, certain))
    names = convert.activations(model)
    spans = {key: (0.0, 6.0) if key.endswith("Relu6") else (-100.0, 100.0) for key in names} | {"input": (-1.0, 1.0)}
    inputs = Inputs(FolderSource(picture_folder), Preprocess(), 96)
    quantized = convert.quantize(model, spans)
    result = evaluate(model, quantized, inputs, selection.evaluation, Workers(), lambda count: None)
    assert result.float_top1 == result.int8_top1 == Proportion(2, 12)
    assert result.agreement == Proportion(12, 12)

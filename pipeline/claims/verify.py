"""Compares a model with what is claimed of it, row by row.

Claims have four sources: the published card (names, shapes, types, operators, output quantization), the recipe's entry
in golden.json (the bytes), the checkpoint's own frozen graph (float weights), and the float model with its ranges
(every scale, INT8 weight and bias, derived again without TensorFlow). The published SHA-1 is claimed only for the
published recipe; other builds list it for reference, as it depends on a toolchain of 2021 and its ranges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.claims.claim import BACKGROUND, Row, claim
from recreate_model.floats.frozen_graph import FOLDING_ULPS, as_values, read_layers
from recreate_model.network import architecture
from recreate_model.network.spec import MOBILENET_V2, PUBLISHED_MODEL, Model
from recreate_model.prove import consistency
from recreate_model.prove.channels import FACTOR_ULPS
from recreate_model.prove.rederive import Agreement, Rederivation, rederive, rederive_activations
from recreate_model.quantize.quantizer import Generation
from recreate_model.recipe import Recipe
from recreate_model.support.arrays import Array
from recreate_model.support.digest import Json, digest_bytes
from recreate_model.tflite.model_view import ModelView, Quantization, read_model

_CARD, _MODEL = "the published card", "the published model"
_PUBLISHED = MOBILENET_V2.published


def rows(
    recipe: Recipe,
    model: bytes,
    float_model: bytes,
    spans: Mapping[str, tuple[float, float]],
    golden_sha256: str | None,
    frozen_graph: Json,
    background: str = "",
) -> tuple[Row, ...]:
    """All rows for a model.

    Args:
        float_model: what the model was quantized from.
        spans: name of each activation -> its range (min, max).
        golden_sha256: SHA-256 of the model in golden.json for this recipe; None if it has no entry.
        frozen_graph: `archive_frozen_graph` of freeze.json; None if the checkpoint has no frozen graph.
        background: how class 0 was filled in, if the checkpoint has none; empty if it has one.
    """
    view = read_model(model)
    return (
        *_bytes(recipe, model, golden_sha256),
        *_interface(recipe.model, view),
        *_content(view),
        *_numbers(rederive(read_model(float_model, "the float model"), view, spans)),
        _weights(recipe, frozen_graph),
        *([Row(BACKGROUND, "", "filled in", "not claimed", background)] if background else []),
    )


def published_rows(
    recipe: Recipe,
    model: bytes,
    float_model: bytes,
    spans: Mapping[str, tuple[float, float]],
    graph: bytes,
    frozen_graph: Json,
) -> tuple[Row, ...]:
    """All rows for a model of the published recipe: every figure of the card is claimed.

    Args:
        float_model, spans, frozen_graph: as for `rows`.
        graph: the checkpoint's frozen graph, which was converted, serialized.
    """
    view = read_model(model)
    activations = rederive_activations(read_model(float_model, "the float model"), view, spans, Generation.SCALE_FLOOR)
    return (
        *_published_bytes(model),
        *_interface(PUBLISHED_MODEL, view, _PUBLISHED.input_quantization),
        *_content(view),
        _agreement("activation scales", activations, "the recorded ranges, by the arithmetic of TensorFlow 2.5"),
        *_explained(view, as_values(read_layers(graph, PUBLISHED_MODEL, "the checkpoint's frozen graph"))),
        _weights(recipe, frozen_graph),
    )


def given_rows(model: bytes) -> tuple[Row, ...]:
    """All rows for a given model; those of the published card if its SHA-1 is the published one."""
    view = read_model(model)
    sha1 = digest_bytes(model, "sha1")
    if sha1 == _PUBLISHED.sha1:
        return (
            *_published_bytes(model),
            *_interface(PUBLISHED_MODEL, view, _PUBLISHED.input_quantization),
            *_content(view),
        )
    why = "a given file; nothing is claimed of it"
    return (
        Row("SHA-1", "", sha1, "not claimed", why),
        Row("size", "", str(len(model)), "not claimed", why),
        *(
            Row(side, "", f"{tensor.name}, {tensor.dtype} {tensor.shape}", "not claimed", why)
            for side, indices in (("input", view.inputs), ("output", view.outputs))
            for tensor in (view.tensors[index] for index in indices)
        ),
        Row("operators", "", " ".join(view.operator_names), "not claimed", why),
        _no_floats(view),
    )


def _published_bytes(model: bytes) -> Iterator[Row]:
    yield claim("SHA-1", _PUBLISHED.sha1, digest_bytes(model, "sha1"), _CARD)
    yield claim("size", str(_PUBLISHED.size), str(len(model)), _CARD)


def _bytes(recipe: Recipe, model: bytes, golden_sha256: str | None) -> Iterator[Row]:
    found = digest_bytes(model)
    if golden_sha256 is None:
        yield Row("SHA-256", "", found, "not claimed", "golden.json has no entry for this recipe")
    else:
        yield claim("SHA-256", golden_sha256, found, "golden.json, for this recipe")
    why = "a published figure of another toolchain (2021) and a lost calibration set"
    published = recipe.model == PUBLISHED_MODEL and recipe.checkpoint.kind == "official"
    for what, figure, value in (
        ("SHA-1", _PUBLISHED.sha1, digest_bytes(model, "sha1")),
        ("size", str(_PUBLISHED.size), str(len(model))),
    ):
        yield Row(what, figure if published else "", value, "not claimed", why if published else _not_published(recipe))


def _not_published(recipe: Recipe) -> str:
    if recipe.model != PUBLISHED_MODEL:
        return f"the published figures are of {PUBLISHED_MODEL.name}"
    return "the published figures are of the official checkpoint"


def _interface(model: Model, view: ModelView, input_quantization: str = "") -> Iterator[Row]:
    card, resolution = _CARD, model.resolution
    yield claim("input name", MOBILENET_V2.int8_input_name, view.input.name, card)
    yield claim("input shape", str((1, resolution, resolution, 3)), str(view.input.shape), card)
    yield claim("input type", "int8", view.input.dtype, card)
    what, found = "input quantization", quantization_text(view.input.quantization)
    if input_quantization:
        yield claim(what, input_quantization, found, _MODEL)
    else:
        yield Row(what, "", found, "not claimed", "it follows from the calibration pictures")
    yield claim("output name", MOBILENET_V2.int8_output_name, view.output.name, card)
    yield claim("output shape", str((1, MOBILENET_V2.classes)), str(view.output.shape), card)
    yield claim("output type", "int8", view.output.dtype, card)
    yield claim(
        "output quantization", _PUBLISHED.output_quantization, quantization_text(view.output.quantization), _MODEL
    )


def _content(view: ModelView) -> Iterator[Row]:
    yield claim("operators", " ".join(_PUBLISHED.operators), " ".join(view.operator_names), _MODEL)
    yield _no_floats(view)


def _no_floats(view: ModelView) -> Row:
    floats = [tensor.name for tensor in view.tensors if tensor.dtype.startswith(("float", "bfloat"))]
    return claim("float tensors", "none", ", ".join(floats) or "none", "full-integer quantization")


def _numbers(derived: Rederivation) -> Iterator[Row]:
    why = "the float model and its ranges, derived again"
    for what, agreement in (
        ("activation scales", derived.activations),
        ("INT8 weights", derived.weights),
        ("INT32 biases", derived.biases),
    ):
        yield _agreement(what, agreement, why)


def _agreement(what: str, agreement: Agreement, why: str) -> Row:
    found = f"{agreement.matching} of {agreement.total}"
    if agreement.first_other:
        found += f", not {agreement.first_other}"
    return claim(what, f"{agreement.total} of {agreement.total}", found, why)


def _explained(view: ModelView, values: Mapping[str, Array]) -> Iterator[Row]:
    """Whether one folding factor within the tolerance explains each channel, if another CPU folded BatchNorm."""
    layers = consistency.compare(view, architecture.layers(PUBLISHED_MODEL), values, Generation.SCALE_FLOOR)
    refuted = [refutation for layer in layers for refutation in layer.refutations]
    weights, biases = sum(layer.weights for layer in layers), sum(layer.biases for layer in layers)
    expected = f"{weights} weights and {biases} biases explained"
    found = f"{refuted[0].what} of {refuted[0].tensor} is {refuted[0].found}" if refuted else expected
    why = f"the checkpoint's frozen graph, one folding factor a channel within {FACTOR_ULPS} units in the last place"
    yield claim("INT8 weights and INT32 biases", expected, found, why)


def _weights(recipe: Recipe, frozen_graph: Json) -> Row:
    """The comparison of the float weights with the constants of the archive's frozen graph, if it has one."""
    what, why = "float weights", "the archive's own frozen graph"
    if recipe.checkpoint.form:
        return Row(what, "", "", "not claimed", f"a {recipe.checkpoint.form} has no second copy of its weights")
    if frozen_graph is None:
        return Row(what, "", "", "not claimed", "the checkpoint has no frozen graph to compare with")
    if frozen_graph["not_checked"]:
        return Row(what, "", "", "not checked", f"{why} has another layout: {frozen_graph['not_checked']}")
    exact, folded, other = (frozen_graph[name] for name in ("exact", "folded", "first_other"))
    expected = f"{exact} constants the same"
    if folded:
        expected += f", {folded} with BatchNorm folded within {FOLDING_ULPS} units in the last place"
        why += f", {frozen_graph['largest_ulps']:.2g} such units apart at most" * (not other)
    return claim(what, expected, f"not {other}" if other else expected, why)


def quantization_text(value: Quantization | None) -> str:
    """Scales and zero points of a tensor as text."""
    if value is None:
        return "none"
    return f"scale {', '.join(map(repr, value.scales))}, zero point {', '.join(map(str, value.zero_points))}"

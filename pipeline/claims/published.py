"""Compares the published model and its test vectors with what is claimed of them, and a build's model with both.

Claims come from the pinned SHA-256 digests, from the published card (SHA-1, size, interface), and from the reference
kernels, which produced every byte of the published output. A build's model that is not the published one was calibrated
on other pictures; nothing is claimed of its scores.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from calibration.pictures.preprocess import quantize_input
from pipeline.claims.claim import Row, claim
from pipeline.claims.published_files import File, Files, read_vector
from pipeline.claims.verify import quantization_text
from recreate_model.network.spec import MOBILENET_V2
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import InputError
from recreate_model.tflite.interpret import Kernels, Runner
from recreate_model.tflite.model_view import ModelView, Quantization, read_model

CARD = MOBILENET_V2.published
_OUTPUT_SHAPE = (1, MOBILENET_V2.classes)
_REFERENCE = "the reference kernels, which produced the published output"


def rows(ours: bytes | None, files: Files) -> tuple[Row, ...]:
    """All rows.

    Args:
        ours: a build's INT8 model; None if the build has none.

    Raises:
        InputError: a file exists and is not usable as the published one.
    """
    value = read_vector(files.input, CARD.input_shape)
    wanted = read_vector(files.output, _OUTPUT_SHAPE)
    view = None if files.model.data is None else _read(files.model.data, files.model.where)
    table = [_pin(file) for file in (files.model, files.input, files.output)]
    if view and files.model.data is not None:
        table += _card(files.model.data)
        table += _interface(view)
    table += _published_run(files.model, view, value, wanted)
    table += _our_run(ours, files.model, view, value, wanted)
    return tuple(table)


def _read(model: bytes, where: str) -> ModelView:
    """The model's view, whose inputs and outputs are known to be among its tensors."""
    view = read_model(model, where)
    interface = (*view.inputs, *view.outputs)
    scaled = [view.tensors[index].quantization for index in interface if 0 <= index < len(view.tensors)]
    if not interface or len(scaled) != len(interface) or any(q and len(q.zero_points) != len(q.scales) for q in scaled):
        raise InputError(
            expected=f"{where} to have inputs and outputs among its tensors",
            found="a damaged TensorFlow Lite file",
            done="it was not used",
            next_step="give the published file, or leave PATH out to fetch it",
        )
    return view


def _pin(file: File) -> Row:
    what = f"{file.what}: SHA-256"
    if file.data is None:
        return Row(what, file.resource.sha256, "", "not checked", file.why)
    return claim(what, file.resource.sha256, digest_bytes(file.data), file.where)


def _card(model: bytes) -> Iterator[Row]:
    why = "the published card"
    yield claim("published model: SHA-1", CARD.sha1, digest_bytes(model, "sha1"), why)
    yield claim("published model: size", str(CARD.size), str(len(model)), why)


def _interface(view: ModelView) -> Iterator[Row]:
    why = "the published card"
    for side, indices, name, shape in (
        ("input", view.inputs, MOBILENET_V2.int8_input_name, CARD.input_shape),
        ("output", view.outputs, MOBILENET_V2.int8_output_name, _OUTPUT_SHAPE),
    ):
        expected = f"{name}, int8 {shape}"
        found = "; ".join(f"{view.tensors[i].name}, {view.tensors[i].dtype} {view.tensors[i].shape}" for i in indices)
        yield claim(f"published model: {side}", expected, found or "none", why)
    if view.outputs:
        found = quantization_text(view.output.quantization)
        yield claim("published model: output scale", CARD.output_quantization, found, "a softmax is at most 1")


def _published_run(file: File, view: ModelView | None, value: Array | None, wanted: Array | None) -> Iterator[Row]:
    """Rows on running the published model on the published input."""
    what = "published output"
    missing = _missing(view, value, wanted, "the published model")
    if missing or file.data is None or value is None or wanted is None:
        yield Row(f"{what}: scores", "", "", "not checked", missing)
        return
    found = _scores(file.data, file.where, value, "reference")
    yield claim(f"{what}: scores", _distance(wanted, wanted), _distance(found, wanted), _REFERENCE)
    other = _scores(file.data, file.where, value, "xnnpack")
    why = "XNNPACK kernels, whose bytes depend on the CPU"
    yield Row(f"{what}: scores with XNNPACK", "", _distance(other, wanted), "not claimed", why)


def _our_run(
    ours: bytes | None, file: File, published: ModelView | None, value: Array | None, wanted: Array | None
) -> Iterator[Row]:
    """Rows on running our model on the published input, requantized if the input scales differ."""
    what = "our model on the published input"
    if ours is None:
        yield Row(f"{what}: scores", "", "", "not checked", "the build has no model, and this command makes none")
        return
    view = read_model(ours, "our model")
    missing = _missing(view, value, wanted, "our model")
    if missing or value is None or wanted is None:
        yield Row(f"{what}: scores", "", "", "not checked", missing)
        return
    if ours == file.data:
        found = _scores(ours, "our model", value, "reference")
        why = f"our model is the published one; {_REFERENCE}"
        yield claim(f"{what}: scores", _distance(wanted, wanted), _distance(found, wanted), why)
        return
    own, theirs = view.input.quantization, published.input.quantization if published and published.inputs else None
    how = "reference kernels"
    if own and theirs and (own.scales, own.zero_points) != (theirs.scales, theirs.zero_points):
        value = _requantized(value, theirs, own)
        how += ", the input requantized to our scale"
    elif theirs is None:
        how += ", the input unchanged, as the published scale is not available"
    found = _scores(ours, "our model", value, "reference")
    why = f"{how}; ours is another model with other ranges"
    yield Row(f"{what}: scores", "", _distance(found, wanted), "not claimed", why)
    first = int(wanted.argmax())
    # If several classes share the highest score, the expected one counts.
    best = first if found[first] == found.max() else int(found.argmax())
    yield Row(f"{what}: first class", f"class {first}", f"class {best}", "not claimed", why)


def _missing(view: ModelView | None, value: Array | None, wanted: Array | None, model: str) -> str:
    """Why the model cannot be run; empty if it can."""
    if view is None or value is None or wanted is None:
        parts = (("model", view), ("input", value), ("output", wanted))
        return f"the published {' and '.join(name for name, part in parts if part is None)} not available"
    for side, indices, shape in (("takes", view.inputs, CARD.input_shape), ("gives", view.outputs, _OUTPUT_SHAPE)):
        found = [f"{view.tensors[index].dtype} {view.tensors[index].shape}" for index in indices]
        if found != [f"int8 {shape}"]:
            return f"{model} {side} {', '.join(found) or 'nothing'}"
    return ""


def _distance(found: Array, wanted: Array) -> str:
    difference = np.abs(found - wanted)
    return f"{int((difference == 0).sum())} of {len(wanted)} bytes equal, {int(difference.max())} levels apart at most"


def _requantized(value: Array, source: Quantization, target: Quantization) -> Array:
    real = (value.astype(np.float32) - np.float32(source.zero_points[0])) * np.float32(source.scales[0])
    return quantize_input(real, target.scales[0], target.zero_points[0])


def _scores(model: bytes, name: str, value: Array, kernels: Kernels) -> Array:
    """The scores of all classes: int64, shape (1001,)."""
    try:
        (output,) = Runner(model, kernels).run(value)
    except (ValueError, RuntimeError) as error:
        message = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            expected=f"{name} to run on its own test input",
            found=f"that the interpreter refuses it ({message})",
            done="nothing was written",
            next_step="give the published file, or leave PATH out to fetch it",
        ) from error
    scores: Array = output.reshape(-1).astype(np.int64)
    return scores

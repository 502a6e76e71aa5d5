"""Compares two `.tflite` files: how far they agree, and every difference.

What cannot be compared counts as different, so a verdict never claims more than was checked. Not for: whether a file
derives from a checkpoint (`prove`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from recreate_model.compare.elements import Elements, compare_elements, first_difference, is_bias_requantized, same
from recreate_model.compare.pairing import Pairing, Place, constants, pair
from recreate_model.compare.verdict import Comparison, Difference, Kind, Verdict, comparison_json
from recreate_model.quantize.scales import prescribed_difference
from recreate_model.tflite.model_view import ModelView, Operator, Signature, Tensor, read_model

__all__ = ["Comparison", "Difference", "Kind", "Verdict", "compare", "comparison_json"]

_Key = TypeVar("_Key")

_MAX_TEXT = 60  # characters of one value in a message; the whole value is in the difference
_ORDINALS = ("first", "second")
# Newer converters repeat the type of the bias in this option; the tensor's type is compared anyway.
_HINTS = ("quantized_bias_type",)
# Metadata that changes what a runtime does: the precision of computation, the order of operators, the placement of
# tensors, the compiled target, and the input normalization of TensorFlow's task libraries.
_MEMORY_PLAN = "OfflineMemoryAllocation"
_RUNTIME_METADATA = (
    "reduced_precision_support",
    "model_control_dependencies",
    _MEMORY_PLAN,
    "LiteRtStamp",
    "TFLITE_METADATA",
)
# LiteRT's operator for a program that a vendor's compiler made. The program follows the flatbuffer.
_APPENDED_PROGRAMS = ("DISPATCH_OP",)
# Field of `Quantization` -> what messages call it.
_FIELD_NAMES = {"scales": "scale", "zero_points": "zero point", "axis": "axis"}


def compare(one: bytes, two: bytes, sources: tuple[str, str] = ("the first model", "the second model")) -> Comparison:
    """Compares two `.tflite` files. They may have any operators.

    Args:
        one, two: the contents of the files.
        sources: names of the two files for error messages.

    Raises:
        InputError: one of them is not a `.tflite` file, is corrupt, or does not have exactly one subgraph.
    """
    first, second = read_model(one, sources[0]), read_model(two, sources[1])
    pairing = pair(first, second)
    differences: tuple[Difference, ...] = ()
    if one != two:
        differences = tuple(_differences(first, second, pairing)) or (_packing(one, two),)
    rest = [difference.kind.leaves for difference in differences if difference.kind is not Kind.CONVERSIONS]
    return Comparison(
        verdict=max((difference.kind.leaves for difference in differences), default=Verdict.IDENTICAL),
        differences=differences,
        apart_from_ends=max(rest, default=Verdict.SAME_CONTENT) if len(rest) < len(differences) else None,
        operators=len(pairing.operators),
        tensors=len(pairing.tensors),
    )


def _differences(one: ModelView, two: ModelView, pairing: Pairing) -> Iterator[Difference]:
    for view, ordinal in zip((one, two), _ORDINALS, strict=True):
        for field in view.unknown:
            what = f"the {ordinal} model has {field}, which this schema does not know"
            yield Difference(Kind.UNKNOWN, "schema", "", what)
    if one.version != two.version:
        yield _unequal(Kind.OTHER, "file", "schema version", one.version, two.version)
    yield from _operators(one, two, pairing)
    for place, x, y in pairing.conflicts:
        what = f"{_operand(one, place, x)} against {_operand(two, place, y)}"
        yield Difference(Kind.WIRING, _where(one, pairing, place), "", what, x, y)
    fixed = constants(one)
    for indices, place in pairing.tensors.items():
        a, b = one.tensors[indices[0]], two.tensors[indices[1]]
        where = _where(one, pairing, place)
        yield from _tensor(a, b, where)
        if place.role == "bias" and _requantized(one, two, pairing, place, a, b):
            what = "the same real bias in another scale, within half a level of each"
            yield Difference(Kind.REQUANTIZED, where, a.name, what, elements=compare_elements(a, b))
        else:
            yield from _values(a, b, where, place, indices[0] in fixed)
    yield from _signatures(one, two, pairing)
    yield from _file(one, two, pairing)


def _operators(one: ModelView, two: ModelView, pairing: Pairing) -> Iterator[Difference]:
    for view, ordinal, only, conversions in zip((one, two), _ORDINALS, pairing.only, pairing.conversions, strict=True):
        for index in only:
            operator = view.operators[index]
            kind = Kind.CONVERSIONS if index in conversions else Kind.OPERATORS
            name = view.tensors[operator.outputs[0]].name if operator.outputs else ""
            yield Difference(kind, _title(index, operator), name, f"only in the {ordinal} model")
    for number, (a, b) in enumerate(pairing.operators):
        first, second = one.operators[a], two.operators[b]
        where = _where(one, pairing, Place(number, ""))
        if first.version != second.version:
            yield _unequal(Kind.VERSIONS, where, "version", first.version, second.version)
        if first.options_kind != second.options_kind:
            yield _unequal(Kind.OPTIONS, where, "options", first.options_kind, second.options_kind)
        if first.custom_options != second.custom_options:
            yield _unequal(Kind.OPTIONS, where, "custom options", first.custom_options, second.custom_options)
        if what := prescribed_difference((one, first), (two, second)):
            yield Difference(Kind.OPTIONS, where, "", what)
        for kind, fields in (
            (Kind.OPTIONS, _fields(first.options, second.options)),
            (Kind.OTHER, _fields(first.rest, second.rest)),
        ):
            for field, x, y in fields:
                yield _unequal(Kind.HINTS if field in _HINTS else kind, where, field, x, y)


def _tensor(a: Tensor, b: Tensor, where: str) -> Iterator[Difference]:
    """Differences in everything except quantization and elements."""
    for kind, field, x, y in (
        (Kind.TYPES, "type", a.dtype, b.dtype),
        (Kind.SHAPES, "shape", a.shape, b.shape),
        (Kind.SHAPES, "shape signature", a.shape_signature, b.shape_signature),
        (Kind.OTHER, "variable", a.is_variable, b.is_variable),
        (Kind.RANGES, "recorded minimum", a.minimum, b.minimum),
        (Kind.RANGES, "recorded maximum", a.maximum, b.maximum),
        (Kind.NAMES, "name", a.name, b.name),
    ):
        if not same(x, y):
            yield _unequal(kind, where, field, x, y, a.name)
    for field, x, y in _fields(a.rest, b.rest):
        # Newer converters set `has_rank` for every tensor. It adds nothing to a tensor that has a shape.
        kind = Kind.LAYOUT if field == "has_rank" and a.shape and b.shape else Kind.OTHER
        yield _unequal(kind, where, field, x, y, a.name)


def _values(a: Tensor, b: Tensor, where: str, place: Place, constant: bool) -> Iterator[Difference]:
    """The difference in scale and zero point, and in the elements of a constant."""
    elements = compare_elements(a, b)
    scaling = [vars(tensor.quantization) if tensor.quantization else {} for tensor in (a, b)]
    unequal = list(_fields(*scaling))
    if not unequal and not elements:
        return
    quantized = all(scaling)
    if not constant:
        # Elements that are not constant are the initial value of a variable. A scale in one model only means that the
        # two tensors have different types. An activation has one scale, so an axis is not part of its range.
        kind = Kind.OPERANDS if elements else Kind.RANGES if quantized else Kind.TYPES
        if quantized and any(field == "axis" for field, _, _ in unequal):
            kind = Kind.OTHER
    elif quantized or a.dtype != b.dtype or a.dtype.startswith("float"):
        kind = Kind.BIASES if place.role == "bias" else Kind.WEIGHTS
    else:
        kind = Kind.OPERANDS
    texts = [_against(_FIELD_NAMES[field] if quantized else field, x, y) for field, x, y in unequal]
    if elements:
        texts.append(f"{elements}{_channel_of(elements, a, b)}")
    yield Difference(kind, where, a.name, "; ".join(texts), scaling[0] or None, scaling[1] or None, elements)


def _channel_of(elements: Elements, a: Tensor, b: Tensor) -> str:
    """` in channel 3` for the first element that differs, if the tensor has a scale for each channel; else nothing."""
    quantization = a.quantization
    if elements.largest is None or a.shape != b.shape or quantization is None or len(quantization.scales) < 2:
        return ""
    if not 0 <= quantization.axis < len(a.shape) or math.prod(a.shape) != elements.total:
        return ""
    stride = math.prod(a.shape[quantization.axis + 1 :])
    return f" in channel {elements.first // stride % a.shape[quantization.axis]}"


def _requantized(one: ModelView, two: ModelView, pairing: Pairing, place: Place, a: Tensor, b: Tensor) -> bool:
    """Whether two biases quantize the same real bias with different scales."""
    if place.operator is None or a.quantization is None or same(a.quantization, b.quantization):
        return False
    operands = []
    for view, bias, number in zip((one, two), (a, b), pairing.operators[place.operator], strict=True):
        operator = view.operators[number]
        source, weights = operator.inputs[:2]
        if -1 in (source, weights, *operator.outputs) or not operator.outputs:
            return False
        operands.append([bias, *(view.tensors[index] for index in (source, weights, operator.outputs[0]))])
    return is_bias_requantized(operands[0], operands[1])


def _signatures(one: ModelView, two: ModelView, pairing: Pairing) -> Iterator[Difference]:
    """Differences in the signatures. Names in a signature are metadata; the tensors they refer to are wiring."""
    known = {*pairing.tensors, *zip(one.inputs, two.inputs, strict=False), *zip(one.outputs, two.outputs, strict=False)}
    first, second = _keyed(one.signatures), _keyed(two.signatures)
    for key in dict.fromkeys((*first, *second)):
        if key not in first or key not in second:
            which, view = (0, one) if key in first else (1, two)
            signature = first[key] if key in first else second[key]
            # A signature of exactly the graph's inputs and outputs gives a caller nothing that the other model lacks.
            plain = _tensors(signature.inputs) == view.inputs and _tensors(signature.outputs) == view.outputs
            what = f"only in the {_ORDINALS[which]} model"
            if not plain:
                what += ", and its tensors are not the graph's inputs and outputs"
            yield Difference(Kind.METADATA if plain else Kind.WIRING, f"signature {key[1]}", "", what)
            continue
        for side in ("inputs", "outputs"):
            a, b = getattr(first[key], side), getattr(second[key], side)
            where = f"signature {key[1]}, {side}"
            if [name for name, _ in a] != [name for name, _ in b]:
                yield _unequal(Kind.METADATA, where, "names", [name for name, _ in a], [name for name, _ in b])
            if len(a) != len(b):
                yield _unequal(Kind.WIRING, where, "number of tensors", len(a), len(b))
            # Repeated names, and names that only one side has, are paired by position.
            x, y = _keyed(a), _keyed(b)
            unshared = [x[name] for name in x if name not in y], [y[name] for name in y if name not in x]
            for m, n in (*((x[name], y[name]) for name in x if name in y), *zip(*unshared, strict=False)):
                if (m[1], n[1]) not in known:
                    yield _unequal(Kind.WIRING, where, f"tensor {m[0]}", m[1], n[1])


def _tensors(names: Sequence[tuple[str, int]]) -> tuple[int, ...]:
    return tuple(index for _, index in names)


def _keyed(entries: Sequence[Any]) -> dict[tuple[int, str], Any]:
    """(number of earlier entries with the same name, name) -> entry."""
    seen: Counter[str] = Counter()
    keyed = {}
    for entry in entries:
        name = entry.key if isinstance(entry, Signature) else entry[0]
        keyed[seen[name], name] = entry
        seen[name] += 1
    return keyed


def _file(one: ModelView, two: ModelView, pairing: Pairing) -> Iterator[Difference]:
    """Differences outside the graph. They change no result, except for metadata that some runtimes use."""
    for field, x, y in (
        ("description", one.description, two.description),
        ("name of the graph", one.graph_name, two.graph_name),
        *_fields(one.rest, two.rest),
    ):
        if x != y:
            yield _unequal(Kind.METADATA, "file", field, x, y)
    first, second = _keyed(one.metadata), _keyed(two.metadata)
    for key, x, y in _fields(first, second):
        kind = Kind.OTHER if key[1] in _RUNTIME_METADATA else Kind.METADATA
        yield _unequal(kind, "metadata", key[1], *(entry and entry[1] for entry in (x, y)))
    if (0, _MEMORY_PLAN) in first and any(a != b for a, b in pairing.tensors):
        what = f"{_MEMORY_PLAN} refers to tensors by their order, and the order differs"
        yield Difference(Kind.OTHER, "metadata", "", what)
    if any(operator.custom_code in _APPENDED_PROGRAMS for operator in one.operators):
        what = f"the program of {_APPENDED_PROGRAMS[0]} follows the flatbuffer and was not compared"
        yield Difference(Kind.OTHER, "file", "", what)
    for label, x, y in (
        ("operator codes", _codes(one), _codes(two)),
        ("number of buffers", len(one.buffers), len(two.buffers)),
        ("unused buffers", _unused_buffers(one), _unused_buffers(two)),
        ("number of tensors", len(one.tensors), len(two.tensors)),
    ):
        if x != y:
            yield _unequal(Kind.LAYOUT, "file", label, x, y)


def _codes(view: ModelView) -> list[str]:
    return [f"{code.custom_code or code.name} {code.version}" for code in view.operator_codes]


def _unused_buffers(view: ModelView) -> tuple[bytes, ...]:
    """Contents of the buffers that neither a tensor nor metadata refers to."""
    used = {tensor.buffer for tensor in view.tensors}
    metadata = {content for _, content in view.metadata}
    return tuple(data for index, data in enumerate(view.buffers) if data and index not in used and data not in metadata)


def _packing(one: bytes, two: bytes) -> Difference:
    what = f"same content, packed differently from byte {first_difference(one, two)} of {len(one)} and {len(two)}"
    return Difference(Kind.LAYOUT, "file", "", what, len(one), len(two))


def _fields(one: Mapping[_Key, Any], two: Mapping[_Key, Any]) -> Iterator[tuple[_Key, Any, Any]]:
    """The fields that differ, with the value of each side; None where a side does not have the field."""
    for field in dict.fromkeys((*one, *two)):
        if not same(one.get(field), two.get(field)):
            yield field, one.get(field), two.get(field)


def _unequal(kind: Kind, where: str, field: str, one: Any, two: Any, name: str = "") -> Difference:
    return Difference(kind, where, name, _against(field, one, two), one, two)


def _against(field: str, one: Any, two: Any) -> str:
    """Both values of a field. For a field with a value for each channel: how many differ, and the first of them."""
    if isinstance(one, tuple) and isinstance(two, tuple) and field in _FIELD_NAMES.values() and len(one) == len(two):
        differing = [channel for channel, (x, y) in enumerate(zip(one, two, strict=True)) if not same(x, y)]
        values = f"{_text(one[differing[0]])} against {_text(two[differing[0]])}"
        if len(one) == 1:
            return f"{field} {values}"
        counted = f"{len(differing):,} of {len(one):,} channels"
        return f"{field} differs in {counted}, the first in channel {differing[0]}: {values}"
    if isinstance(one, str) and isinstance(two, str):
        # Long names usually differ at the end only.
        shared = next((i for i, (x, y) in enumerate(zip(one, two, strict=False)) if x != y), min(len(one), len(two)))
        if shared > _MAX_TEXT // 2 and max(len(one), len(two)) > _MAX_TEXT:
            one, two = (f"...{text[shared - _MAX_TEXT // 4 :]}" for text in (one, two))
    return f"{field} {_text(one)} against {_text(two)}"


def _text(value: Any) -> str:
    """A value as text of at most `_MAX_TEXT` characters."""
    if value is None:
        return "nothing"
    if isinstance(value, bytes):
        text = value.rstrip(b"\0").decode("ascii", "replace")
        readable = text.isprintable() and len(text) <= _MAX_TEXT and "\ufffd" not in text
        return text if readable else f"{len(value):,} bytes"
    if isinstance(value, tuple) and value and isinstance(value[0], bytes):
        return f"{len(value)} of {sum(map(len, value)):,} bytes"
    text = f"{value:.9g}" if isinstance(value, float) else str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 3]}..."


def _where(view: ModelView, pairing: Pairing, place: Place) -> str:
    if place.operator is None:
        return f"graph {place.role}"
    index = pairing.operators[place.operator][0]
    return _title(index, view.operators[index]) + (f", {place.role}" if place.role else "")


def _title(index: int, operator: Operator) -> str:
    return f"operator {index} {operator.custom_code or operator.name}"


def _operand(view: ModelView, place: Place, index: int) -> str:
    if place.role.startswith("number"):
        return str(index)
    return "none" if index == -1 else f"tensor {index} {view.tensors[index].name[:_MAX_TEXT]}"

"""Two `.tflite` files: how far they agree, and every place where they do not.

What cannot be judged counts as different, so a verdict never claims more than was looked at. Not for: asking whether a
file derives from a checkpoint, which takes the checkpoint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from recreate_model.compare.elements import bias_restated, compare_elements, first_difference, same
from recreate_model.compare.pairing import Pairing, Place, constants, pair
from recreate_model.compare.verdict import Comparison, Difference, Kind, Verdict, comparison_json
from recreate_model.quantize.scales import prescribed_difference
from recreate_model.tflite.model_view import ModelView, Operator, Signature, Tensor, read_model

__all__ = ["Comparison", "Difference", "Kind", "Verdict", "compare", "comparison_json"]

_Key = TypeVar("_Key")

_SHOWN = 60  # most characters of one value in a text; the value itself is in the difference
_WHICH = ("first", "second")
# Newer converters state the type of the bias here too; the tensor's own type is compared beside it.
_HINTS = ("quantized_bias_type",)
# Metadata that runtimes go by: the precision to compute in, the order of operators, where tensors lie, the chip it was
# compiled for, and how TensorFlow's task libraries change the input before.
_MEMORY_PLAN = "OfflineMemoryAllocation"
_GONE_BY = ("reduced_precision_support", "model_control_dependencies", _MEMORY_PLAN, "LiteRtStamp", "TFLITE_METADATA")
_BEHIND = ("DISPATCH_OP",)  # LiteRT's operator for what a vendor's compiler made; its bytes follow the flatbuffer
# Fields of a quantisation, one entry a channel.
_SINGULAR = {"scales": "scale", "zero_points": "zero point", "axis": "axis"}


def compare(one: bytes, two: bytes, sources: tuple[str, str] = ("the first model", "the second model")) -> Comparison:
    """Compares two `.tflite` files, whatever their operators are.

    Args:
        sources: what to call them in an error.

    Raises:
        InputError: one of them is no `.tflite` file with one subgraph, or damaged.
    """
    first, second = read_model(one, sources[0]), read_model(two, sources[1])
    pairing = pair(first, second)
    differences: tuple[Difference, ...] = ()
    if one != two:
        differences = tuple(_differences(first, second, pairing)) or (_packed_otherwise(one, two),)
    rest = [each.kind.leaves for each in differences if each.kind is not Kind.ENDS]
    return Comparison(
        verdict=max((each.kind.leaves for each in differences), default=Verdict.IDENTICAL),
        differences=differences,
        apart_from_ends=max(rest, default=Verdict.SAME_CONTENT) if len(rest) < len(differences) else None,
        operators=len(pairing.operators),
        tensors=len(pairing.tensors),
    )


def _differences(one: ModelView, two: ModelView, pairing: Pairing) -> Iterator[Difference]:
    for view, which in zip((one, two), _WHICH, strict=True):
        for field in view.unknown:
            yield Difference(Kind.UNKNOWN, "schema", "", f"the {which} model has {field}, unknown here")
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
        if place.role == "bias" and _restated(one, two, pairing, place, a, b):
            what = "within half a step of each scale"
            yield Difference(Kind.RESTATED, where, a.name, what, elements=compare_elements(a, b))
        else:
            yield from _values(a, b, where, place, indices[0] in fixed)
    yield from _signatures(one, two, pairing)
    yield from _file(one, two, pairing)


def _operators(one: ModelView, two: ModelView, pairing: Pairing) -> Iterator[Difference]:
    for view, which, only, ends in zip((one, two), _WHICH, pairing.only, pairing.ends, strict=True):
        for index in only:
            operator = view.operators[index]
            kind = Kind.ENDS if index in ends else Kind.OPERATORS
            name = view.tensors[operator.outputs[0]].name if operator.outputs else ""
            yield Difference(kind, _title(index, operator), name, f"in the {which} model alone")
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
    """Differences of all but the quantisation and the numbers."""
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
        # Newer converters say of every tensor that its rank is known; where there is a shape, that says nothing new.
        kind = Kind.LAYOUT if field == "has_rank" and a.shape and b.shape else Kind.OTHER
        yield _unequal(kind, where, field, x, y, a.name)


def _values(a: Tensor, b: Tensor, where: str, place: Place, constant: bool) -> Iterator[Difference]:
    """Difference of scale and zero point, and of a constant's numbers."""
    elements = compare_elements(a, b)
    scaling = [vars(tensor.quantisation) if tensor.quantisation else {} for tensor in (a, b)]
    unequal = list(_fields(*scaling))
    if not unequal and not elements:
        return
    quantised = all(scaling)
    if not constant:
        # Numbers of what is no constant are a variable's first value; a range has one scale, and no axis.
        # Integers without a scale are another type of numbers.
        kind = Kind.OPERANDS if elements else Kind.RANGES if quantised else Kind.TYPES
        if quantised and any(field == "axis" for field, _, _ in unequal):
            kind = Kind.OTHER
    elif quantised or a.dtype != b.dtype or a.dtype.startswith("float"):
        kind = Kind.BIASES if place.role == "bias" else Kind.WEIGHTS
    else:
        kind = Kind.OPERANDS
    texts = [_against(_SINGULAR[field] if quantised else field, x, y) for field, x, y in unequal]
    if elements:
        texts.append(str(elements))
    yield Difference(kind, where, a.name, "; ".join(texts), scaling[0] or None, scaling[1] or None, elements)


def _restated(one: ModelView, two: ModelView, pairing: Pairing, place: Place, a: Tensor, b: Tensor) -> bool:
    """Whether a bias is the same one in another scale."""
    if place.operator is None or a.quantisation is None or same(a.quantisation, b.quantisation):
        return False
    both = []
    for view, bias, index in zip((one, two), (a, b), pairing.operators[place.operator], strict=True):
        source, weights = view.operators[index].inputs[:2]
        if -1 in (source, weights, *view.operators[index].outputs) or not view.operators[index].outputs:
            return False
        output = view.operators[index].outputs[0]
        both.append([bias, *(view.tensors[each] for each in (source, weights, output))])
    return bias_restated(both[0], both[1])


def _signatures(one: ModelView, two: ModelView, pairing: Pairing) -> Iterator[Difference]:
    """Names may differ; what they stand for may not."""
    known = {*pairing.tensors, *zip(one.inputs, two.inputs, strict=False), *zip(one.outputs, two.outputs, strict=False)}
    first, second = _keyed(one.signatures), _keyed(two.signatures)
    for key in dict.fromkeys((*first, *second)):
        if key not in first or key not in second:
            which, view = (0, one) if key in first else (1, two)
            signature = first[key] if key in first else second[key]
            # A caller that goes by it gets what the graph gives, or something that the other model has no name for.
            plain = _tensors(signature.inputs) == view.inputs and _tensors(signature.outputs) == view.outputs
            what = f"in the {_WHICH[which]} model alone" + ("" if plain else ", not of the graph's inputs and outputs")
            yield Difference(Kind.METADATA if plain else Kind.WIRING, f"signature {key[1]}", "", what)
            continue
        for side in ("inputs", "outputs"):
            a, b = getattr(first[key], side), getattr(second[key], side)
            where = f"signature {key[1]}, {side}"
            if [name for name, _ in a] != [name for name, _ in b]:
                yield _unequal(Kind.METADATA, where, "names", [name for name, _ in a], [name for name, _ in b])
            if len(a) != len(b):
                yield _unequal(Kind.WIRING, where, "number of tensors", len(a), len(b))
            # Names that are there twice are told apart by their position, and so are those of one side alone.
            x, y = _keyed(a), _keyed(b)
            alone = [x[name] for name in x if name not in y], [y[name] for name in y if name not in x]
            for m, n in (*((x[name], y[name]) for name in x if name in y), *zip(*alone, strict=False)):
                if (m[1], n[1]) not in known:
                    yield _unequal(Kind.WIRING, where, f"tensor {m[0]}", m[1], n[1])


def _tensors(names: Sequence[tuple[str, int]]) -> tuple[int, ...]:
    return tuple(index for _, index in names)


def _keyed(entries: Sequence[Any]) -> dict[tuple[int, str], Any]:
    """Entries by their name and by how many of that name came before."""
    seen: Counter[str] = Counter()
    keyed = {}
    for entry in entries:
        name = entry.key if isinstance(entry, Signature) else entry[0]
        keyed[seen[name], name] = entry
        seen[name] += 1
    return keyed


def _file(one: ModelView, two: ModelView, pairing: Pairing) -> Iterator[Difference]:
    """Differences of what no computation sees, but for the metadata that some runtimes go by."""
    for field, x, y in (
        ("description", one.description, two.description),
        ("name of the graph", one.graph_name, two.graph_name),
        *_fields(one.rest, two.rest),
    ):
        if x != y:
            yield _unequal(Kind.METADATA, "file", field, x, y)
    first, second = _keyed(one.metadata), _keyed(two.metadata)
    for key, x, y in _fields(first, second):
        kind = Kind.OTHER if key[1] in _GONE_BY else Kind.METADATA
        yield _unequal(kind, "metadata", key[1], *(each and each[1] for each in (x, y)))
    if (0, _MEMORY_PLAN) in first and any(a != b for a, b in pairing.tensors):
        yield Difference(Kind.OTHER, "metadata", "", f"{_MEMORY_PLAN} goes by the order of tensors, which is another")
    if any(operator.custom_code in _BEHIND for operator in one.operators):
        yield Difference(Kind.OTHER, "file", "", f"{_BEHIND[0]} has its program behind the model, where nobody looked")
    for label, x, y in (
        ("operator codes", _codes(one), _codes(two)),
        ("number of buffers", len(one.buffers), len(two.buffers)),
        ("buffers that nothing uses", _idle(one), _idle(two)),
        ("number of tensors", len(one.tensors), len(two.tensors)),
    ):
        if x != y:
            yield _unequal(Kind.LAYOUT, "file", label, x, y)


def _codes(view: ModelView) -> list[str]:
    return [f"{code.custom_code or code.name} {code.version}" for code in view.operator_codes]


def _idle(view: ModelView) -> tuple[bytes, ...]:
    """Contents of the buffers that neither a tensor nor metadata has."""
    used = {tensor.buffer for tensor in view.tensors}
    told = {content for _, content in view.metadata}
    return tuple(data for index, data in enumerate(view.buffers) if data and index not in used and data not in told)


def _packed_otherwise(one: bytes, two: bytes) -> Difference:
    what = f"the same content packed otherwise, from byte {first_difference(one, two)} of {len(one)} and {len(two)}"
    return Difference(Kind.LAYOUT, "file", "", what, len(one), len(two))


def _fields(one: Mapping[_Key, Any], two: Mapping[_Key, Any]) -> Iterator[tuple[_Key, Any, Any]]:
    """The fields that are not the same, with what each side has; None where it has none."""
    for field in dict.fromkeys((*one, *two)):
        if not same(one.get(field), two.get(field)):
            yield field, one.get(field), two.get(field)


def _unequal(kind: Kind, where: str, field: str, one: Any, two: Any, name: str = "") -> Difference:
    return Difference(kind, where, name, _against(field, one, two), one, two)


def _against(field: str, one: Any, two: Any) -> str:
    if isinstance(one, tuple) and isinstance(two, tuple) and field in _SINGULAR.values() and len(one) == len(two):
        if len(one) > 1:
            return f"{field} of {sum(not same(x, y) for x, y in zip(one, two, strict=True)):,} of {len(one):,} channels"
        one, two = one[0], two[0]
    if isinstance(one, str) and isinstance(two, str):
        # Of long names the end differs, more often than not.
        shared = next((i for i, (x, y) in enumerate(zip(one, two, strict=False)) if x != y), min(len(one), len(two)))
        if shared > _SHOWN // 2 and max(len(one), len(two)) > _SHOWN:
            one, two = (f"...{text[shared - _SHOWN // 4 :]}" for text in (one, two))
    return f"{field} {_text(one)} against {_text(two)}"


def _text(value: Any) -> str:
    """A value for people, however long it is."""
    if value is None:
        return "nothing"
    if isinstance(value, bytes):
        text = value.rstrip(b"\0").decode("ascii", "replace")
        return text if text.isprintable() and len(text) <= _SHOWN and "\ufffd" not in text else f"{len(value):,} bytes"
    if isinstance(value, tuple) and value and isinstance(value[0], bytes):
        return f"{len(value)} of {sum(map(len, value)):,} bytes"
    text = f"{value:.9g}" if isinstance(value, float) else str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


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
    return "none" if index == -1 else f"tensor {index} {view.tensors[index].name[:_SHOWN]}"

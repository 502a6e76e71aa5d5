"""Pairs the operators and tensors of two models.

Pairing is structural: operators are aligned in execution order, and tensors are paired by their position among the
operands of paired operators. Names and the order of tensors in the file do not matter. Not for: finding what differs
within a pair (`diff`).
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from recreate_model.tflite.model_view import ModelView

_OMITTED = -1  # tensor index of an optional operand that is omitted
# Aligning two lists takes time in proportion to the product of their lengths, and a corrupt file can list many
# operators. Above this product, the lists are not aligned.
_MAX_ALIGNMENT = 250_000
# A corrupt file can use one large constant in many places. Comparing stops after this many bytes for each byte of both
# files (a sound file needs one); constants beyond that count as different.
_MAX_COMPARED = 4
_ROLES = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), ("input", "weights", "bias")),
    "TRANSPOSE_CONV": ("output shape", "weights", "input", "bias"),
}


@dataclass(frozen=True)
class Place:
    """The first place where a pair of tensors is used.

    Attributes:
        operator: index into `Pairing.operators`; None for an input or output of the graph.
        role: such as `input 0` or `output 0`; `weights` and `bias` for operators that have them.
    """

    operator: int | None
    role: str


@dataclass(frozen=True)
class Pairing:
    """The pairs of operators and tensors of two models. Operators and tensors are given by index.

    Attributes:
        operators: pairs of operators, in execution order.
        only: for each model, the operators without a partner.
        conversions: for each model, those of `only` that convert the type of a graph input or output; at most one for
            each input and output.
        tensors: pair of tensors -> the first place where it is used, in the order of the graph.
        conflicts: places where the two models are wired differently, with the tensor of each model there.
    """

    operators: tuple[tuple[int, int], ...]
    only: tuple[tuple[int, ...], tuple[int, ...]]
    conversions: tuple[tuple[int, ...], tuple[int, ...]]
    tensors: dict[tuple[int, int], Place]
    conflicts: tuple[tuple[Place, int, int], ...]


def pair(one: ModelView, two: ModelView) -> Pairing:
    """Pairs the operators and tensors of two models as far as they correspond."""
    operators = _align(one, two)
    only = (
        _unpaired(len(one.operators), {a for a, _ in operators}),
        _unpaired(len(two.operators), {b for _, b in operators}),
    )
    conversions = (_conversions(one, only[0]), _conversions(two, only[1]))
    matcher = _Matcher(one, two)
    matcher.pair_all("input", None, _inner(one, conversions[0], one.inputs), _inner(two, conversions[1], two.inputs))
    for number, (a, b) in enumerate(operators):
        first, second = one.operators[a], two.operators[b]
        roles = _ROLES.get(first.name, ())
        matcher.pair_all("input", number, first.inputs, second.inputs, roles)
        matcher.pair_all("intermediate", number, first.intermediates, second.intermediates)
        matcher.pair_all("output", number, first.outputs, second.outputs)
    matcher.pair_all("output", None, _inner(one, conversions[0], one.outputs), _inner(two, conversions[1], two.outputs))
    return Pairing(operators, only, conversions, matcher.tensors, tuple(matcher.conflicts))


def constants(view: ModelView) -> frozenset[int]:
    """Indices of the constant tensors: those with data in the file that no operator or caller writes."""
    written = {index for operator in view.operators for index in operator.outputs} | set(view.inputs)
    return frozenset(
        index
        for index, tensor in enumerate(view.tensors)
        if tensor.data and not tensor.is_variable and index not in written
    )


class _Matcher:
    """Pairs tensors operand by operand.

    An activation has exactly one partner. A constant may have several, as one file may share it between operators and
    the other may not.
    """

    def __init__(self, one: ModelView, two: ModelView) -> None:
        self._views = one, two
        self._constants = constants(one), constants(two)
        self._bytes_left = _MAX_COMPARED * (one.size + two.size)
        self._forward: dict[int, int] = {}
        self._backward: dict[int, int] = {}
        self.tensors: dict[tuple[int, int], Place] = {}
        self.conflicts: list[tuple[Place, int, int]] = []

    def pair_all(
        self, side: str, operator: int | None, one: Sequence[int], two: Sequence[int], roles: Sequence[str] = ()
    ) -> None:
        """Pairs two lists of operands by position, and records those that conflict with earlier pairs."""
        for position in range(max(len(one), len(two))):
            role = roles[position] if position < len(roles) else f"{side} {position}"
            a = one[position] if position < len(one) else _OMITTED
            b = two[position] if position < len(two) else _OMITTED
            if not self._agree(a, b):
                self.conflicts.append((Place(operator, role), a, b))
            elif a != _OMITTED and (a, b) not in self.tensors:
                self.tensors[a, b] = Place(operator, role)
        # An omitted operand at the end of the list means the same as a shorter list, but the files differ.
        if len(one) != len(two) and all(index == _OMITTED for index in (*one[len(two) :], *two[len(one) :])):
            self.conflicts.append((Place(operator, f"number of {side}s"), len(one), len(two)))

    def _agree(self, a: int, b: int) -> bool:
        """Whether two tensors can be a pair."""
        if _OMITTED in (a, b) or (a in self._constants[0]) != (b in self._constants[1]):
            return a == b == _OMITTED
        if a in self._constants[0]:
            if (a, b) not in self.tensors:
                self._bytes_left -= max(len(self._views[0].tensors[a].data), len(self._views[1].tensors[b].data))
            return self._bytes_left >= 0
        return self._forward.setdefault(a, b) == b and self._backward.setdefault(b, a) == a


def _align(one: ModelView, two: ModelView) -> tuple[tuple[int, int], ...]:
    """Pairs of operators of the same kind, in order; if the two lists differ, operators of equal output shape first."""
    names = [[(operator.name, operator.custom_code) for operator in view.operators] for view in (one, two)]
    if names[0] == names[1]:
        return tuple((index, index) for index in range(len(names[0])))
    shapes = [
        [(name, *(view.tensors[index].shape for index in operator.outputs if index != _OMITTED))
         for name, operator in zip(view_names, view.operators, strict=True)]
        for view_names, view in zip(names, (one, two), strict=True)
    ]  # fmt: skip
    pairs: list[tuple[int, int]] = []
    for equal, a, b in _blocks(shapes[0], shapes[1]):
        inner = ((equal, a, b),) if equal else _blocks(names[0][a.start : a.stop], names[1][b.start : b.stop])
        for same, c, d in inner:
            if same:
                pairs += zip(c if equal else a[c.start : c.stop], d if equal else b[d.start : d.stop], strict=True)
    return tuple(pairs)


def _blocks(one: Sequence[object], two: Sequence[object]) -> list[tuple[bool, range, range]]:
    """Divides two lists into blocks, in order: (whether the blocks are equal, range in `one`, range in `two`).

    What lies between the common prefix and suffix is one block if it exceeds `_MAX_ALIGNMENT`.
    """
    shared = min(len(one), len(two))
    head = next((i for i in range(shared) if one[i] != two[i]), shared)
    tail = next((i for i in range(shared - head) if one[-1 - i] != two[-1 - i]), shared - head)
    a, b = range(head, len(one) - tail), range(head, len(two) - tail)
    blocks = [(False, a, b)]
    if 0 < len(a) * len(b) <= _MAX_ALIGNMENT:
        matcher = difflib.SequenceMatcher(None, one[a.start : a.stop], two[b.start : b.stop], autojunk=False)
        blocks = [(tag == "equal", a[i:j], b[k:m]) for tag, i, j, k, m in matcher.get_opcodes()]
    suffix = (range(len(one) - tail, len(one)), range(len(two) - tail, len(two)))
    return [(True, range(head), range(head)), *blocks, (True, *suffix)]


def _unpaired(count: int, paired: set[int]) -> tuple[int, ...]:
    return tuple(index for index in range(count) if index not in paired)


def _conversions(view: ModelView, only: Sequence[int]) -> tuple[int, ...]:
    """Those operators of `only` that convert the type of a graph input or output.

    At an input this is QUANTIZE; at an output it is DEQUANTIZE, or QUANTIZE between two integer types as for uint8. The
    operator must keep the shape, and must be the only reader of the input or the only source of the output. An operator
    whose output nothing reads, or a second one at the same input, does not count.
    """
    read = Counter(index for operator in view.operators for index in operator.inputs)
    written = Counter(index for operator in view.operators for index in operator.outputs)
    found, inputs, outputs = [], Counter(view.inputs), Counter(view.outputs)
    for index in only:
        operator = view.operators[index]
        if len(operator.inputs) != 1 or len(operator.outputs) != 1 or _OMITTED in (*operator.inputs, *operator.outputs):
            continue
        (first,), (last,) = operator.inputs, operator.outputs
        first_alone = read[first] + outputs[first] == 1 and written[last] == 1
        last_alone = written[last] == 1 and read[last] + inputs[last] == 0
        at_input = operator.name == "QUANTIZE" and inputs[first] == 1 and first_alone and read[last]
        at_output = operator.name in ("QUANTIZE", "DEQUANTIZE") and outputs[last] == 1 and last_alone and written[first]
        if (at_input or at_output) and view.tensors[first].shape == view.tensors[last].shape:
            found.append(index)
    return tuple(found)


def _inner(view: ModelView, conversions: Sequence[int], tensors: Sequence[int]) -> list[int]:
    """The graph inputs or outputs, each replaced by the tensor on the other side of its conversion, if it has one."""
    inner_of = {}
    for index in conversions:
        first, last = view.operators[index].inputs[0], view.operators[index].outputs[0]
        outer, inner = (first, last) if first in view.inputs else (last, first)
        inner_of[outer] = inner
    return [inner_of.get(index, index) for index in tensors]

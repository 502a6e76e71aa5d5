"""Which operator and which tensor of one model stands where which of another does.

By structure: operators in their order, tensors by the operands they are, so that neither names nor the order of
tensors in the file matter. Not for: saying what differs between a pair (`diff`).
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from recreate_model.tflite.model_view import ModelView

_LEFT_OUT = -1  # index of an optional operand that is not there
# Finding what two lists share takes the product of their lengths, in steps. A broken file can name many operators.
_MOST_STEPS = 250_000
# Bytes of constants to compare for each byte of both files; sound files need one. More partners than that allows are
# left to be called different.
_MOST_COMPARED = 4
_ROLES = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), ("input", "weights", "bias")),
    "TRANSPOSE_CONV": ("output shape", "weights", "input", "bias"),
}


@dataclass(frozen=True)
class Place:
    """Where a pair of tensors was met first.

    Attributes:
        operator: position in `Pairing.operators`; None for an input or output of the graph.
        role: `input 0`, `output 0`, or `weights` and `bias` where the operator is known to have them.
    """

    operator: int | None
    role: str


@dataclass(frozen=True)
class Pairing:
    """What stands for what.

    Attributes:
        operators: pairs of indices, in order.
        only: for each model the operators without a partner.
        ends: for each model those of them that turn an input or an output into another type; one each at most.
        tensors: pairs of indices -> place, in the order of the graph.
        conflicts: places where the operands are connected otherwise, with the indices found there.
    """

    operators: tuple[tuple[int, int], ...]
    only: tuple[tuple[int, ...], tuple[int, ...]]
    ends: tuple[tuple[int, ...], tuple[int, ...]]
    tensors: dict[tuple[int, int], Place]
    conflicts: tuple[tuple[Place, int, int], ...]


def pair(one: ModelView, two: ModelView) -> Pairing:
    """Pairs all that two models have in common."""
    operators = _align(one, two)
    only = (
        _without(len(one.operators), {a for a, _ in operators}),
        _without(len(two.operators), {b for _, b in operators}),
    )
    ends = (_ends(one, only[0]), _ends(two, only[1]))
    matcher = _Matcher(one, two)
    matcher.all("input", None, _inner(one, ends[0], one.inputs), _inner(two, ends[1], two.inputs))
    for number, (a, b) in enumerate(operators):
        first, second = one.operators[a], two.operators[b]
        roles = _ROLES.get(first.name, ())
        matcher.all("input", number, first.inputs, second.inputs, roles)
        matcher.all("intermediate", number, first.intermediates, second.intermediates)
        matcher.all("output", number, first.outputs, second.outputs)
    matcher.all("output", None, _inner(one, ends[0], one.outputs), _inner(two, ends[1], two.outputs))
    return Pairing(operators, only, ends, matcher.tensors, tuple(matcher.conflicts))


def constants(view: ModelView) -> frozenset[int]:
    """Indices of the tensors whose numbers are in the file and stay as they are."""
    written = {index for operator in view.operators for index in operator.outputs} | set(view.inputs)
    return frozenset(
        index
        for index, tensor in enumerate(view.tensors)
        if tensor.data and not tensor.is_variable and index not in written
    )


class _Matcher:
    """Pairs tensors operand by operand; an activation has one partner, constants may be shared in one file alone."""

    def __init__(self, one: ModelView, two: ModelView) -> None:
        self._views = one, two
        self._constants = constants(one), constants(two)
        self._left = _MOST_COMPARED * (one.size + two.size)
        self._forward: dict[int, int] = {}
        self._backward: dict[int, int] = {}
        self.tensors: dict[tuple[int, int], Place] = {}
        self.conflicts: list[tuple[Place, int, int]] = []

    def all(
        self, side: str, operator: int | None, one: Sequence[int], two: Sequence[int], roles: Sequence[str] = ()
    ) -> None:
        for position in range(max(len(one), len(two))):
            role = roles[position] if position < len(roles) else f"{side} {position}"
            a = one[position] if position < len(one) else _LEFT_OUT
            b = two[position] if position < len(two) else _LEFT_OUT
            if not self._agree(a, b):
                self.conflicts.append((Place(operator, role), a, b))
            elif a != _LEFT_OUT and (a, b) not in self.tensors:
                self.tensors[a, b] = Place(operator, role)
        # An operand left out at the end is as one that is not there, but the file says it otherwise.
        if len(one) != len(two) and all(index == _LEFT_OUT for index in (*one[len(two) :], *two[len(one) :])):
            self.conflicts.append((Place(operator, f"number of {side}s"), len(one), len(two)))

    def _agree(self, a: int, b: int) -> bool:
        if _LEFT_OUT in (a, b) or (a in self._constants[0]) != (b in self._constants[1]):
            return a == b == _LEFT_OUT
        if a in self._constants[0]:
            if (a, b) not in self.tensors:
                self._left -= max(len(self._views[0].tensors[a].data), len(self._views[1].tensors[b].data))
            return self._left >= 0
        return self._forward.setdefault(a, b) == b and self._backward.setdefault(b, a) == a


def _align(one: ModelView, two: ModelView) -> tuple[tuple[int, int], ...]:
    """Pairs of indices of operators that are of one kind, in order: of one shape too where the lists differ."""
    names = [[(operator.name, operator.custom_code) for operator in view.operators] for view in (one, two)]
    if names[0] == names[1]:
        return tuple((index, index) for index in range(len(names[0])))
    shapes = [
        [(name, *(view.tensors[index].shape for index in operator.outputs if index != _LEFT_OUT))
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
    """Stretches of two lists, in order, that are equal or not; whole lists where looking closer would take too long."""
    shared = min(len(one), len(two))
    head = next((i for i in range(shared) if one[i] != two[i]), shared)
    tail = next((i for i in range(shared - head) if one[-1 - i] != two[-1 - i]), shared - head)
    a, b = range(head, len(one) - tail), range(head, len(two) - tail)
    blocks = [(False, a, b)]
    if 0 < len(a) * len(b) <= _MOST_STEPS:
        matcher = difflib.SequenceMatcher(None, one[a.start : a.stop], two[b.start : b.stop], autojunk=False)
        blocks = [(tag == "equal", a[i:j], b[k:m]) for tag, i, j, k, m in matcher.get_opcodes()]
    ends = (range(len(one) - tail, len(one)), range(len(two) - tail, len(two)))
    return [(True, range(head), range(head)), *blocks, (True, *ends)]


def _without(count: int, taken: set[int]) -> tuple[int, ...]:
    return tuple(index for index in range(count) if index not in taken)


def _ends(view: ModelView, only: Sequence[int]) -> tuple[int, ...]:
    """Of the operators without a partner those that quantise an input of the graph or turn an output back.

    QUANTIZE also turns one integer type into another, as at both ends of a model with uint8 input and output. The one
    inside of the graph must have the shape of the one outside, and stand for it wherever the graph goes on: an operator
    that nothing reads, or a second one at the same input, is no end.
    """
    read = Counter(index for operator in view.operators for index in operator.inputs)
    written = Counter(index for operator in view.operators for index in operator.outputs)
    found, inputs, outputs = [], Counter(view.inputs), Counter(view.outputs)
    for index in only:
        operator = view.operators[index]
        if (
            len(operator.inputs) != 1
            or len(operator.outputs) != 1
            or _LEFT_OUT in (*operator.inputs, *operator.outputs)
        ):
            continue
        (first,), (last,) = operator.inputs, operator.outputs
        first_alone = read[first] + outputs[first] == 1 and written[last] == 1
        last_alone = written[last] == 1 and read[last] + inputs[last] == 0
        at_input = operator.name == "QUANTIZE" and inputs[first] == 1 and first_alone and read[last]
        at_output = operator.name in ("QUANTIZE", "DEQUANTIZE") and outputs[last] == 1 and last_alone and written[first]
        if (at_input or at_output) and view.tensors[first].shape == view.tensors[last].shape:
            found.append(index)
    return tuple(found)


def _inner(view: ModelView, ends: Sequence[int], tensors: Sequence[int]) -> list[int]:
    """The graph's inputs or outputs as they are behind, or before, the operators at its ends."""
    behind = {}
    for index in ends:
        first, last = view.operators[index].inputs[0], view.operators[index].outputs[0]
        outer, inner = (first, last) if first in view.inputs else (last, first)
        behind[outer] = inner
    return [behind.get(index, index) for index in tensors]

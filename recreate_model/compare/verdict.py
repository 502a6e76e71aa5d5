"""The words a comparison of two models is told in: verdicts, kinds of difference, differences.

The verdict follows from the differences: each kind still allows some verdict, and the weakest of those it is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any

from recreate_model.compare.elements import Elements
from recreate_model.support.digest import Json

_SHOWN = 200  # most characters of a name in a line; names may be of any length


class Verdict(IntEnum):
    """How far two models agree, strongest first."""

    IDENTICAL = 0
    SAME_CONTENT = 1
    SAME_WEIGHTS = 2
    CONSISTENT = 3
    SAME_GRAPH = 4
    DIFFERENT = 5

    def reaches(self, asked: Verdict) -> bool:
        """Whether this verdict is at least as strong as the one asked for."""
        return self <= asked

    @property
    def meaning(self) -> str:
        return _MEANING[self]


_MEANING = {
    Verdict.IDENTICAL: "byte for byte the same",
    Verdict.SAME_CONTENT: "computes the same; layout, order, names or metadata differ",
    Verdict.SAME_WEIGHTS: "same graph and weights; activation ranges differ, and biases are restated in their scale",
    Verdict.CONSISTENT: "every weight and bias is what the checkpoint rounds to",
    Verdict.SAME_GRAPH: "same operators, wiring, options, shapes and types; weights differ",
    Verdict.DIFFERENT: "not the same graph",
}


class Kind(Enum):
    """What a difference is about, and the strongest verdict that it leaves; those that weigh most first."""

    UNKNOWN = ("unknown fields", Verdict.DIFFERENT)  # what cannot be read cannot be called the same
    OPERATORS = ("operators", Verdict.DIFFERENT)
    ENDS = ("ends", Verdict.DIFFERENT)  # QUANTIZE at the inputs, DEQUANTIZE or QUANTIZE at the outputs
    WIRING = ("wiring", Verdict.DIFFERENT)
    OPTIONS = ("options", Verdict.DIFFERENT)
    SHAPES = ("shapes", Verdict.DIFFERENT)
    TYPES = ("types", Verdict.DIFFERENT)
    OPERANDS = ("operands", Verdict.DIFFERENT)  # constants that are no weights: shapes, paddings, axes
    OTHER = ("other fields", Verdict.DIFFERENT)
    WEIGHTS = ("weights", Verdict.SAME_GRAPH)
    BIASES = ("biases", Verdict.SAME_GRAPH)
    VERSIONS = ("versions", Verdict.SAME_GRAPH)
    HINTS = ("hints to kernels", Verdict.SAME_GRAPH)  # options that repeat what a tensor's type says
    RANGES = ("ranges", Verdict.SAME_WEIGHTS)
    RESTATED = ("biases restated", Verdict.SAME_WEIGHTS)
    NAMES = ("names", Verdict.SAME_CONTENT)
    METADATA = ("metadata", Verdict.SAME_CONTENT)
    LAYOUT = ("layout", Verdict.SAME_CONTENT)

    def __init__(self, label: str, leaves: Verdict) -> None:
        self.label = label
        self.leaves = leaves


@dataclass(frozen=True)
class Difference:
    """One place where two models part.

    Attributes:
        where: `operator 3 CONV_2D, weights`, or a part of the file.
        name: of the tensor in the first model; empty where the difference is of no tensor.
        what: how they differ, for people; bounded in length.
        one, two: what each model holds, as plain JSON; None where that is a constant.
        elements: of constants, how many numbers differ and by how much.
    """

    kind: Kind
    where: str
    name: str
    what: str
    one: Json = None
    two: Json = None
    elements: Elements | None = None

    def __str__(self) -> str:
        name = f" ({self.name[:_SHOWN]})" if self.name else ""
        return printable(f"{self.kind.label}, {self.where}{name}: {self.what}")


@dataclass(frozen=True)
class Comparison:
    """What comparing two files gave.

    Attributes:
        differences: in the order of the graph, then those of the file.
        apart_from_ends: where one model turns its input or output into another type and the other does not, the
            verdict on all the rest; else None.
        operators, tensors: how many pairs were compared.
    """

    verdict: Verdict
    differences: tuple[Difference, ...]
    apart_from_ends: Verdict | None
    operators: int
    tensors: int

    @property
    def decisive(self) -> tuple[Difference, ...]:
        """The differences that leave no stronger verdict, in order."""
        return tuple(each for each in self.differences if each.kind.leaves is self.verdict)

    @property
    def counts(self) -> dict[Kind, int]:
        """How many differences there are of each kind, those that weigh most first."""
        found = Counter(each.kind for each in self.differences)
        return {kind: found[kind] for kind in Kind if kind in found}


def printable(text: str) -> str:
    """The same without what would steer a terminal: names come from files that nobody vouches for."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def comparison_json(comparison: Comparison) -> Json:
    """All of a comparison as plain JSON; numbers that JSON has not are texts."""
    return {
        "verdict": comparison.verdict.name,
        "meaning": comparison.verdict.meaning,
        "apart_from_ends": comparison.apart_from_ends.name if comparison.apart_from_ends is not None else None,
        "compared": {"operators": comparison.operators, "tensors": comparison.tensors},
        "counts": {kind.label: count for kind, count in comparison.counts.items()},
        "differences": [
            {
                "kind": each.kind.label,
                "leaves": each.kind.leaves.name,
                "where": each.where,
                "tensor": each.name,
                "what": each.what,
                "one": _plain(each.one),
                "two": _plain(each.two),
                "elements": _plain(vars(each.elements)) if each.elements else None,
            }
            for each in comparison.differences
        ],
    }


def _plain(value: Any) -> Json:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value

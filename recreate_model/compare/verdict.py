"""The result of comparing two models: verdict, kinds of difference, and the differences.

Each kind of difference has a strongest verdict that it allows. The verdict is the weakest of these.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any

from recreate_model.compare.elements import Elements
from recreate_model.support.digest import Json

_MAX_NAME = 200  # characters of a tensor name in a message; names in a file may be of any length


class Verdict(IntEnum):
    """How far two models agree, strongest first."""

    IDENTICAL = 0
    SAME_CONTENT = 1
    SAME_WEIGHTS = 2
    CONSISTENT = 3
    SAME_GRAPH = 4
    DIFFERENT = 5

    def reaches(self, required: Verdict) -> bool:
        """Whether this verdict is at least as strong as `required`."""
        return self <= required

    @property
    def meaning(self) -> str:
        """What the verdict says, in one sentence."""
        return _MEANING[self]


_MEANING = {
    Verdict.IDENTICAL: "byte for byte the same",
    Verdict.SAME_CONTENT: "computes the same; layout, order, names or metadata differ",
    Verdict.SAME_WEIGHTS: "same graph and weights; activation ranges differ, and biases are requantized to match",
    Verdict.CONSISTENT: "every weight and bias is a rounding of the checkpoint's value",
    Verdict.SAME_GRAPH: "same operators, wiring, options, shapes and types; weights differ",
    Verdict.DIFFERENT: "not the same graph",
}


class Kind(Enum):
    """What a difference is about, most severe first.

    Attributes:
        label: what messages call it.
        leaves: the strongest verdict that such a difference allows.
        json_name: what the JSON document calls it; published, so it does not follow `label`.
    """

    UNKNOWN = ("unknown fields", Verdict.DIFFERENT)  # a field that cannot be interpreted may mean anything
    OPERATORS = ("operators", Verdict.DIFFERENT)
    # QUANTIZE at a graph input, DEQUANTIZE or QUANTIZE at a graph output.
    CONVERSIONS = ("input/output conversions", Verdict.DIFFERENT, "ends")
    WIRING = ("wiring", Verdict.DIFFERENT)
    OPTIONS = ("options", Verdict.DIFFERENT)
    SHAPES = ("shapes", Verdict.DIFFERENT)
    TYPES = ("types", Verdict.DIFFERENT)
    OPERANDS = ("operands", Verdict.DIFFERENT)  # constants other than weights: shapes, paddings, axes
    OTHER = ("other fields", Verdict.DIFFERENT)
    WEIGHTS = ("weights", Verdict.SAME_GRAPH)
    BIASES = ("biases", Verdict.SAME_GRAPH)
    VERSIONS = ("versions", Verdict.SAME_GRAPH)
    HINTS = ("kernel hints", Verdict.SAME_GRAPH, "hints to kernels")  # options that repeat a tensor's type
    RANGES = ("ranges", Verdict.SAME_WEIGHTS)
    REQUANTIZED = ("requantized biases", Verdict.SAME_WEIGHTS, "biases restated")
    NAMES = ("names", Verdict.SAME_CONTENT)
    METADATA = ("metadata", Verdict.SAME_CONTENT)
    LAYOUT = ("layout", Verdict.SAME_CONTENT)

    def __init__(self, label: str, leaves: Verdict, json_name: str = "") -> None:
        self.label = label
        self.leaves = leaves
        self.json_name = json_name or label


@dataclass(frozen=True)
class Difference:
    """One difference between two models.

    Attributes:
        kind: what it is about.
        where: such as `operator 3 CONV_2D, weights`, or a part of the file.
        name: name of the tensor in the first model; empty where the difference is not in a tensor.
        what: how they differ, as text of limited length; values of the first model come first.
        one, two: what each model has, as plain JSON; None where the difference is in a constant's elements.
        elements: for constants, how many elements differ and by how much.
    """

    kind: Kind
    where: str
    name: str
    what: str
    one: Json = None
    two: Json = None
    elements: Elements | None = None

    def __str__(self) -> str:
        name = f" ({self.name[:_MAX_NAME]})" if self.name else ""
        return printable(f"{self.kind.label}, {self.where}{name}: {self.what}")


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two models.

    Attributes:
        verdict: how far they agree.
        differences: first those of the graph, in its order, then those of the file.
        apart_from_ends: the verdict without the operators that convert the type of an input or output, where only one
            model has such an operator; else None.
        operators, tensors: number of pairs compared.
    """

    verdict: Verdict
    differences: tuple[Difference, ...]
    apart_from_ends: Verdict | None
    operators: int
    tensors: int

    @property
    def decisive(self) -> tuple[Difference, ...]:
        """The differences that decide the verdict, in order."""
        return tuple(difference for difference in self.differences if difference.kind.leaves is self.verdict)

    @property
    def counts(self) -> dict[Kind, int]:
        """The number of differences of each kind, most severe first."""
        found = Counter(difference.kind for difference in self.differences)
        return {kind: found[kind] for kind in Kind if kind in found}


def printable(text: str) -> str:
    """The text with control characters escaped, as names come from untrusted files and are shown on a terminal."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def comparison_json(comparison: Comparison) -> Json:
    """A comparison as plain JSON. NaN and infinities, which JSON does not have, become strings."""
    return {
        "verdict": comparison.verdict.name,
        "meaning": comparison.verdict.meaning,
        "apart_from_ends": comparison.apart_from_ends.name if comparison.apart_from_ends is not None else None,
        "compared": {"operators": comparison.operators, "tensors": comparison.tensors},
        "counts": {kind.json_name: count for kind, count in comparison.counts.items()},
        "differences": [
            {
                "kind": difference.kind.json_name,
                "leaves": difference.kind.leaves.name,
                "where": difference.where,
                "tensor": difference.name,
                "what": difference.what,
                "one": _plain(difference.one),
                "two": _plain(difference.two),
                "elements": _plain(vars(difference.elements)) if difference.elements else None,
            }
            for difference in comparison.differences
        ],
    }


def _plain(value: Any) -> Json:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value

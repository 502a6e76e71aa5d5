"""Evidence that the model works on a platform: the common form of every check, for the table, the JSON and the card.

For: stating how strong the evidence is. `ran`: the platform's code ran on a device, an emulator or a software device,
and the evidence names it. `compiled`: the platform's own compiler compiled the model. `analyzed`: the model was only
inspected, or run as code of this machine. Not for: the speed of a device; no check runs on one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Literal

import numpy as np

from recreate_model.support.arrays import Array
from recreate_model.support.digest import Json
from recreate_model.support.errors import InputError, PipelineError

Status = Literal["ran", "compiled", "analyzed", "not run"]

PLATFORMS = ("Cortex-A", "Cortex-M", "Mali GPU", "Ethos U")  # as the published card spells them
STATUSES: tuple[Status, ...] = ("ran", "compiled", "analyzed", "not run")  # strongest first


# Fast kernels round differently from the reference kernels, so the order of classes with close scores can change. These
# limits separate correct kernels from wrong ones, as measured with the published model (docs/cortex-a.md). On 500
# photographs and 300 procedural pictures, XNNPACK changed the class only if the best class led by 19 levels or fewer;
# Arm NN's NEON kernels of 2020, by up to 91. On 20 random pictures the scores differed by at most 0.08. With one wrong
# layer they differed by 0.44 or more, with red and blue exchanged by 0.24.
DECIDED = 128  # levels by which the best class must lead for it to be claimed
FARTHEST = 0.2  # largest difference of the scores, in units of that between different pictures


@dataclass(frozen=True)
class Agreement:
    """The agreement of outputs with those of the reference kernels.

    Attributes:
        hits: number of pictures whose outputs are `bit-exact` or have the `same class`.
        n: number of pictures compared.
        undecided: number of further pictures whose class is not claimed, as the best class does not lead by DECIDED
            levels.
        difference: of the scores, ignoring one level each, in units of that between different pictures; None if it is
            not claimed.
    """

    hits: int
    n: int
    kind: Literal["bit-exact", "same class"]
    undecided: int = 0
    difference: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the outputs are as expected of correct kernels."""
        return self.hits == self.n and (self.difference is None or self.difference <= FARTHEST)

    def __str__(self) -> str:
        parts = [f"{self.hits} of {self.n} {self.kind}"] if self.n or not self.undecided else []
        parts += [f"{self.undecided} undecided"] if self.undecided else []
        parts += [] if self.difference is None else [f"scores {self.difference:.2f} apart"]
        return ", ".join(parts)


@dataclass(frozen=True)
class Evidence:
    """The result of one check of one platform.

    Attributes:
        platform: one of PLATFORMS.
        status: one of STATUSES.
        what: what was checked, such as `LiteRT's reference kernels as AArch64 code`.
        device: what the model ran on, such as `qemu-aarch64 (emulated)`; empty if nothing ran.
        tools: names and versions of the tools.
        agreement: with the reference kernels; None if no outputs are compared.
        pictures: number of pictures; None if nothing ran.
        seconds: of one inference on `device`, including the emulator's start if the note says so; None if not timed.
        note: what the evidence does not show.
        missing: what would give stronger evidence but is not installed, with the command that installs it.
        fault: why the check could not be finished; empty if it was.
    """

    platform: str
    status: Status
    what: str
    device: str = ""
    tools: tuple[str, ...] = ()
    agreement: Agreement | None = None
    pictures: int | None = None
    seconds: float | None = None
    note: str = ""
    missing: str = ""
    fault: str = ""

    def __post_init__(self) -> None:
        # The card silently ignores evidence with an unknown platform or status.
        if self.platform not in PLATFORMS or self.status not in STATUSES:
            raise ValueError(f"no such platform or status: {self.platform!r}, {self.status!r}")

    @property
    def holds(self) -> bool:
        """False if the outputs do not agree, or if the check failed."""
        return not self.fault and (self.agreement is None or self.agreement.holds)

    @property
    def ticks(self) -> bool:
        """Whether the evidence gives the platform a tick on the card."""
        return self.holds and self.status in ("ran", "compiled")

    @property
    def sentence(self) -> str:
        """A summary for the card: what was checked, on which device, the agreement, and what failed or is missing."""
        done = f"{self.status}: {self.what}" + (f" on {self.device}" if self.device else "")
        agreement = f", {self.agreement}" if self.agreement else ""
        rest = [("failed: ", self.fault), ("missing: ", self.missing)]
        return done + agreement + "".join(f"; {head}{text}" for head, text in rest if text)


def as_json(row: Evidence) -> Json:
    """Evidence as plain JSON, including the properties `holds` and `ticks`."""
    return {**asdict(row), "tools": list(row.tools), "holds": row.holds, "ticks": row.ticks}


def from_json(row: Json) -> Evidence:
    """The evidence in the JSON that `as_json` returns."""
    values = {part.name: row[part.name] for part in fields(Evidence)}
    agreement = Agreement(**row["agreement"]) if row["agreement"] else None
    return Evidence(**{**values, "tools": tuple(row["tools"]), "agreement": agreement})


@dataclass(frozen=True, eq=False)
class Subject:
    """The model and the inputs of all checks.

    Attributes:
        name: of the build.
        model: bytes of the INT8 `.tflite` file.
        inputs: int8 (n, height, width, 3), quantized with the scale and zero point of the model's input.
        expected: int8 (n, classes), the outputs of the reference kernels.
        source: the kind of source of the pictures, as `evaluation.kind` of a recipe.
        trained: False for seeded weights. They amplify rounding differences, so even two sets of kernels on one CPU
            give different classes for many pictures, and only bit-exact outputs can be claimed.
    """

    name: str
    model: bytes
    inputs: Array = field(repr=False)
    expected: Array = field(repr=False)
    source: str = "procedural"
    trained: bool = True


def checked(platform: str, check: Callable[[], list[Evidence]], given: bool = False) -> list[Evidence]:
    """The rows of a check; an error becomes a row, so the other checks still run.

    Args:
        given: whether the user gave the model; if so, a model that the platform does not support is not a fault.
    """
    try:
        return check()
    except PipelineError as error:
        if given and isinstance(error, InputError):
            return [Evidence(platform, "not run", error.expected, missing=error.found)]
        return [Evidence(platform, "not run", error.expected, fault=error.found)]


def bit_exact(outputs: Array, expected: Array) -> Agreement:
    """Counts the pictures whose outputs are equal in every byte; both arguments are int8 (n, classes)."""
    return Agreement(int(np.sum(np.all(outputs == expected, axis=1))), len(expected), "bit-exact")


def same_class(outputs: Array, expected: Array) -> Agreement:
    """Counts the pictures with the same best class; both arguments are int8 (n, classes).

    If several classes share the highest expected score, any of them counts. If several share the highest score in
    `outputs`, only the first counts, so constant outputs do not agree with everything.
    """
    scores = np.take_along_axis(expected, outputs.argmax(axis=1)[:, np.newaxis], axis=1)[:, 0]
    return Agreement(int(np.sum(scores == expected.max(axis=1))), len(expected), "same class")


def close(outputs: Array, expected: Array) -> Agreement:
    """Compares the outputs of kernels that round differently: the class if it is decided, and the scores.

    Args:
        outputs, expected: int8 (n, classes).
    """
    ordered = np.sort(expected.astype(np.int64), axis=1)
    leads = ordered[:, -1] - ordered[:, -2] if expected.shape[1] > 1 else np.zeros(len(expected), np.int64)
    decided = leads > DECIDED
    agreement = same_class(outputs[decided], expected[decided])
    # The unit: the difference to the next picture, or to the next class if all pictures have the same outputs.
    unit = max(_distances(np.roll(expected, 1, axis=axis), expected).sum() for axis in (0, 1))
    # One level is rounding: Arm NN's NEON softmax of 2020 makes almost all of 1001 scores one level larger.
    difference = np.maximum(_distances(outputs, expected) - 1, 0).sum()
    return replace(
        agreement,
        undecided=len(expected) - agreement.n,
        difference=float(difference / unit) if unit else float(difference > 0),
    )


def _distances(a: Array, b: Array) -> Array:
    """Absolute differences, int64."""
    distances: Array = np.abs(a.astype(np.int64) - b.astype(np.int64))
    return distances

"""What is known of the model on one platform: the one form for every check, for the table, the JSON and the card.

For: saying how strong a claim is. `ran` is what that platform's users run, on a device, an emulator or a software
device, and the evidence says which; `compiled` was made for it by its own compiler; `analysed` was only looked
at. Not for: figures of a device's speed. No check here runs on one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Literal

import numpy as np

from recreate_model.support.arrays import Array
from recreate_model.support.digest import Json
from recreate_model.support.errors import InputError, PipelineError

Status = Literal["ran", "compiled", "analysed", "not run"]

PLATFORMS = ("Cortex-A", "Cortex-M", "Mali GPU", "Ethos U")  # as the published card spells them
STATUSES: tuple[Status, ...] = ("ran", "compiled", "analysed", "not run")  # strongest first


# Fast kernels round otherwise than the reference kernels, so that classes near a tie may change places. What is claimed
# of them is what right kernels keep and wrong ones break, as measured with the published model (docs/cortex-a.md).
# XNNPACK, on 500 photographs and 300 procedural pictures, changed a class only where the winner led by 19 levels or
# fewer; Arm NN's NEON kernels of 2020 did where it led by 91. On any 20 pictures drawn their scores were at most 0.08
# apart. With one layer wrong they were 0.44 apart or more, with red and blue exchanged 0.24.
DECIDED = 128  # levels by which a winner must lead for its class to be claimed
FARTHEST = 0.2  # difference of the scores, where 1 is that between different pictures


@dataclass(frozen=True)
class Agreement:
    """How far the outputs of `n` pictures were the reference kernels'.

    Attributes:
        hits: pictures whose outputs were `bit-exact`, or of the `same class`.
        undecided: pictures beside those, whose class is not claimed, as the winner does not lead by DECIDED levels.
        difference: of all scores beyond a level each, where 1 is that between different pictures; None where it is not
            claimed.
    """

    hits: int
    n: int
    kind: Literal["bit-exact", "same class"]
    undecided: int = 0
    difference: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the outputs are those of right kernels."""
        return self.hits == self.n and (self.difference is None or self.difference <= FARTHEST)

    def __str__(self) -> str:
        parts = [f"{self.hits} of {self.n} {self.kind}"] if self.n or not self.undecided else []
        parts += [f"{self.undecided} undecided"] if self.undecided else []
        parts += [] if self.difference is None else [f"scores {self.difference:.2f} apart"]
        return ", ".join(parts)


@dataclass(frozen=True)
class Evidence:
    """One check of one platform.

    Attributes:
        what: what was done, such as `LiteRT's reference kernels as AArch64 code`.
        device: what it ran on: `qemu-aarch64 (emulated)`, `SwiftShader (software)`; empty where nothing ran.
        tools: what did it, each with its version.
        agreement: with the reference kernels; None where there are no outputs to compare.
        pictures: how many it ran on; None where nothing ran.
        seconds: for one inference on `device`, with the emulator's start where the note says so; None where nothing was
            timed.
        note: what the evidence does not show.
        missing: what is not on this machine and would raise the evidence, with the command that gets it.
        fault: what went wrong with a check that could not be finished; empty where nothing did.
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
        # A misspelt name would drop the evidence from the card without a word.
        if self.platform not in PLATFORMS or self.status not in STATUSES:
            raise ValueError(f"no such platform or status: {self.platform!r}, {self.status!r}")

    @property
    def holds(self) -> bool:
        """False where outputs were compared and parted, or where the check itself failed."""
        return not self.fault and (self.agreement is None or self.agreement.holds)

    @property
    def ticks(self) -> bool:
        """Whether it earns the platform a tick on the card."""
        return self.holds and self.status in ("ran", "compiled")

    @property
    def sentence(self) -> str:
        """What a reader of the card must know at once: what ran, where, how well, and what failed or is missing."""
        done = f"{self.status}: {self.what}" + (f" on {self.device}" if self.device else "")
        agreement = f", {self.agreement}" if self.agreement else ""
        rest = [("failed: ", self.fault), ("missing: ", self.missing)]
        return done + agreement + "".join(f"; {head}{text}" for head, text in rest if text)


def as_json(row: Evidence) -> Json:
    """Evidence as plain JSON, with what follows from it."""
    return {**asdict(row), "tools": list(row.tools), "holds": row.holds, "ticks": row.ticks}


def from_json(row: Json) -> Evidence:
    """The evidence of such JSON, as this program wrote it."""
    given = {part.name: row[part.name] for part in fields(Evidence)}
    agreement = Agreement(**row["agreement"]) if row["agreement"] else None
    return Evidence(**{**given, "tools": tuple(row["tools"]), "agreement": agreement})


@dataclass(frozen=True, eq=False)
class Subject:
    """The model and the pictures that every check of it works on.

    Attributes:
        name: of the build.
        model: bytes of the INT8 `.tflite` file.
        inputs: int8 (n, height, width, 3), quantised as the model's input.
        expected: int8 (n, classes), outputs of the reference kernels.
        source: where the pictures are from, as a recipe's `evaluation.kind`.
        trained: False for seeded weights. They amplify every rounding, so that even two sets of kernels on one CPU
            part on the class of many pictures: only bit-exact outputs can be claimed of them.
    """

    name: str
    model: bytes
    inputs: Array = field(repr=False)
    expected: Array = field(repr=False)
    source: str = "procedural"
    trained: bool = True


def checked(platform: str, check: Callable[[], list[Evidence]], given: bool = False) -> list[Evidence]:
    """The rows of a check; one that fails is its own affair, and the others have their rows all the same.

    Args:
        given: whether the model was given, so that what a platform refuses is the platform's limit and no fault.
    """
    try:
        return check()
    except PipelineError as error:
        if given and isinstance(error, InputError):
            return [Evidence(platform, "not run", error.expected, missing=error.found)]
        return [Evidence(platform, "not run", error.expected, fault=error.found)]


def bit_exact(outputs: Array, expected: Array) -> Agreement:
    """Compares every byte of each picture's output; both int8 (n, classes)."""
    return Agreement(int(np.sum(np.all(outputs == expected, axis=1))), len(expected), "bit-exact")


def same_class(outputs: Array, expected: Array) -> Agreement:
    """Compares the winning class of each picture; where several share the highest expected score, any of them will do.

    Of equal scores in `outputs` the first counts, so that outputs without a winner do not agree with all. Both
    (n, classes).
    """
    scores = np.take_along_axis(expected, outputs.argmax(axis=1)[:, np.newaxis], axis=1)[:, 0]
    return Agreement(int(np.sum(scores == expected.max(axis=1))), len(expected), "same class")


def close(outputs: Array, expected: Array) -> Agreement:
    """Holds kernels that round otherwise to what right ones keep: the class where it is decided, and the scores.

    Args:
        outputs, expected: int8 (n, classes).
    """
    ordered = np.sort(expected.astype(np.int64), axis=1)
    leads = ordered[:, -1] - ordered[:, -2] if expected.shape[1] > 1 else np.zeros(len(expected), np.int64)
    decided = leads > DECIDED
    agreement = same_class(outputs[decided], expected[decided])
    # The outputs of the next picture, or of the next class where all pictures have the same outputs.
    others = max(_apart(np.roll(expected, 1, axis=axis), expected).sum() for axis in (0, 1))
    # A level is rounding's: Arm NN's NEON softmax of 2020 gives nearly every one of 1001 scores a level more.
    own = np.maximum(_apart(outputs, expected) - 1, 0).sum()
    return replace(
        agreement,
        undecided=len(expected) - agreement.n,
        difference=float(own / others) if others else float(own > 0),
    )


def _apart(one: Array, two: Array) -> Array:
    distances: Array = np.abs(one.astype(np.int64) - two.astype(np.int64))
    return distances

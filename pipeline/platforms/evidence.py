"""What is known of the model on one platform: the one form for every check, for the table, the JSON and the card.

For: saying how strong a claim is. `ran` is code of that platform's kind that ran, on a device, an emulator or a
software device, and the evidence says which; `compiled` was made for it by its own compiler; `analysed` was only looked
at. Not for: figures of a device's speed. No check here runs on one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from recreate_model.network import Array

Status = Literal["ran", "compiled", "analysed", "not run"]

PLATFORMS = ("Cortex-A", "Cortex-M", "Mali GPU", "Ethos U")  # as the published card spells them
STATUSES: tuple[Status, ...] = ("ran", "compiled", "analysed", "not run")  # strongest first


@dataclass(frozen=True)
class Agreement:
    """On how many of `n` pictures the outputs were the reference kernels': `bit-exact`, or of the `same class`."""

    hits: int
    n: int
    kind: Literal["bit-exact", "same class"]

    def __str__(self) -> str:
        return f"{self.hits} of {self.n} {self.kind}"


@dataclass(frozen=True)
class Evidence:
    """One check of one platform.

    Attributes:
        what: what was done, such as `LiteRT's reference kernels as AArch64 code`.
        device: what it ran on: `qemu-aarch64 (emulated)`, `SwiftShader (software)`; empty where nothing ran.
        tools: what did it, each with its version.
        agreement: with the reference kernels; None where there are no outputs to compare.
        seconds: for one inference on `device`; None where nothing was timed.
        note: what the evidence does not show.
        missing: what is not on this machine and would raise the evidence, with the command that gets it.
    """

    platform: str
    status: Status
    what: str
    device: str = ""
    tools: tuple[str, ...] = ()
    agreement: Agreement | None = None
    seconds: float | None = None
    note: str = ""
    missing: str = ""

    def __post_init__(self) -> None:
        # A misspelt name would drop the evidence from the card without a word.
        if self.platform not in PLATFORMS or self.status not in STATUSES:
            raise ValueError(f"no such platform or status: {self.platform!r}, {self.status!r}")

    @property
    def holds(self) -> bool:
        """False where outputs were compared and parted."""
        return self.agreement is None or self.agreement.hits == self.agreement.n


@dataclass(frozen=True, eq=False)
class Subject:
    """The model and the pictures that every check of it works on.

    Attributes:
        name: of the build.
        model: bytes of the INT8 `.tflite` file.
        inputs: int8 (n, height, width, 3), quantised as the model's input.
        expected: int8 (n, classes), outputs of the reference kernels.
        source: where the pictures are from, as a recipe's `evaluation.kind`.
        trained: False for seeded weights. They amplify every rounding, so that even two sets of kernels on one CPU part
            on the class of many pictures; only bit-exact outputs can be claimed of them.
    """

    name: str
    model: bytes
    inputs: Array = field(repr=False)
    expected: Array = field(repr=False)
    source: str = "procedural"
    trained: bool = True


def bit_exact(outputs: Array, expected: Array) -> Agreement:
    """Compares every byte of each picture's output; both int8 (n, classes)."""
    return Agreement(int(np.sum(np.all(outputs == expected, axis=1))), len(expected), "bit-exact")


def same_class(outputs: Array, expected: Array) -> Agreement:
    """Compares the winning class of each picture; of equal scores the first wins. Both (n, classes)."""
    return Agreement(int(np.sum(outputs.argmax(axis=1) == expected.argmax(axis=1))), len(expected), "same class")

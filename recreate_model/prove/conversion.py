"""A frozen graph of the network, converted by a toolchain with ranges that are given, and with constants if they are.

For: whoever makes a published file again. Not for: our own bytes, which `convert` makes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from recreate_model.network import architecture
from recreate_model.network.layer import Layer, is_folded
from recreate_model.network.spec import MOBILENET_V2, Model
from recreate_model.prove import toolchain
from recreate_model.prove.toolchain import Converted, Edits, Job, Toolchain
from recreate_model.support.arrays import Array

# Weights and bias of every convolution, by channel or as a converter holds them.
Constants = tuple[tuple[Array, Array], ...]

# The range of an activation whose range decides no byte.
ANY_SPAN = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Conversion:
    """A frozen graph, and the toolchain that converts it.

    Attributes:
        python: of the toolchain's environment.
        job: its only attempt has the ranges and no constants.
        layers: of the network, in order.
        values: the graph's constants, or a checkpoint's variables that it holds, as in `checkpoint.FloatWeights`.
    """

    chain: Toolchain
    python: Path
    job: Job
    layers: Sequence[Layer]
    values: Mapping[str, Array]

    def run(self, *constants: Constants | None) -> Converted:
        """Converts once for each set of constants; None is for `untouched`.

        Raises:
            ToolError: the toolchain failed.
        """
        (edits,) = self.job.attempts
        attempts = tuple(replace(edits, constants=each) for each in constants)
        return toolchain.convert(self.chain, self.python, replace(self.job, attempts=attempts))

    @cached_property
    def untouched(self) -> Converted:
        """The model with what the toolchain folds on this CPU, and those constants; converted once."""
        return self.run(None)

    def foldable(self, layer: Layer) -> bool:
        """Whether the converter folds a BatchNorm into the layer; else its constants are the graph's own."""
        return not is_folded(layer, self.values)


def conversion_of(
    chain: Toolchain,
    python: Path,
    graph: bytes,
    model: Model,
    values: Mapping[str, Array],
    spans: Array,
    types: tuple[str, str] = ("int8", "int8"),
) -> Conversion:
    """The conversion of a frozen graph of a network.

    Args:
        values: as in `Conversion`.
        spans: as in `toolchain.Edits`.
        types: of the model's input and output.
    """
    job = Job(
        graph=graph,
        input=MOBILENET_V2.input_name,
        output=MOBILENET_V2.output_name,
        input_shape=(1, model.resolution, model.resolution, 3),
        input_type=types[0],
        output_type=types[1],
        attempts=(Edits(spans),),
    )
    return Conversion(chain, python, job, architecture.layers(model), values)

"""Converts a frozen graph of the network with a toolchain, given activation ranges and, optionally, constants.

For: rebuilding a published file. Not for: this project's own models (`convert`).
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

# Weights and bias of every convolution, float32; either by channel or in TensorFlow Lite's layout.
Constants = tuple[tuple[Array, Array], ...]

# A placeholder for the range of an activation whose range no byte depends on.
ANY_SPAN = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Conversion:
    """A frozen graph and the toolchain that converts it.

    Attributes:
        chain: the toolchain.
        python: the Python interpreter of the toolchain's environment.
        job: the job with a single attempt: the ranges, and no constants.
        layers: the layers of the network, in order.
        values: the graph's constants, or the variables it contains, as in `checkpoint.FloatWeights`.
    """

    chain: Toolchain
    python: Path
    job: Job
    layers: Sequence[Layer]
    values: Mapping[str, Array]

    def run(self, *constants: Constants | None) -> Converted:
        """Converts once for each set of constants, in TensorFlow Lite's layout; None leaves the converter's own.

        Raises:
            ToolError: the toolchain failed.
        """
        (edits,) = self.job.attempts
        attempts = tuple(replace(edits, constants=replacement) for replacement in constants)
        return toolchain.convert(self.chain, self.python, replace(self.job, attempts=attempts))

    @cached_property
    def untouched(self) -> Converted:
        """The model as the toolchain makes it on this CPU, and the constants it folds; converted once and kept.

        Raises:
            ToolError: the toolchain failed.
        """
        return self.run(None)

    def foldable(self, layer: Layer) -> bool:
        """Whether the converter folds BatchNorm into the layer. If not, its constants are those of the graph."""
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
    """The conversion of a frozen graph with given ranges.

    Args:
        chain, python, values: as in `Conversion`.
        graph: a serialized GraphDef.
        spans: minimum and maximum of each activation, as in `toolchain.Edits`.
        types: of the model's input and output: `int8`, `uint8` or `float32`.
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

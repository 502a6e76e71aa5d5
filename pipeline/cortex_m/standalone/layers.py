"""The layers of a model as the standalone runtime runs them: rows in, rows out, every parameter a whole number.

Not for: making them of a model (`lowering`), the order of work (`schedule`), memory (`plan`) or text (`emit`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.cortex_m.standalone import fixed_point
from recreate_model.support.arrays import Array

# Pixels that the kernels multiply at a time at the most: blocks are whole multiples.
PIXELS = 4
_FEW = 16  # pixels to a block at least, where there are as many


@dataclass(frozen=True)
class Activation:
    """A tensor of int8 that lives in the arena: `rows` of [columns][channels]. Of a flat one, all are columns."""

    rows: int
    columns: int
    channels: int
    scale: float
    zero_point: int

    @property
    def row_bytes(self) -> int:
        return self.columns * self.channels


@dataclass(frozen=True)
class Window:
    """Which input rows and columns one output row or column reads."""

    height: int = 1
    width: int = 1
    stride_y: int = 1
    stride_x: int = 1
    dilation_y: int = 1
    dilation_x: int = 1
    pad_top: int = 0
    pad_left: int = 0

    @property
    def reach(self) -> int:
        """Input rows that the first output row needs, counted from the input's first."""
        return (self.height - 1) * self.dilation_y + 1 - self.pad_top

    def rows(self, row: int) -> range:
        """Input rows that one output row reads; some may lie outside the input."""
        first = row * self.stride_y - self.pad_top
        return range(first, first + (self.height - 1) * self.dilation_y + 1)

    @property
    def is_point(self) -> bool:
        """Whether an output pixel reads the input pixel at its own place and nothing else."""
        return self == Window()


@dataclass(frozen=True, eq=False)
class Layer:
    """One operator that does work.

    Attributes:
        kind: `conv`, `depthwise`, `add`, `average_pool`, `reshape` or `softmax`.
        name: the output's in the model.
        inputs, output: numbers of activations.
        low, high: bounds of the outputs.
        weights: int8 (channels, depth) of a convolution, (taps, channels) of a depthwise one.
        bias, multiplier, shift: int32, one for each channel; those of ADD are (input one, input two, output).
        table: of SOFTMAX, the exponentials.
    """

    kind: str
    name: str
    inputs: tuple[int, ...]
    output: int
    window: Window = Window()
    low: int = fixed_point.INT8_MIN
    high: int = fixed_point.INT8_MAX
    weights: Array = field(default_factory=lambda: np.zeros((0, 0), np.int8))
    bias: Array = field(default_factory=lambda: np.zeros(0, np.int32))
    multiplier: Array = field(default_factory=lambda: np.zeros(0, np.int32))
    shift: Array = field(default_factory=lambda: np.zeros(0, np.int32))
    table: Array = field(default_factory=lambda: np.zeros(0, np.int32))

    def scratch_bytes(self, pixels: int) -> int:
        """Scratch memory to convolve a block of that many pixels, which are widened to int16."""
        return 2 * pixels * self.weights.shape[1] if self.kind == "conv" else 0


@dataclass(frozen=True, eq=False)
class Program:
    """A model, lowered. `activations[input]` is filled by the caller; `layers` are in the order of the file."""

    activations: tuple[Activation, ...]
    layers: tuple[Layer, ...]
    input: int
    output: int

    def rows(self, layer: int) -> int:
        """Rows of a layer's output."""
        return self.activations[self.layers[layer].output].rows

    def readers(self, activation: int) -> tuple[int, ...]:
        """The layers that read an activation."""
        return tuple(number for number, layer in enumerate(self.layers) if activation in layer.inputs)

    def blocks(self, layer: int, by_rows: bool) -> tuple[int, int]:
        """The smallest and the largest block of pixels to convolve at a time, of one row or of all."""
        output = self.activations[self.layers[layer].output]
        most = -(-output.columns * (1 if by_rows else output.rows) // PIXELS) * PIXELS
        return min(_FEW, most), most

"""The layers of a model as the standalone runtime computes them: row by row, with integer parameters only.

Not for: creating them from a model (`lowering`), execution order (`schedule`), memory (`plan`) or C text (`emit`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.cortex_m.standalone import fixed_point
from recreate_model.support.arrays import Array

# The most pixels that the kernels multiply at a time; block sizes are multiples of it.
PIXELS = 4
_SMALLEST_BLOCK = 16  # pixels, if the output has as many


@dataclass(frozen=True)
class Activation:
    """An int8 tensor in the arena: `rows` rows of [columns][channels]; a tensor of lower rank has a single row."""

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
    """The input rows and columns that an output pixel reads: size, stride, dilation and padding."""

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
        """How many input rows, from the first one, are needed for the first output row."""
        return (self.height - 1) * self.dilation_y + 1 - self.pad_top

    def rows(self, row: int) -> range:
        """The input rows that an output row reads; some may be outside the input."""
        first = row * self.stride_y - self.pad_top
        return range(first, first + (self.height - 1) * self.dilation_y + 1)

    @property
    def is_point(self) -> bool:
        """Whether each output pixel reads only the input pixel at the same position."""
        return self == Window()


@dataclass(frozen=True, eq=False)
class Layer:
    """One operator of the runtime.

    Attributes:
        kind: `conv`, `depthwise`, `add`, `average_pool`, `reshape` or `softmax`.
        name: name of the output tensor in the model.
        inputs, output: indices into `Program.activations`.
        window: the input pixels that an output pixel reads.
        low, high: smallest and largest output value.
        weights: int8, (channels, depth) for a convolution, (taps, channels) for a depthwise convolution.
        bias, multiplier, shift: int32 (channels,); for ADD, `multiplier` and `shift` are (first input, second input,
            output).
        table: int32 (256,), the exponentials of SOFTMAX.
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
        """Bytes of scratch memory to convolve a block of this many pixels, widened to int16."""
        return 2 * pixels * self.weights.shape[1] if self.kind == "conv" else 0


@dataclass(frozen=True, eq=False)
class Program:
    """A lowered model. The caller writes `activations[input]`; `layers` are in the order of the model file."""

    activations: tuple[Activation, ...]
    layers: tuple[Layer, ...]
    input: int
    output: int

    def rows(self, layer: int) -> int:
        """The number of rows of a layer's output."""
        return self.activations[self.layers[layer].output].rows

    def readers(self, activation: int) -> tuple[int, ...]:
        """The indices of the layers that read an activation."""
        return tuple(number for number, layer in enumerate(self.layers) if activation in layer.inputs)

    def blocks(self, layer: int, by_rows: bool) -> tuple[int, int]:
        """The smallest and the largest useful block size of a layer, in pixels.

        Args:
            by_rows: whether the layer computes one row at a time instead of all rows.
        """
        output = self.activations[self.layers[layer].output]
        most = -(-output.columns * (1 if by_rows else output.rows) // PIXELS) * PIXELS
        return min(_SMALLEST_BLOCK, most), most

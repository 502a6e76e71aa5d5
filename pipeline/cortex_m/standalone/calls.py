"""Generates a C function for each layer and each segment of a plan; it calls a kernel with literal sizes and offsets.

Not for: the files that contain them (`emit`), or the kernels (`int8_kernels.h`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.cortex_m.standalone.constants import Constants
from pipeline.cortex_m.standalone.layers import Activation, Layer, Program
from pipeline.cortex_m.standalone.plan import Plan
from pipeline.cortex_m.standalone.schedule import Segment


class Calls:
    """Generates the C functions of a planned program."""

    def __init__(self, program: Program, plan: Plan, constants: Constants) -> None:
        self._program = program
        self._plan = plan
        self._constants = constants
        self._scratch = {
            number: offset
            for segment, offset in zip(plan.segments, plan.scratch, strict=True)
            for number in segment.layers
        }
        self._streamed = {number for segment in plan.segments if segment.streams for number in segment.layers}

    def layer(self, number: int) -> str:
        """The definition of `layer_<number>`."""
        layer = self._program.layers[number]
        output = self._program.activations[layer.output]
        body = {
            "conv": self._convolution,
            "depthwise": self._depthwise,
            "add": self._addition,
            "average_pool": self._pool,
            "reshape": self._reshape,
            "softmax": self._softmax,
        }[layer.kind](number, layer)
        lines = "\n".join(f"    {line}" for line in body)
        parameter = "int32_t row" if self._by_rows(number) else "void"
        what = f"{layer.kind}: {_comment(layer.name)}, {output.rows} x {output.columns} x {output.channels}"
        return f"/* {what} */\nstatic void layer_{number}({parameter})\n{{\n{lines}\n}}\n"

    def segment(self, number: int, segment: Segment) -> str:
        """The definition of `segment_<number>`; it computes each row as soon as the rows that it reads are there."""
        inner = range(segment.first, segment.last)
        lines = [f"int32_t row, {', '.join(f'done_{layer} = 0' for layer in inner)};"]
        lines += [f"for (row = 0; row < {self._program.rows(segment.last)}; ++row) {{"]
        lines += [f"    const int32_t to_{segment.last} = row + 1;"]
        for layer in reversed(inner):
            wanted = [self._rows_needed(reader) for reader in self._program.readers(self._program.layers[layer].output)]
            text = wanted[0]
            for other in wanted[1:]:
                text = f"larger({text}, {other})"
            lines += [f"    const int32_t to_{layer} = {text};"]
        for layer in inner:
            lines += [f"    while (done_{layer} < to_{layer})", f"        layer_{layer}(done_{layer}++);"]
        lines += [f"    layer_{segment.last}(row);", "}"]
        body = "\n".join(f"    {line}" for line in lines)
        return f"\nstatic void segment_{number}(void)\n{{\n{body}\n}}\n"

    def call(self, number: int, segment: Segment) -> str:
        """The statement that runs a segment."""
        if segment.streams:
            return f"    segment_{number}();"
        if not self._by_rows(segment.first):
            return f"    layer_{segment.first}();"
        return (
            f"    for (row = 0; row < {self._program.rows(segment.first)}; ++row)\n        layer_{segment.first}(row);"
        )

    def _by_rows(self, number: int) -> bool:
        """Whether the layer's function computes one row; else it computes all rows, as a pointwise layer can."""
        layer = self._program.layers[number]
        pointwise = layer.kind in ("add", "reshape", "softmax") or (layer.kind == "conv" and layer.window.is_point)
        return number in self._streamed or not pointwise

    def _rows_needed(self, reader: int) -> str:
        layer = self._program.layers[reader]
        rows = self._program.activations[layer.inputs[0]].rows
        return f"rows_needed(to_{reader}, {layer.window.stride_y}, {layer.window.reach}, {rows})"

    def _activation(self, number: int) -> Activation:
        return self._program.activations[number]

    def _row(self, number: int, layer: int) -> str:
        """The address of row `row` of an activation, or of the whole activation if the layer does not work by rows."""
        place = self._plan.places[number]
        if not self._by_rows(layer):
            return f"AT({place.offset})"
        return f"AT({place.offset} + row % {place.rows} * {self._activation(number).row_bytes})"

    def _pixels(self, number: int, layer: Layer) -> int:
        output = self._activation(layer.output)
        return output.columns * (1 if self._by_rows(number) else output.rows)

    def _requantization(self, number: int, layer: Layer) -> str:
        at = self._constants.channels_at[number]
        zero_point = self._activation(layer.output).zero_point
        return (
            "const requantization to = {"
            f"biases + {at}, multipliers + {at}, SHIFTS + {at}, {zero_point}, {layer.low}, {layer.high}}};"
        )

    def _window(self, layer: Layer) -> Iterator[str]:
        """The declarations of the C variables `over` and `rows`."""
        source, w = self._activation(layer.inputs[0]), layer.window
        yield (
            f"const window over = {{{w.height}, {w.width}, {w.stride_x}, {w.dilation_x}, {w.pad_left}, "
            f"{source.columns}, {source.channels}}};"
        )
        yield f"const int8_t *rows[{w.height}];"

    def _rows(self, layer: Layer) -> str:
        source, place = self._activation(layer.inputs[0]), self._plan.places[layer.inputs[0]]
        w = layer.window
        return (
            f"input_rows(AT({place.offset}), {place.rows}, {source.row_bytes}, {source.rows}, "
            f"row * {w.stride_y} - {w.pad_top}, {w.dilation_y}, {w.height}, rows);"
        )

    def _convolution(self, number: int, layer: Layer) -> Sequence[str]:
        output = self._activation(layer.output)
        weights = f"WEIGHTS + {self._constants.weights_at[number]}"
        tail = (
            f"{output.channels}, to, {self._row(layer.output, number)}, SCRATCH({self._scratch[number]}), "
            f"{self._plan.blocks[number]});"
        )
        if layer.window.is_point:
            source = self._row(layer.inputs[0], number)
            call = f"point_convolution({source}, {self._pixels(number, layer)}, {layer.weights.shape[1]}, {weights}, "
            return [self._requantization(number, layer), call + tail]
        zero_point = self._activation(layer.inputs[0]).zero_point
        call = f"convolution_row(rows, over, {zero_point}, {weights}, {output.columns}, "
        return [*self._window(layer), self._requantization(number, layer), self._rows(layer), call + tail]

    def _depthwise(self, number: int, layer: Layer) -> Sequence[str]:
        output = self._activation(layer.output)
        outside = outside_name(self._activation(layer.inputs[0]).zero_point)
        return [
            *self._window(layer),
            f"const int8_t *taps[{layer.window.height * layer.window.width}];",
            self._requantization(number, layer),
            self._rows(layer),
            f"depthwise_row(rows, over, {outside}, WEIGHTS + {self._constants.weights_at[number]}, {output.columns}, "
            f"to, {self._row(layer.output, number)}, taps);",
        ]

    def _addition(self, number: int, layer: Layer) -> Sequence[str]:
        zero_points = [self._activation(index).zero_point for index in (*layer.inputs, layer.output)]
        triples = [f"{{{', '.join(map(str, values))}}}" for values in (zero_points, layer.multiplier, layer.shift)]
        operands = ", ".join(self._row(index, number) for index in layer.inputs)
        count = self._pixels(number, layer) * self._activation(layer.output).channels
        return [
            f"static const addition by = {{{', '.join(triples)}, {layer.low}, {layer.high}}};",
            f"add({operands}, {count}, &by, {self._row(layer.output, number)});",
        ]

    def _pool(self, number: int, layer: Layer) -> Sequence[str]:
        columns = self._activation(layer.output).columns
        return [
            *self._window(layer),
            self._rows(layer),
            f"average_row(rows, over, {columns}, {layer.low}, {layer.high}, {self._row(layer.output, number)});",
        ]

    def _reshape(self, number: int, layer: Layer) -> Sequence[str]:
        output = self._activation(layer.output)
        operands = f"{self._row(layer.output, number)}, {self._row(layer.inputs[0], number)}"
        return [f"memcpy({operands}, {output.rows * output.row_bytes});"]

    def _softmax(self, number: int, layer: Layer) -> Sequence[str]:
        depth = self._activation(layer.output).channels
        operands = f"{self._row(layer.inputs[0], number)}, {self._pixels(number, layer)}, {depth}"
        return [f"softmax({operands}, exponentials_{number}, {self._row(layer.output, number)});"]


def outside_name(zero_point: int) -> str:
    """The C name of the padding pixel for an input with this zero point."""
    return f"outside_{zero_point}".replace("-", "minus_")


def _comment(text: str) -> str:
    """Text that is safe inside a C comment."""
    return "".join(character if character.isprintable() else "?" for character in text).replace("*/", "* /")

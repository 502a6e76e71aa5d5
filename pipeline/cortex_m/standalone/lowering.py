"""Lowers a `.tflite` file to the layers of the standalone runtime, or refuses it and names what is not supported.

Multipliers, bounds and tables are computed as the `Prepare` functions of the reference kernels compute them, so the
device computes none of them. Not for: checking which model it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.cortex_m.standalone import fixed_point
from pipeline.cortex_m.standalone.layers import Activation, Layer, Program, Window
from recreate_model.support.arrays import Array
from recreate_model.support.errors import InputError
from recreate_model.tflite.model_view import ModelView, Operator, Quantization, Tensor, read_model

OPERATORS = ("ADD", "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "RESHAPE", "SOFTMAX")
_LARGEST_SUM = 2**31 - 1 - 256  # leaves room to add a zero point
_MOST_SCORES = 4095  # of SOFTMAX: a sum of this many exponentials fits in 32 bits
_FINEST = 1e-30  # smallest scale; with a smaller one, the bound of a fused activation overflows
_NO_TENSOR = -1  # index of an omitted optional input


def lower(model: bytes, source: str) -> Program:
    """The program of a `.tflite` file.

    Args:
        model: bytes of the file.
        source: name of the file, for messages.

    Raises:
        InputError: not an INT8 model of batch 1 with one input and one output, or one with an operator that the
            runtime does not support; the message names the operator.
    """
    view = read_model(model, source)
    unsupported = [name for name in view.operator_names if name not in OPERATORS]
    if unsupported:
        first = next(number for number, operator in enumerate(view.operators) if operator.name == unsupported[0])
        raise _unsupported(source, f"{', '.join(unsupported)} (first at operator {first})")
    if len(view.inputs) != 1 or len(view.outputs) != 1:
        raise _unsupported(source, f"{len(view.inputs)} inputs and {len(view.outputs)} outputs")
    return _Lowering(view, source).program()


class _Lowering:
    """Lowers the operators one by one, in the order of the file."""

    def __init__(self, view: ModelView, source: str) -> None:
        self._view = view
        self._source = source
        self._place = "an input"  # of what is being lowered, for messages
        self._numbers: dict[int, int] = {}  # tensor -> activation
        self._activations: list[Activation] = []

    def program(self) -> Program:
        view = self._view
        self._add(view.inputs[0])
        lowerings = {
            "ADD": self._addition,
            "AVERAGE_POOL_2D": self._pool,
            "CONV_2D": self._convolution,
            "DEPTHWISE_CONV_2D": self._depthwise,
            "RESHAPE": self._reshape,
            "SOFTMAX": self._softmax,
        }
        layers = []
        for number, operator in enumerate(view.operators):
            self._place = f"operator {number} {operator.name}"
            if not operator.inputs or len(operator.outputs) != 1:
                raise self._refuse(f"{len(operator.inputs)} inputs and {len(operator.outputs)} outputs")
            layers.append(lowerings[operator.name](operator))
        self._place = "the graph"
        source, target = self._number(view.inputs[0]), self._number(view.outputs[0])
        used = _used(tuple(filter(None, layers)), target)
        if not used:
            raise self._refuse("no operator that computes its output")
        return Program(tuple(self._activations), used, source, target)

    def _refuse(self, found: str) -> InputError:
        return _unsupported(self._source, f"{self._place} with {found}")

    def _number(self, tensor: int) -> int:
        """The index of the activation of a tensor that is already written."""
        if tensor not in self._numbers:
            found = None if tensor == _NO_TENSOR else self._view.tensors[tensor]
            if found and found.data:
                raise self._refuse(f"the constant {found.name!r} as an operand")
            name = repr(found.name) if found else "nothing"
            raise self._refuse(f"{name} as an operand, which no earlier operator writes")
        return self._numbers[tensor]

    def _add(self, tensor: int) -> int:
        """Adds an activation for a tensor; returns its index."""
        found = self._view.tensors[tensor]
        scale, zero_point = self._one_scale(found)
        if not 2 <= len(found.shape) <= 4 or min(found.shape) < 1:
            raise self._refuse(f"the shape {found.shape} of {found.name!r}")
        batch, *inner = found.shape
        if batch != 1:
            raise self._refuse(f"a batch of {batch} in {found.name!r}")
        rows, columns, channels = [1] * (3 - len(inner)) + inner
        self._numbers[tensor] = len(self._activations)
        self._activations.append(Activation(rows, columns, channels, scale, zero_point))
        return self._numbers[tensor]

    def _one_scale(self, tensor: Tensor) -> tuple[float, int]:
        quantization = tensor.quantization
        if tensor.dtype != "int8" or tensor.data or quantization is None or len(quantization.scales) != 1:
            raise self._refuse(f"{tensor.dtype} {tensor.name!r}, which is not an int8 activation with one scale")
        if not (_FINEST < quantization.scales[0] < math.inf and -128 <= quantization.zero_points[0] <= 127):
            raise self._refuse(f"scale {quantization.scales[0]:g} of {tensor.name!r}")
        return quantization.scales[0], quantization.zero_points[0]

    def _operands(self, operator: Operator) -> tuple[int, Activation, int, Activation]:
        """Index and activation of the first input, and of the output, which is added."""
        source = self._number(operator.inputs[0])
        target = self._add(operator.outputs[0])
        return source, self._activations[source], target, self._activations[target]

    def _bounds(self, operator: Operator, output: Activation) -> tuple[int, int]:
        activation = self._option(operator, "fused_activation_function")
        try:
            return fixed_point.bounds(activation, Quantization((output.scale,), (output.zero_point,), 0))
        except KeyError:
            raise self._refuse(f"the fused activation {activation}") from None

    def _reshape(self, operator: Operator) -> Layer | None:
        """None if the output has the same rows as the input: then both are the same activation."""
        number, source, to, target = self._operands(operator)
        if source.rows * source.row_bytes != target.rows * target.row_bytes:
            sizes = f"{target.rows * target.row_bytes} bytes from {source.rows * source.row_bytes}"
            raise self._refuse(f"an output of {sizes}")
        if (source.scale, source.zero_point) != (target.scale, target.zero_point):
            raise self._refuse("an output of another scale than its input")
        if source == target:
            self._numbers[operator.outputs[0]] = number
            self._activations.pop()
            return None
        return Layer("reshape", self._name(operator), (number,), to)

    def _constants(self, operator: Operator, channels: int, input_scale: float, output_scale: float) -> _Constants:
        weights = self._view.tensors[operator.inputs[1]]
        quantization = weights.quantization
        if weights.dtype != "int8" or not weights.data or quantization is None:
            raise self._refuse(f"weights that are not an int8 constant ({weights.dtype} {weights.name!r})")
        if len(quantization.scales) != channels:
            raise self._refuse(f"per-tensor weights: {len(quantization.scales)} scales for {channels} channels")
        if any(quantization.zero_points):
            raise self._refuse("weights with a zero point")
        if not all(0 <= scale < math.inf for scale in quantization.scales):
            raise self._refuse("weights with a scale that is negative or not finite")
        if len(weights.shape) != 4:
            raise self._refuse(f"weights of shape {weights.shape}")
        bias = np.zeros(channels, np.int32)
        if len(operator.inputs) > 2 and operator.inputs[2] != _NO_TENSOR:
            tensor = self._view.tensors[operator.inputs[2]]
            if tensor.dtype != "int32" or len(tensor.data) != 4 * channels:
                raise self._refuse(f"a bias of {tensor.dtype} {tensor.shape}")
            bias = np.frombuffer(tensor.data, "<i4").astype(np.int32)
        pairs = [
            fixed_point.multiplier(float(input_scale) * scale / float(output_scale)) for scale in quantization.scales
        ]
        mantissas, shifts = np.asarray(pairs, np.int64).T
        return _Constants(
            np.frombuffer(weights.data, np.int8).reshape(weights.shape),
            bias,
            mantissas.astype(np.int32),
            shifts.astype(np.int32),
        )

    def _check_sums(self, weights: Array, found: _Constants) -> None:
        """Checks that no sum overflows int32 for any input, including the left shift and the zero point.

        Args:
            weights: int8 (channels, depth).
        """
        largest = np.abs(weights.astype(np.int64)).sum(axis=1) * 255 + np.abs(found.bias.astype(np.int64))
        raised = largest * np.exp2(np.maximum(found.shift, 0))
        if raised.max(initial=0) > _LARGEST_SUM:
            raise self._refuse("weights and biases whose sum may overflow 32 bits")

    def _option(self, operator: Operator, name: str) -> Any:
        if name not in operator.options:
            raise self._refuse(f"no option {name}")
        return operator.options[name]

    def _window(self, operator: Operator, height: int, width: int, source: Activation, target: Activation) -> Window:
        strides = (self._option(operator, "stride_h"), self._option(operator, "stride_w"))
        # AVERAGE_POOL_2D has no dilation.
        dilations = tuple(operator.options.get(f"dilation_{axis}_factor", 1) for axis in "hw")
        if min(height, width, *strides, *dilations) < 1:
            raise self._refuse(f"a window of {height} x {width}, strides {strides} and dilations {dilations}")
        pads = []
        for size, length, stride, dilation, outputs in zip(
            (source.rows, source.columns),
            (height, width),
            strides,
            dilations,
            (target.rows, target.columns),
            strict=True,
        ):
            span = (length - 1) * dilation + 1
            expected = (
                -(-size // stride) if self._option(operator, "padding") == "SAME" else (size - span) // stride + 1
            )
            if outputs != expected:
                raise self._refuse(f"{outputs} output rows or columns instead of {expected}")
            pads.append(max((outputs - 1) * stride + span - size, 0) // 2)
        return Window(height, width, *strides, *dilations, *pads)

    def _convolution(self, operator: Operator) -> Layer:
        number, source, to, target = self._operands(operator)
        found = self._constants(operator, target.channels, source.scale, target.scale)
        channels, height, width, depth = found.weights.shape
        if (channels, depth) != (target.channels, source.channels):
            raise self._refuse(f"weights {found.weights.shape} for {source.channels} to {target.channels} channels")
        weights = found.weights.reshape(channels, -1)
        self._check_sums(weights, found)
        return Layer(
            "conv", self._name(operator), (number,), to, self._window(operator, height, width, source, target),
            *self._bounds(operator, target), weights, found.bias, found.multiplier, found.shift,
        )  # fmt: skip

    def _depthwise(self, operator: Operator) -> Layer:
        number, source, to, target = self._operands(operator)
        found = self._constants(operator, target.channels, source.scale, target.scale)
        _, height, width, channels = found.weights.shape
        if not channels == target.channels == source.channels:
            raise self._refuse(f"a depth multiplier: {source.channels} channels become {target.channels}")
        weights = found.weights.reshape(-1, channels)
        self._check_sums(weights.T, found)
        return Layer(
            "depthwise", self._name(operator), (number,), to, self._window(operator, height, width, source, target),
            *self._bounds(operator, target), weights, found.bias, found.multiplier, found.shift,
        )  # fmt: skip

    def _addition(self, operator: Operator) -> Layer:
        numbers = tuple(self._number(index) for index in operator.inputs)
        to = self._add(operator.outputs[0])
        target, sources = self._activations[to], [self._activations[number] for number in numbers]
        shapes = {(tensor.rows, tensor.columns, tensor.channels) for tensor in (*sources, target)}
        if len(numbers) != 2 or len(shapes) != 1:
            raise self._refuse("operands of different shapes")
        twice = 2.0 * max(source.scale for source in sources)
        factors = [source.scale / twice for source in sources]
        factors.append(twice / ((1 << fixed_point.ADD_LEFT_SHIFT) * target.scale))
        pairs = [fixed_point.multiplier(factor) for factor in factors]
        if any(shift > 0 for _, shift in pairs):
            raise self._refuse("an output scale so small that the reference kernels refuse it")
        mantissas, shifts = np.asarray(pairs, np.int64).T
        low, high = self._bounds(operator, target)
        return Layer(
            "add", self._name(operator), numbers, to, low=low, high=high,
            multiplier=mantissas.astype(np.int32), shift=shifts.astype(np.int32),
        )  # fmt: skip

    def _pool(self, operator: Operator) -> Layer:
        number, source, to, target = self._operands(operator)
        if (source.channels, source.scale, source.zero_point) != (target.channels, target.scale, target.zero_point):
            raise self._refuse("an output of another scale or other channels than its input")
        size = self._option(operator, "filter_height"), self._option(operator, "filter_width")
        window = self._window(operator, *size, source, target)
        return Layer("average_pool", self._name(operator), (number,), to, window, *self._bounds(operator, target))

    def _softmax(self, operator: Operator) -> Layer:
        number, source, to, target = self._operands(operator)
        if target.scale != 1 / 256 or target.zero_point != fixed_point.INT8_MIN:
            raise self._refuse(f"an output scale of {target.scale:g} and zero point {target.zero_point}")
        if (source.rows, source.columns, source.channels) != (target.rows, target.columns, target.channels):
            raise self._refuse("an output of another shape than its input")
        if source.channels > _MOST_SCORES:
            raise self._refuse(f"{source.channels} scores, more than {_MOST_SCORES}")
        try:
            table = fixed_point.exponentials(self._option(operator, "beta"), source.scale)
        except ValueError as error:
            raise self._refuse(str(error)) from error
        return Layer("softmax", self._name(operator), (number,), to, table=table)

    def _name(self, operator: Operator) -> str:
        return self._view.tensors[operator.outputs[0]].name


def _used(layers: tuple[Layer, ...], output: int) -> tuple[Layer, ...]:
    """The layers that contribute to the output, in order; the others are dropped."""
    needed, used = {output}, []
    for layer in reversed(layers):
        if layer.output in needed:
            needed.update(layer.inputs)
            used.append(layer)
    return tuple(reversed(used))


@dataclass(frozen=True, eq=False)
class _Constants:
    """Weights as in the model; bias, multiplier and shift are int32 (channels,)."""

    weights: Array
    bias: Array
    multiplier: Array
    shift: Array


def _unsupported(source: str, found: str) -> InputError:
    return InputError(
        expected=f"{source} to be an INT8 model of batch 1 with per-channel weights, made of {', '.join(OPERATORS)}",
        found=found,
        next_step="give such a model, or build one with `python -m pipeline quantize`",
    )

"""A float32 `.tflite` of a MobileNetV2, read by its structure: the weights and biases that a converter folded.

For: files of TF-Slim's and Keras' networks, as TensorFlow Lite's converter writes them. Not for: quantised files, whose
floats are gone (`full_integer`), nor for running them (`interpret`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recreate_model.floats.background import CLASSES_READ
from recreate_model.network import architecture
from recreate_model.network.layer import Layer
from recreate_model.network.spec import Model
from recreate_model.support.arrays import Array
from recreate_model.support.errors import InputError
from recreate_model.tflite.model_view import ModelView, Operator, Tensor, read_model

_KERAS_PADDING = [0, 0, 0, 1, 0, 1, 0, 0]  # that of SAME at a stride of 2 where the size is even, as it is here

_SHOWN = 60  # most characters of a name from the file in a message


def read_float_tflite(data: bytes, model: Model, source: str) -> dict[str, Array]:
    """The folded weights and biases of every layer, by the names that `network.fold` takes, float32.

    Args:
        source: what to call the file in an error.

    Raises:
        InputError: not such a file: damaged, quantised, of another network or another member of the family.
    """
    view = read_model(data, source)
    _check_float(view, source)
    return _Walk(view, source).values(model)


def _check_float(view: ModelView, source: str) -> None:
    for dtype, kind in (
        ("int8", "a quantised model: int8"),
        ("uint8", "a quantised model: uint8"),
        ("int16", "a quantised model: int16"),
        ("int4", "a quantised model: int4"),
        ("float16", "a model with its weights rounded to float16: float16"),
    ):
        found = next((tensor for tensor in view.tensors if tensor.dtype == dtype), None)
        if found:
            raise InputError(
                expected=f"{source} to be a float32 model",
                found=f"{kind} in tensor {found.name[:_SHOWN]!r}",
                next_step="give the float file it was made from; `recover` and `prove` take quantised ones",
            )


class _Walk:
    """From the softmax to the input."""

    def __init__(self, view: ModelView, source: str) -> None:
        self._view = view
        self._source = source
        self._makers = {index: number for number, each in enumerate(view.operators) for index in each.outputs}

    def values(self, model: Model) -> dict[str, Array]:
        if len(self._view.inputs) != 1 or len(self._view.outputs) != 1:
            raise self._other(f"{len(self._view.inputs)} inputs and {len(self._view.outputs)} outputs")
        *body, classifier = architecture.layers(model)
        found, index = self._head(classifier)
        skip = -1
        for layer in reversed(body):
            if layer.residual:
                index, skip = self._branch(index)
            values, index = self._layer(layer, self._operator(index, layer.name))
            found |= values
            if layer.block_start:
                if skip not in (-1, index):
                    raise self._other(f"an addition behind {layer.name} of something else than its block's input")
                skip = -1
        if index != self._view.inputs[0]:
            raise self._other(f"{self._tensor(index).name[:_SHOWN]!r} in the place of the input")
        if self._view.input.shape != (1, model.resolution, model.resolution, 3):
            expected = f"the input of {model.name}, {(1, model.resolution, model.resolution, 3)}"
            raise self._refused(expected, f"one of shape {self._view.input.shape}")
        return {
            name: found[name] for layer in architecture.layers(model) for name in (layer.weights_name, _bias(layer))
        }

    def _head(self, classifier: Layer) -> tuple[dict[str, Array], int]:
        """The classifier's values, and what the pool behind it averages."""
        softmax = self._operator(self._behind_reshape(self._view.outputs[0]), "the softmax")
        if softmax.name != "SOFTMAX":
            raise self._other(f"{softmax.name} in the place of the softmax")
        operator = self._operator(self._behind_reshape(softmax.inputs[0]), classifier.name)
        classes = next((self._tensor(index).shape[0] for index in operator.inputs[1:2] if self._tensor(index).shape), 0)
        if classes not in CLASSES_READ:
            raise self._refused(f"{' or '.join(map(str, CLASSES_READ))} classes", str(classes))
        values, index = self._layer(replace(classifier, outputs=classes), operator)
        pool = self._operator(self._behind_reshape(index), "the average pool")
        if pool.name not in ("AVERAGE_POOL_2D", "MEAN"):
            raise self._other(f"{pool.name} in the place of the average pool")
        return values, pool.inputs[0]

    def _layer(self, layer: Layer, operator: Operator) -> tuple[dict[str, Array], int]:
        """Weights and bias, and the layer's input."""
        kind = "DEPTHWISE_CONV_2D" if layer.depthwise else "CONV_2D"
        matrix = operator.name == "FULLY_CONNECTED" and not layer.batch_norm
        if operator.name != kind and not matrix:
            raise self._other(f"{operator.name} in the place of the {kind} of {layer.name}")
        if len(operator.inputs) not in (2, 3):
            raise self._other(f"a {operator.name} of {len(operator.inputs)} inputs in {layer.name}")
        activation = operator.options.get("fused_activation_function")
        if activation != ("RELU6" if layer.relu6 else "NONE"):
            raise self._other(f"the activation {activation} in {layer.name}")
        before = operator.inputs[0] if matrix else self._input(operator, layer)
        height, width, inputs, outputs = layer.weights_shape
        stored = (1, height, width, inputs) if layer.depthwise else (outputs, height, width, inputs)
        weights = self._constant(operator.inputs[1], (outputs, inputs) if matrix else stored, layer)
        # A converter leaves out a bias of zeros.
        has_bias = len(operator.inputs) == 3 and operator.inputs[2] >= 0
        zeros = np.zeros(layer.outputs, np.float32)
        bias = self._constant(operator.inputs[2], (layer.outputs,), layer) if has_bias else zeros
        turned = np.moveaxis(weights.reshape(stored), 0, -1)
        return {layer.weights_name: np.ascontiguousarray(turned), _bias(layer): bias}, before

    def _input(self, operator: Operator, layer: Layer) -> int:
        """What a convolution is given, in front of the padding that may be an operator of its own."""
        options, index = operator.options, operator.inputs[0]
        padding = options.get("padding")
        if padding == "VALID" and layer.stride == 2 and index in self._makers:
            pad = self._view.operators[self._makers[index]]
            if pad.name == "PAD" and len(pad.inputs) == 2 and self._numbers(pad.inputs[1]) == _KERAS_PADDING:
                padding, index = "SAME", pad.inputs[0]
        # One pixel at a time needs no padding.
        same = padding == "SAME" or layer.kernel == 1
        found = [options.get(name) for name in ("stride_h", "stride_w", "dilation_h_factor", "dilation_w_factor")]
        if found != [layer.stride, layer.stride, 1, 1] or not same:
            expected = f"a stride of {layer.stride} and the padding SAME in {layer.name}"
            raise self._refused(expected, f"{found[0]} and {padding}")
        return index

    def _branch(self, index: int) -> tuple[int, int]:
        """The side of a residual addition that its block computes, which comes later, and the other."""
        operator = self._operator(index, "a residual addition")
        if (
            operator.name != "ADD"
            or len(operator.inputs) != 2
            or operator.options.get("fused_activation_function") != "NONE"
        ):
            raise self._other(f"{operator.name} in the place of a residual addition")
        other, branch = sorted(operator.inputs, key=lambda side: self._makers.get(side, -1))
        return branch, other

    def _operator(self, index: int, what: str) -> Operator:
        if index not in self._makers:
            raise self._other(
                f"the tensor {self._tensor(index).name[:_SHOWN]!r}, which nothing makes, in front of {what}"
            )
        operator = self._view.operators[self._makers[index]]
        if not operator.inputs or min(operator.inputs[:2]) < 0:
            raise self._other(f"a {operator.name} with the inputs {operator.inputs}")
        return operator

    def _behind_reshape(self, index: int) -> int:
        """The tensor behind one that only has another shape."""
        for _ in self._view.operators:
            operator = self._view.operators[self._makers[index]] if index in self._makers else None
            if operator is None or operator.name not in ("RESHAPE", "SQUEEZE") or not operator.inputs:
                return index
            index = operator.inputs[0]
        return index

    def _tensor(self, index: int) -> Tensor:
        return self._view.tensors[index]

    def _numbers(self, index: int) -> list[int]:
        tensor = self._tensor(index)
        return np.frombuffer(tensor.data, np.int32).tolist() if tensor.dtype == "int32" else []

    def _constant(self, index: int, shape: tuple[int, ...], layer: Layer) -> Array:
        """A constant of this shape, but for sides of 1 in front of a vector."""
        tensor = self._tensor(index)
        found = tensor.shape
        if len(shape) == 1 and found[:-1] == (1,) * (len(found) - 1):
            found = found[-1:]
        if (tensor.dtype, found) != ("float32", shape) or not tensor.data or tensor.rest.get("sparsity") is not None:
            raise self._refused(f"float32 constants of shape {shape} in {layer.name}", f"{tensor.dtype} {tensor.shape}")
        return np.frombuffer(tensor.data, np.float32).reshape(shape)

    def _refused(self, expected: str, found: str) -> InputError:
        return InputError(
            expected=f"{self._source} to have {expected}",
            found=found,
            next_step="give --model the name of its network, or another --checkpoint",
        )

    def _other(self, found: str) -> InputError:
        return InputError(
            expected=f"{self._source} to be a float MobileNetV2 as a converter writes it",
            found=found,
            next_step="give a float model of this family",
        )


def _bias(layer: Layer) -> str:
    return f"{layer.name}/biases"

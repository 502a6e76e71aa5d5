"""The weights and biases of a float32 `.tflite` of a MobileNetV2, found by the structure of its graph.

Reads the networks of TF-Slim and Keras, as TensorFlow Lite's converter writes them with BatchNorm folded. A quantized
file is rejected, as it has no float weights.
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

_KERAS_PADDING = [0, 0, 0, 1, 0, 1, 0, 0]  # equals SAME padding for stride 2 and an even size, as all sizes here are

_SHOWN = 60  # longest name from the file in a message, in characters


def read_float_tflite(data: bytes, model: Model, source: str) -> dict[str, Array]:
    """Read the folded weights and biases of every layer.

    Args:
        data: content of a `.tflite` file.
        model: the expected member of the family.
        source: name of the file in error messages.

    Returns:
        Variable name -> float32 array, as `fold` takes them.

    Raises:
        InputError: the file is damaged, quantized, or of another network or member of the family.
    """
    view = read_model(data, source)
    _check_float(view, source)
    return _LayerReader(view, source).values(model)


def _check_float(view: ModelView, source: str) -> None:
    for dtype, kind in (
        ("int8", "a quantized model: int8"),
        ("uint8", "a quantized model: uint8"),
        ("int16", "a quantized model: int16"),
        ("int4", "a quantized model: int4"),
        ("float16", "a model with float16 weights: float16"),
    ):
        found = next((tensor for tensor in view.tensors if tensor.dtype == dtype), None)
        if found:
            raise InputError(
                expected=f"{source} to be a float32 model",
                found=f"{kind} in tensor {found.name[:_SHOWN]!r}",
                next_step="give the float file it was made from; `recover` and `prove` take quantized files",
            )


class _LayerReader:
    """Reads the layers backwards, from the softmax to the input."""

    def __init__(self, view: ModelView, source: str) -> None:
        self._view = view
        self._source = source
        # Tensor index -> position of the operator that computes it.
        self._producers = {
            index: position for position, operator in enumerate(view.operators) for index in operator.outputs
        }

    def values(self, model: Model) -> dict[str, Array]:
        """Return weights and bias of every layer by variable name, in the order of the layers."""
        if len(self._view.inputs) != 1 or len(self._view.outputs) != 1:
            raise self._other_layout(f"{len(self._view.inputs)} inputs and {len(self._view.outputs)} outputs")
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
                    raise self._other_layout(f"a residual addition of another tensor than the input of {layer.name}")
                skip = -1
        if index != self._view.inputs[0]:
            raise self._other_layout(f"tensor {self._tensor(index).name[:_SHOWN]!r} instead of the input")
        if self._view.input.shape != (1, model.resolution, model.resolution, 3):
            expected = f"an input of shape {(1, model.resolution, model.resolution, 3)} for {model.name}"
            raise self._mismatch(expected, f"shape {self._view.input.shape}")
        return {
            name: found[name] for layer in architecture.layers(model) for name in (layer.weights_name, _bias(layer))
        }

    def _head(self, classifier: Layer) -> tuple[dict[str, Array], int]:
        """Return the classifier's weights and bias, and the index of the average pool's input tensor."""
        softmax = self._operator(self._before_reshape(self._view.outputs[0]), "the softmax")
        if softmax.name != "SOFTMAX":
            raise self._other_layout(f"{softmax.name} instead of the softmax")
        operator = self._operator(self._before_reshape(softmax.inputs[0]), classifier.name)
        classes = next((self._tensor(index).shape[0] for index in operator.inputs[1:2] if self._tensor(index).shape), 0)
        if classes not in CLASSES_READ:
            raise self._mismatch(f"{' or '.join(map(str, CLASSES_READ))} classes", str(classes))
        values, index = self._layer(replace(classifier, outputs=classes), operator)
        pool = self._operator(self._before_reshape(index), "the average pool")
        if pool.name not in ("AVERAGE_POOL_2D", "MEAN"):
            raise self._other_layout(f"{pool.name} instead of the average pool")
        return values, pool.inputs[0]

    def _layer(self, layer: Layer, operator: Operator) -> tuple[dict[str, Array], int]:
        """Return a layer's weights and bias by variable name, and the index of its input tensor."""
        kind = "DEPTHWISE_CONV_2D" if layer.depthwise else "CONV_2D"
        fully_connected = operator.name == "FULLY_CONNECTED" and not layer.batch_norm
        if operator.name != kind and not fully_connected:
            raise self._other_layout(f"{operator.name} instead of the {kind} of {layer.name}")
        if len(operator.inputs) not in (2, 3):
            raise self._other_layout(f"{operator.name} with {len(operator.inputs)} inputs in {layer.name}")
        activation = operator.options.get("fused_activation_function")
        if activation != ("RELU6" if layer.relu6 else "NONE"):
            raise self._other_layout(f"the activation {activation} in {layer.name}")
        source = operator.inputs[0] if fully_connected else self._input(operator, layer)
        height, width, inputs, outputs = layer.weights_shape
        stored = (1, height, width, inputs) if layer.depthwise else (outputs, height, width, inputs)
        weights = self._constant(operator.inputs[1], (outputs, inputs) if fully_connected else stored, layer)
        # The converter may omit a bias of zeros.
        has_bias = len(operator.inputs) == 3 and operator.inputs[2] >= 0
        zeros = np.zeros(layer.outputs, np.float32)
        bias = self._constant(operator.inputs[2], (layer.outputs,), layer) if has_bias else zeros
        transposed = np.moveaxis(weights.reshape(stored), 0, -1)
        return {layer.weights_name: np.ascontiguousarray(transposed), _bias(layer): bias}, source

    def _input(self, operator: Operator, layer: Layer) -> int:
        """Check stride and padding, and return the index of the input tensor of the convolution, or of its PAD."""
        options, index = operator.options, operator.inputs[0]
        padding = options.get("padding")
        if padding == "VALID" and layer.stride == 2 and index in self._producers:
            pad = self._view.operators[self._producers[index]]
            if pad.name == "PAD" and len(pad.inputs) == 2 and self._integers(pad.inputs[1]) == _KERAS_PADDING:
                padding, index = "SAME", pad.inputs[0]
        # A 1x1 filter needs no padding.
        same = padding == "SAME" or layer.kernel == 1
        found = [options.get(name) for name in ("stride_h", "stride_w", "dilation_h_factor", "dilation_w_factor")]
        if found != [layer.stride, layer.stride, 1, 1] or not same:
            expected = f"stride {layer.stride}, dilation 1 and padding SAME in {layer.name}"
            raise self._mismatch(expected, f"stride {found[:2]}, dilation {found[2:]} and padding {padding}")
        return index

    def _branch(self, index: int) -> tuple[int, int]:
        """Return the two inputs of a residual addition: the block's last tensor, then its input.

        The block's last tensor is the one that is computed later.
        """
        operator = self._operator(index, "a residual addition")
        if (
            operator.name != "ADD"
            or len(operator.inputs) != 2
            or operator.options.get("fused_activation_function") != "NONE"
        ):
            raise self._other_layout(f"{operator.name} instead of a residual addition")
        skip, branch = sorted(operator.inputs, key=lambda side: self._producers.get(side, -1))
        return branch, skip

    def _operator(self, index: int, what: str) -> Operator:
        """Return the operator that computes a tensor; `what` says in an error what it should be."""
        if index not in self._producers:
            raise self._other_layout(f"tensor {self._tensor(index).name[:_SHOWN]!r} without an operator for {what}")
        operator = self._view.operators[self._producers[index]]
        if not operator.inputs or min(operator.inputs[:2]) < 0:
            raise self._other_layout(f"{operator.name} with the inputs {operator.inputs}")
        return operator

    def _before_reshape(self, index: int) -> int:
        """Return the tensor that a chain of reshapes starts from; the tensor itself if no reshape computes it."""
        for _ in self._view.operators:
            operator = self._view.operators[self._producers[index]] if index in self._producers else None
            if operator is None or operator.name not in ("RESHAPE", "SQUEEZE") or not operator.inputs:
                return index
            index = operator.inputs[0]
        return index

    def _tensor(self, index: int) -> Tensor:
        return self._view.tensors[index]

    def _integers(self, index: int) -> list[int]:
        """Return the values of an int32 constant; empty for any other type."""
        tensor = self._tensor(index)
        return np.frombuffer(tensor.data, np.int32).tolist() if tensor.dtype == "int32" else []

    def _constant(self, index: int, shape: tuple[int, ...], layer: Layer) -> Array:
        """Return a float32 constant of the given shape. A vector may have leading dimensions of 1."""
        tensor = self._tensor(index)
        found = tensor.shape
        if len(shape) == 1 and found[:-1] == (1,) * (len(found) - 1):
            found = found[-1:]
        if (tensor.dtype, found) != ("float32", shape) or not tensor.data or tensor.rest.get("sparsity") is not None:
            expected = f"float32 constants of shape {shape} in {layer.name}"
            raise self._mismatch(expected, f"{tensor.dtype} {tensor.shape}")
        return np.frombuffer(tensor.data, np.float32).reshape(shape)

    def _mismatch(self, expected: str, found: str) -> InputError:
        return InputError(
            expected=f"{self._source} to have {expected}",
            found=found,
            next_step="give --model the name of its network, or another --checkpoint",
        )

    def _other_layout(self, found: str) -> InputError:
        return InputError(
            expected=f"{self._source} to be a float MobileNetV2 as TensorFlow Lite's converter writes it",
            found=found,
            next_step="give a float model of this family",
        )


def _bias(layer: Layer) -> str:
    return f"{layer.name}/biases"

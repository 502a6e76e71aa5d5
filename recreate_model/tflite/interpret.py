"""Run a model with LiteRT, on reference or XNNPACK kernels.

The `reference` kernels give the same bytes on every CPU and produce the golden outputs. The `xnnpack` kernels are those
that devices use, and the fastest; the last bits of their float results differ between CPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from recreate_model.support.arrays import Array
from recreate_model.support.capture import captured
from recreate_model.support.errors import InputError
from recreate_model.tflite.model_view import read_model

Kernels = Literal["reference", "xnnpack"]

# The reference softmax computes its multiplier as the input scale times beta times 2^26, which must be above 1;
# otherwise LiteRT (2.3.0) aborts the process without an exception.
_SMALLEST_SOFTMAX_SCALE = 2.0**-26


class Runner:
    """A model that is ready to run, on one thread. For networks this small, several processes scale better.

    Args:
        model: content of a `.tflite` file with one input.
        kernels: `reference` or `xnnpack`.

    Raises:
        InputError: LiteRT's reference kernels would abort the process on this model.
    """

    def __init__(self, model: bytes, kernels: Kernels) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        if kernels == "reference":
            _check_softmax(model)
        resolver = {"reference": OpResolverType.BUILTIN_REF, "xnnpack": OpResolverType.BUILTIN}[kernels]
        with captured():  # LiteRT prints a line about its delegate
            self._interpreter: Any = Interpreter(
                model_content=model, num_threads=1, experimental_op_resolver_type=resolver
            )
            self._interpreter.allocate_tensors()
        (self._input,) = (detail["index"] for detail in self._interpreter.get_input_details())
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]

    def run(self, value: Array) -> list[Array]:
        """Return copies of all outputs for one input, in the model's order."""
        self._invoke(value)
        return [self._interpreter.get_tensor(index) for index in self._outputs]

    def run_min_max(self, value: Array) -> Array:
        """Return the ranges for one input: float32, shape (activations, 2), each row a minimum and a maximum.

        The model must come from `convert.with_ranges_as_outputs`.
        """
        return np.reshape(self.run(value), (-1, 2))

    @property
    def outputs(self) -> int:
        """Number of outputs of the model."""
        return len(self._outputs)

    def visit(self, value: Array, visitor: Callable[[int, Array], None]) -> None:
        """Run one input and call `visitor` with the position and the values of each output.

        The array is a contiguous view of LiteRT's arena, not a copy; the visitor must not keep it.
        """
        self._invoke(value)
        for position, index in enumerate(self._outputs):
            visitor(position, self._interpreter.tensor(index)())

    def _invoke(self, value: Array) -> None:
        self._interpreter.set_tensor(self._input, value)
        self._interpreter.invoke()


def _check_softmax(model: bytes) -> None:
    view = read_model(model)
    for operator in view.operators:
        quantization = view.tensors[operator.inputs[0]].quantization if operator.name == "SOFTMAX" else None
        scale = quantization.scales[0] * operator.options.get("beta", 1.0) if quantization else 1.0
        if scale <= _SMALLEST_SOFTMAX_SCALE:
            raise InputError(
                expected="a SOFTMAX whose input scale times beta is above "
                f"{_SMALLEST_SOFTMAX_SCALE:.2g}, as LiteRT's reference kernels require",
                found=f"{scale:.2g}: all logits are almost equal, as in an untrained network",
                next_step="give a trained model",
            )

"""Running a model with LiteRT, with the kernels chosen by name.

`reference` kernels give the same bytes on every CPU and are what golden outputs are made with. `xnnpack` is what
devices run and is fastest; its float results differ in their last bits between CPUs.
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

# The reference softmax turns the step of its int8 input into a multiplier in units of 2^-26, which must be above one;
# otherwise LiteRT (2.3.0) ends the process, without an exception.
_SMALLEST_STEP = 2.0**-26


class Runner:
    """A model ready to run, on one thread: parallelism is for processes, which scale better for networks this small."""

    def __init__(self, model: bytes, kernels: Kernels) -> None:
        """Raises InputError for a model at which LiteRT's reference kernels would stop the process."""
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        if kernels == "reference":
            _check_softmax(model)
        resolver = {"reference": OpResolverType.BUILTIN_REF, "xnnpack": OpResolverType.BUILTIN}[kernels]
        with captured():  # it announces its delegate
            self._interpreter: Any = Interpreter(
                model_content=model, num_threads=1, experimental_op_resolver_type=resolver
            )
            self._interpreter.allocate_tensors()
        (self._input,) = (detail["index"] for detail in self._interpreter.get_input_details())
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]

    def run(self, value: Array) -> list[Array]:
        """Outputs for one input, in the model's order, as copies."""
        self._invoke(value)
        return [self._interpreter.get_tensor(index) for index in self._outputs]

    def run_min_max(self, value: Array) -> Array:
        """Ranges for one input, of a model of `convert.with_ranges_as_outputs`: float32, shape (activations, 2)."""
        return np.reshape(self.run(value), (-1, 2))

    @property
    def outputs(self) -> int:
        """How many outputs the model has."""
        return len(self._outputs)

    def visit(self, value: Array, visitor: Callable[[int, Array], None]) -> None:
        """Calls `visitor` with the row and the values of each output for one input; it must not keep the array."""
        self._invoke(value)
        for row, index in enumerate(self._outputs):
            # A view of the arena, contiguous and in the output's shape; no output is copied.
            visitor(row, self._interpreter.tensor(index)())

    def _invoke(self, value: Array) -> None:
        self._interpreter.set_tensor(self._input, value)
        self._interpreter.invoke()


def _check_softmax(model: bytes) -> None:
    view = read_model(model)
    for operator in view.operators:
        quantisation = view.tensors[operator.inputs[0]].quantisation if operator.name == "SOFTMAX" else None
        step = quantisation.scales[0] * operator.options.get("beta", 1.0) if quantisation else 1.0
        if step <= _SMALLEST_STEP:
            raise InputError(
                expected=f"a SOFTMAX with an input step above {_SMALLEST_STEP:.2g}, as LiteRT's reference kernels need",
                found=f"a step of {step:.2g}: all scores are next to equal, as those of a network that is not trained",
                next_step="give a trained model",
            )

"""Top-1 of the float and the INT8 model on the same pictures and their agreement, or top-1 of a given INT8 model.

Both run with XNNPACK, as on devices. Every figure has its n and a 95 % Wilson interval.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from calibration.parallel.workers import Workers
from calibration.pictures.inputs import Inputs, chunks
from calibration.pictures.preprocess import quantize_input
from recreate_model.network.spec import MOBILENET_V2
from recreate_model.recipe import Picture
from recreate_model.support.arrays import Array
from recreate_model.tflite.interpret import Runner
from recreate_model.tflite.model_view import read_model

_Z = 1.959963984540054  # of the normal distribution, for 95 %


@dataclass(frozen=True)
class Proportion:
    """`hits` of `n`, with the 95 % Wilson interval."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        return self.hits / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper bound (E. B. Wilson, JASA 22, 1927); within 0..1 and usable for small n, unlike Wald's."""
        center = (self.value + _Z * _Z / (2 * self.n)) / (1 + _Z * _Z / self.n)
        spread = _Z * math.sqrt(self.value * (1 - self.value) / self.n + _Z * _Z / (4 * self.n**2))
        spread /= 1 + _Z * _Z / self.n
        return max(0.0, center - spread), min(1.0, center + spread)


@dataclass(frozen=True)
class Evaluation:
    """Results on one set of pictures.

    Attributes:
        float_top1: None if no picture has a label or there is no float model.
        int8_top1: None if no picture has a label.
        agreement: share of pictures with the same top-1 class; None without pictures or without a float model.
    """

    float_top1: Proportion | None
    int8_top1: Proportion | None
    agreement: Proportion | None


@dataclass(frozen=True)
class _Prediction:
    label: int | None
    float_class: int | None
    int8_class: int


def evaluate(
    float_model: bytes | None,
    int8_model: bytes,
    inputs: Inputs,
    pictures: Sequence[Picture],
    workers: Workers,
    progress: Callable[[int], None],
) -> Evaluation:
    """Runs both models, or the INT8 model alone, on every picture.

    Raises:
        InputError: a picture cannot be read, or changed.
    """
    predictions: list[_Prediction] = []
    setup = functools.partial(_setup, float_model, int8_model, inputs)
    for chunk in workers.run(setup, _predict_chunk, chunks(pictures)):
        predictions.extend(chunk)
        progress(len(chunk))
    labeled = [row for row in predictions if row.label is not None]
    return Evaluation(
        float_top1=_proportion([row.label == row.float_class for row in labeled if row.float_class is not None]),
        int8_top1=_proportion([row.label == row.int8_class for row in labeled]),
        agreement=_proportion(
            [row.float_class == row.int8_class for row in predictions if row.float_class is not None]
        ),
    )


def _proportion(hits: Sequence[bool]) -> Proportion | None:
    return Proportion(sum(hits), len(hits)) if hits else None


@dataclass(frozen=True, eq=False)
class _State:
    float_runner: Runner | None
    int8_runner: Runner
    scale: float
    zero_point: int
    inputs: Inputs


def _setup(float_model: bytes | None, int8_model: bytes, inputs: Inputs) -> _State:
    quantization = read_model(int8_model).input.quantization
    assert quantization is not None  # the input of an int8 model
    (scale,), (zero_point,) = quantization.scales, quantization.zero_points
    float_runner = None if float_model is None else Runner(float_model, "xnnpack")
    return _State(float_runner, Runner(int8_model, "xnnpack"), scale, zero_point, inputs)


def _predict_chunk(state: _State, pictures: Sequence[Picture]) -> list[_Prediction]:
    return [_predict(state, picture) for picture in pictures]


def _predict(state: _State, picture: Picture) -> _Prediction:
    value, _ = state.inputs.load(picture)
    (int8_scores,) = state.int8_runner.run(quantize_input(value, state.scale, state.zero_point))
    float_class = None
    if state.float_runner:
        (float_scores,) = state.float_runner.run(value)
        float_class = _top_class(float_scores)
    return _Prediction(picture.label, float_class, _top_class(int8_scores))


def _top_class(scores: Array) -> int:
    """The class with the highest of scores (1, classes). A network without the background, 0, begins with class 1."""
    # Of equal scores the first wins, as in TensorFlow's argmax; int8 scores are often equal.
    return int(scores.argmax()) + MOBILENET_V2.classes - scores.size

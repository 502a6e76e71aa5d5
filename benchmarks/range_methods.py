"""Compares the range methods: the SQNR of every activation of the INT8 model, its top-1, and the time they take.

    python benchmarks/range_methods.py --checkpoint ARCHIVE --images FOLDER --calib 500 --limit 200
    python benchmarks/range_methods.py --checkpoint ARCHIVE --images FOLDER --calib 500 --limit 200 --clip all
    python benchmarks/range_methods.py --checkpoint ARCHIVE --images FOLDER --calib 99 --limit 200 --outlier picture

SQNR (signal-to-quantization-noise ratio) is the power of the float model's activation divided by the power of the INT8
model's error, in dB, over all evaluation pictures: for the logits, and the mean and the minimum over the activations
that are clipped. The input and the logits keep their exact range unless `--clip` says otherwise. `--outlier picture`
adds one picture of noise to calibration; `--outlier value` adds one value of ten times the maximum to each clipped
activation without a ReLU6.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from calibration.parallel.workers import Workers
from calibration.pictures.folder import FolderSource
from calibration.pictures.inputs import Inputs, chunks
from calibration.pictures.preprocess import quantize_input
from calibration.ranges.distributions import Distributions, choose_spans, clipped_activations, distributions
from calibration.ranges.histogram import Tally
from calibration.ranges.measure import measure
from calibration.ranges.range_methods import RangeMethod
from calibration.ranges.range_table import round_mantissa
from pipeline.claims.evaluate import evaluate
from pipeline.console import NoBars
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from recreate_model.floats import checkpoint
from recreate_model.network import architecture
from recreate_model.quantize import convert
from recreate_model.recipe import Calibration, Picture
from recreate_model.support.arrays import Array
from recreate_model.tflite.interpret import Runner
from recreate_model.tflite.model_view import read_model

METHODS = ("min-max", "percentile:99.9", "percentile:99.99", "percentile:99.999", "mse", "entropy")
MANTISSA_BITS = Calibration("folder").mantissa_bits


def noise() -> Array:
    """A picture of noise, uint8 (256, 256, 3): every channel of every pixel is randomly 0 or 255."""
    return np.random.default_rng(0).integers(0, 2, (256, 256, 3), np.uint8) * 255


def with_noise(source: FolderSource, pictures: Sequence[Picture], folder: Path) -> list[Picture]:
    """Links the pictures into a folder and adds a picture of noise, in a size that is not resized."""
    from PIL import Image

    for picture in pictures:
        link = folder / picture.id
        link.parent.mkdir(exist_ok=True)
        link.symlink_to((source.root / picture.id).resolve())
    Image.fromarray(noise()).save(folder / "noise.png")
    return [*pictures, Picture("noise.png")]


def with_far_values(found: Distributions, float_model: bytes) -> Distributions:
    """Adds a value of ten times the maximum to each clipped activation that has negative values, so no ReLU6."""
    spans, histograms = found.spans.copy(), list(found.histograms)
    clipped = clipped_activations(float_model)
    for row, name in enumerate(convert.activations(float_model)):
        if name not in clipped or spans[row, 0] >= 0:
            continue
        spans[row, 1] *= 10
        tally = Tally()
        tally.add(histograms[row])
        tally.count(spans[row, 1:])
        histograms[row] = tally.histogram()
    return replace(found, spans=spans, histograms=tuple(histograms))


class _Pair:
    """Both models, with all activations as outputs."""

    def __init__(self, float_model: bytes, int8_model: bytes, inputs: Inputs) -> None:
        self.inputs = inputs
        self.models = [
            Runner(convert.with_all_activations_as_outputs(model), "xnnpack") for model in (float_model, int8_model)
        ]
        view = read_model(int8_model)
        tensors = [view.input, *(view.tensors[operator.outputs[0]] for operator in view.operators)]
        self.parameters = [
            (tensor.quantization.scales[0], tensor.quantization.zero_points[0])
            for tensor in tensors
            if tensor.quantization
        ]


def _powers(pair: _Pair, pictures: Sequence[Picture]) -> Array:
    """Sums of squares of the signal and of the error: float64 (activations, 2)."""
    total = np.zeros((len(pair.parameters), 2))
    for picture in pictures:
        value, _ = pair.inputs.load(picture)
        exact = pair.models[0].run(value)
        quantized = pair.models[1].run(quantize_input(value, *pair.parameters[0]))
        for row, (signal, levels, (scale, zero_point)) in enumerate(
            zip(exact, quantized, pair.parameters, strict=True)
        ):
            error = signal - (levels.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
            total[row] += np.square(signal, dtype=np.float64).sum(), np.square(error, dtype=np.float64).sum()
    return total


def sqnr(float_model: bytes, int8_model: bytes, inputs: Inputs, pictures: Sequence[Picture], workers: Workers) -> Array:
    """The SQNR in dB of each activation, in the order of `convert.activations`: float64 (activations,)."""
    setup = functools.partial(_Pair, float_model, int8_model, inputs)
    power = sum(workers.run(setup, _powers, chunks(pictures)))
    return np.asarray(10 * np.log10(power[:, 0] / power[:, 1]))


def cpu_seconds() -> float:
    """The CPU time of this process and its finished children, which depends little on other load."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def spans_by(text: str, found: Distributions, float_model: bytes, clip: str) -> dict[str, tuple[float, float]]:
    """Activation -> range by a method, rounded as in `calibrate`.

    Args:
        text: the value of `--range-method`.
        clip: which of the input and the logits is clipped too.
    """
    names, method = list(convert.activations(float_model)), RangeMethod.parse(text)
    spans = choose_spans(method, found, float_model)
    with_range = convert.activations_with_a_range(float_model)
    more = {"rest": (), "input": with_range[:1], "logits": with_range[-1:], "all": (with_range[0], with_range[-1])}
    for name in more[clip]:
        row = names.index(name)
        spans[row] = method.choose(found.histograms[row], tuple(map(float, found.spans[row])))
    rounded = round_mantissa(spans, MANTISSA_BITS)
    return {name: (float(low), float(high)) for name, (low, high) in zip(names, rounded, strict=True)}


def main() -> None:
    """Calibrates once, quantizes with each method, and prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, metavar="ARCHIVE")
    parser.add_argument("--images", required=True, metavar="FOLDER")
    parser.add_argument("--calib", type=int, default=500)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--clip", choices=("rest", "input", "logits", "all"), default="rest")
    parser.add_argument("--outlier", choices=("picture", "value"))
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    request = Request(checkpoint=given.checkpoint, images=given.images, calib=given.calib, limit=given.limit)
    recipe, machine = resolve(request, NoBars(), may_fetch=True)
    assert machine.checkpoint is not None
    assert isinstance(machine.source, FolderSource)
    weights = checkpoint.read_archive(machine.checkpoint, recipe.model).values
    float_model = convert.convert_float(architecture.frozen_graph(recipe.model, weights))
    inputs = Inputs(machine.source, recipe.preprocess, recipe.model.resolution)
    quiet = lambda count: None  # noqa: E731
    with tempfile.TemporaryDirectory() as scratch:
        calibration, calibrating = list(recipe.calibration.pictures), inputs
        if given.outlier == "picture":
            calibration = with_noise(machine.source, calibration, Path(scratch))
            calibrating = replace(inputs, source=FolderSource(Path(scratch)))
        start = cpu_seconds()
        exact = measure(float_model, calibrating, calibration, Workers(given.jobs), quiet)
        between = cpu_seconds()
        found = distributions(float_model, calibrating, calibration, Workers(given.jobs), quiet)
        end = cpu_seconds()
    assert np.array_equal(exact.spans, found.spans)
    count = len(calibration)
    print(
        f"{count} pictures, CPU time of all processes with their start: minima and maxima "
        f"{(between - start) / count * 1e3:.1f} ms a picture, histograms {(end - between) / count * 1e3:.1f} ms"
    )
    if given.outlier == "picture":
        without = measure(float_model, inputs, recipe.calibration.pictures, Workers(given.jobs), quiet).spans
        wider = np.diff(exact.spans)[:, 0] / np.diff(without)[:, 0] - 1
        print(f"the outlier widens {np.count_nonzero(wider)} of {len(wider)} ranges, by {wider.max():.1%} at most")
    elif given.outlier:
        found = with_far_values(found, float_model)
    pictures = recipe.evaluation.pictures
    print(
        f"{'method':19}{'logits dB':>10}{'mean dB':>9}{'least dB':>9}  {'INT8 top-1':36}{'same class':36}{'chosen in'}"
    )
    clipped = clipped_activations(float_model)
    for text in given.methods.split(","):
        start = time.perf_counter()
        spans = spans_by(text, found, float_model, given.clip)
        seconds = time.perf_counter() - start
        model = convert.quantize(float_model, spans)
        levels = dict(zip(spans, sqnr(float_model, model, inputs, pictures, Workers(given.jobs)), strict=True))
        inner = [level for name, level in levels.items() if name in clipped]
        result = evaluate(float_model, model, inputs, pictures, Workers(given.jobs), quiet)
        logits = levels[convert.activations_with_a_range(float_model)[-1]]
        shares = [
            f"{share.value:.3f} ({share.interval[0]:.3f} to {share.interval[1]:.3f}), {share.hits} of {share.n}"
            for share in (result.int8_top1, result.agreement)
            if share
        ]
        decibels = f"{logits:10.2f}{np.mean(inner):9.2f}{min(inner):9.2f}"
        print(f"{text:19}{decibels}  {shares[0]:36}{shares[-1]:36}{seconds:.2f} s", flush=True)
    if result.float_top1:
        low, high = result.float_top1.interval
        print(f"float top-1 {result.float_top1.value:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()

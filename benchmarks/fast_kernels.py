"""Measures what separates correct fast kernels from a wrong network: how far classes and scores differ.

    python benchmarks/fast_kernels.py MODEL.tflite --images FOLDER --pictures 500 --procedural 300

Runs an INT8 image classifier with XNNPACK and with the reference kernels. Prints for how many pictures the class
differs, by how many levels the best class led there, and how far the scores differ on random subsets of the pictures.
Then does the same with the reference kernels for models with deliberate faults, on 20 pictures of each kind. The limits
in `pipeline/platforms/evidence.py` come from these figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import stand_ins
from ai_edge_litert import schema_py_generated as schema

from calibration.pictures.inputs import Inputs
from calibration.pictures.opening import Reading, open_source
from calibration.pictures.preprocess import quantize_input
from calibration.pictures.sources import ProceduralSource
from pipeline.console import NoBars
from pipeline.platforms.evidence import close, same_class
from recreate_model.recipe import Preprocess
from recreate_model.support.arrays import Array
from recreate_model.tflite.interpret import Kernels, Runner
from recreate_model.tflite.model_view import read_model

_FEW = 20
_DRAWS = 3000
Change = Callable[[Array], Array]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL", help="an INT8 .tflite")
    parser.add_argument("--images", required=True, metavar="FOLDER", help="photographs, as for the pipeline")
    parser.add_argument("--pictures", type=int, default=500, help="photographs to take")
    parser.add_argument("--procedural", type=int, default=300, help="procedural pictures to take")
    arguments = parser.parse_args()
    print(stand_ins.machine())
    model = arguments.model.read_bytes()
    for kind, inputs in (
        ("photographs", _photographs(model, arguments.images, arguments.pictures)),
        ("procedural", _procedural(model, arguments.procedural)),
    ):
        expected = _run(model, inputs, "reference")
        _print_differences(kind, _run(model, inputs, "xnnpack"), expected)
        few, few_expected = inputs[:_FEW], expected[:_FEW]
        print(f"  red and blue exchanged: {close(_run(model, few[..., ::-1], 'reference'), few_expected)}")
        for what, number, part, change in _FAULTS:
            broken = _changed(model, number, part, change)
            print(f"  {what}, convolution {number}: {close(_run(broken, few, 'reference'), few_expected)}", flush=True)


_FAULTS: tuple[tuple[str, int, int, Change], ...] = (
    ("two output channels exchanged", 20, 1, lambda weights: weights[[1, 0, *range(2, len(weights))]]),
    ("filters upside down", 1, 1, lambda weights: weights[:, ::-1, ::-1]),
    *(("output channels rolled by one", number, 1, lambda w: np.roll(w, 1, axis=0)) for number in (20, 45, 52)),
    *(("biases zero", number, 2, np.zeros_like) for number in (20, 50)),
)


def _photographs(model: bytes, folder: str, count: int) -> Array:
    source = open_source(folder, Reading(None, None, None), NoBars().bar)
    return _inputs(model, source, source.pictures()[:count])


def _procedural(model: bytes, count: int) -> Array:
    source = ProceduralSource(0)
    return _inputs(model, source, source.pictures(0, count))


def _inputs(model: bytes, source: Any, pictures: Any) -> Array:
    tensor = read_model(model).input
    assert tensor.quantization is not None  # of an int8 input
    (scale,), (zero_point,) = tensor.quantization.scales, tensor.quantization.zero_points
    loader = Inputs(source, Preprocess(), tensor.shape[1])
    return np.concatenate([quantize_input(loader.load(picture)[0], scale, zero_point) for picture in pictures])


def _run(model: bytes, inputs: Array, kernels: Kernels) -> Array:
    runner = Runner(model, kernels)
    return np.concatenate([runner.run(np.ascontiguousarray(value[np.newaxis]))[0] for value in inputs])


def _print_differences(kind: str, outputs: Array, expected: Array) -> None:
    """Prints how far the outputs of correct kernels differ; both arguments are int8 (n, classes)."""
    ordered = np.sort(expected.astype(int), axis=1)
    changed = np.array([same_class(outputs[i : i + 1], expected[i : i + 1]).hits == 0 for i in range(len(expected))])
    leads = (ordered[:, -1] - ordered[:, -2])[changed]
    print(
        f"{kind}: XNNPACK changed the class of {changed.sum()} of {len(changed)}, led by {leads.max(initial=0)} at most"
    )
    generator = np.random.default_rng(0)
    for count in (_FEW, 1):
        chosen = (generator.choice(len(expected), count, replace=False) for _ in range(_DRAWS))
        found = [close(outputs[rows], expected[rows]) for rows in chosen]
        largest = max(agreement.difference or 0 for agreement in found)
        failed = sum(not agreement.holds for agreement in found)
        print(f"  any {count}: scores {largest:.2f} apart at most, {failed} of {_DRAWS} draws refused")


def _changed(model: bytes, number: int, part: int, change: Change) -> bytes:
    """The model with the weights (1) or the bias (2) of its `number`th convolution changed."""
    tree = schema.ModelT.InitFromPackedBuf(model, 0)
    graph = tree.subgraphs[0]
    convolution = [operator for operator in graph.operators if len(operator.inputs) == 3][number]
    tensor = graph.tensors[convolution.inputs[part]]
    buffer = tree.buffers[tensor.buffer]
    values = np.asarray(buffer.data, np.uint8).view(np.int8 if part == 1 else np.int32).reshape(tensor.shape)
    buffer.data = np.ascontiguousarray(change(values)).view(np.uint8).ravel()
    builder = flatbuffers.Builder(len(model))
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


if __name__ == "__main__":
    main()

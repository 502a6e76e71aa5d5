"""Measures how far a converter's BatchNorm folding factors differ from the exact ones, by CPU; it sets the tolerance.

    python benchmarks/folding_factors.py --checkpoint ARCHIVE
    python benchmarks/folding_factors.py --checkpoint ARCHIVE --cpus Haswell --toolchain 2.5.0,today

For each difference in units in the last place (float32) it prints how many channels have a factor that differs by it
from the exact factor, rounded. A channel counts if all of its folded weights and its bias are bit-exact with that
factor; `none` counts the channels that no factor within the tolerance gives. Layers without BatchNorm are left out.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import stand_ins

from recreate_model.network import architecture
from recreate_model.network.spec import MOBILENET_V2
from recreate_model.prove import toolchain
from recreate_model.prove.channels import FACTOR_ULPS, by_channel, convolutions, factors
from recreate_model.prove.prove import Checkpoint
from recreate_model.prove.toolchain import Edits, Job
from recreate_model.quantize import convert
from recreate_model.tflite.model_view import read_model

_ANY = (-1.0, 1.0)  # ranges do not affect the folding


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, metavar="ARCHIVE", help="a path, or `official`")
    parser.add_argument("--cpus", default="", help="in addition to this one, as `qemu-x86_64 -cpu help` names them")
    parser.add_argument("--toolchain", default="2.5.0,2.6.0,2.4.4,today", help="as `prove --toolchain` takes them")
    arguments = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("OPENBLAS_")]:
        del os.environ[name]  # settings for this CPU would be wrong for the emulated one
    print(stand_ins.machine())
    shifts = range(-FACTOR_ULPS, FACTOR_ULPS + 1)
    print(f"{'folded by':20}{'on':13}" + "".join(f"{shift:+7d}" for shift in shifts) + f"{'none':>7}")
    source = stand_ins.checkpoint(arguments.checkpoint)
    with tempfile.TemporaryDirectory() as scratch:
        for cpu in ("", *filter(None, arguments.cpus.split(","))):
            for chain in toolchain.parse(arguments.toolchain):
                python = stand_ins.python_of(chain)
                if cpu:
                    python = stand_ins.emulated(python, cpu, Path(scratch))
                found = _shifts(source, toolchain.convert(chain, python, _job(source)).constants)
                cells = "".join(f"{found[shift] or '':>7}" for shift in (*shifts, None))
                print(f"{chain.name:20}{cpu or 'this CPU':13}{cells}", flush=True)


def _job(source: Checkpoint) -> Job:
    assert source.frozen_graph is not None  # checked by stand_ins.checkpoint
    shape = (1, source.model.resolution, source.model.resolution, 3)
    spans = np.full((len(convert.activations(_float_model(source))), 2), _ANY, np.float32)
    return Job(
        source.frozen_graph, MOBILENET_V2.input_name, MOBILENET_V2.output_name, shape, "int8", "int8", (Edits(spans),)
    )


def _float_model(source: Checkpoint) -> bytes:
    return convert.convert_float(architecture.frozen_graph(source.model, source.values))


def _shifts(source: Checkpoint, constants: tuple[tuple[np.ndarray, np.ndarray], ...]) -> Counter[int | None]:
    """Difference of the factor in units in the last place -> number of channels; None: no factor fits.

    Args:
        constants: weights and bias of each convolution, as the converter folded them.
    """
    view = read_model(_float_model(source))
    result: Counter[int | None] = Counter()
    for layer, operator, (weights, bias) in zip(
        architecture.layers(source.model), convolutions(view), constants, strict=True
    ):
        if layer.batch_norm:
            exact = factors(layer, source.values)
            channels = by_channel(weights.reshape(view.tensors[operator.inputs[1]].shape), operator)
            left = np.full(len(bias), True)
            for shift in sorted(range(-FACTOR_ULPS, FACTOR_ULPS + 1), key=abs):
                folded, folded_bias = exact.fold(np.full(len(bias), shift))
                equal = left & (folded == channels).all(axis=1) & (folded_bias == bias)
                result[shift] += int(equal.sum())
                left &= ~equal
            result[None] += int(left.sum())
    return result


if __name__ == "__main__":
    main()

"""Classifies pictures with the INT8 model beside this folder: the five best classes of each, with their scores.

    pip install ai-edge-litert numpy pillow
    python platform_folder/classify.py PICTURE...

Exit status: 0 done, 2 invalid usage, 3 bad input, 4 a package or a GPU is missing.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from pipeline.linux.templates.cortex_a import Network

BUILD = Path(__file__).resolve().parent.parent
MODEL, LABELS = BUILD / "model_file", BUILD / "labels.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=Network.__doc__)
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="a JPEG or PNG file, for example")
    parser.add_argument("--model", type=Path, metavar="FILE", default=MODEL, help=f"default {MODEL.name}, of the build")
    parser.add_argument("--labels", type=Path, metavar="FILE", default=LABELS, help="default labels.txt, of the build")
    parser.add_argument("--log", action="store_true", help="let LiteRT write its log")
    Network.add_options(parser)
    options = parser.parse_args()
    if not options.log:
        silence()
    try:
        classify(options)
    except (OSError, ValueError) as error:
        parser.exit(3, f"{parser.prog}: {' '.join(str(error).split())}\n")
    except (ImportError, RuntimeError) as error:
        parser.exit(4, f"{parser.prog}: {' '.join(str(error).split())}\n")


def silence() -> None:
    """Discards what LiteRT and drivers write to the file descriptors; output of Python remains."""
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2))
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def classify(options: argparse.Namespace) -> None:
    import numpy as np  # imported here, so that a missing package is reported in one line

    from pipeline.linux.templates.pictures import prepare

    labels = options.labels.read_text(encoding="utf-8").splitlines()
    source, result = interface(options.model, len(labels))
    network = Network(options)
    print(f"{options.model.name}, {network.remark}")
    for path in options.pictures:
        scale, zero_point = source["quantization"]
        levels = np.rint(prepare(path, *source["shape"][1:3]) / np.float32(scale)) + np.float32(zero_point)
        scores = network.run(np.clip(levels, -128, 127).astype(np.int8)[np.newaxis]).astype(int)
        scale, zero_point = result["quantization"]
        print(path)
        for number in np.argsort(-scores, kind="stable")[:5]:
            print(f"  {(scores[number] - zero_point) * scale:.4f}  {number:4}  {labels[number]}")


def interface(model: Path, classes: int) -> tuple[Any, Any]:
    """Details of the model's input and output: shapes, types, scales and zero points."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_path=str(model))
        details = (*interpreter.get_input_details(), *interpreter.get_output_details())
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{model} is not a model: {error}") from error
    shapes = [[int(size) for size in end["shape"]] for end in details]
    usable = all(end["dtype"].__name__ == "int8" and end["quantization"][0] > 0 for end in details)
    if not usable or shapes != [[1, *shapes[0][1:3], 3], [1, classes]]:
        types = [end["dtype"].__name__ for end in details]
        raise ValueError(
            f"{model}: expected int8 [1, height, width, 3] to [1, {classes} labels], found {types} {shapes}"
        )
    return details


if __name__ == "__main__":
    main()

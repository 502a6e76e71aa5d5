"""The part of the program that is specific to Cortex-A."""

from __future__ import annotations

import argparse
from typing import Any


class Network:
    """Runs the model on a Cortex-A: LiteRT's interpreter with XNNPACK's kernels."""

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--threads", type=int, metavar="N", default=1, help="default 1")

    def __init__(self, options: argparse.Namespace) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(model_path=str(options.model), num_threads=options.threads)
        self.interpreter.allocate_tensors()
        self.remark = f"XNNPACK on the CPU, threads: {options.threads}"

    def run(self, picture: Any) -> Any:
        """int8 (1, height, width, 3) -> int8 (classes)."""
        self.interpreter.set_tensor(self.interpreter.get_input_details()[0]["index"], picture)
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.interpreter.get_output_details()[0]["index"])[0]

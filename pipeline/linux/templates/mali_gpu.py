"""The part of the program that is specific to GPUs."""

from __future__ import annotations

import argparse
from typing import Any


class Network:
    """Runs the model on a GPU, such as Mali: LiteRT's compiled model with its GPU delegate."""

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        """There are none."""

    def __init__(self, options: argparse.Namespace) -> None:
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.hardware_accelerator import HardwareAccelerator

        # With the CPU allowed too, a model that only partly runs on the GPU is reported instead of refused.
        accelerators = HardwareAccelerator.GPU | HardwareAccelerator.CPU
        try:
            self.model = CompiledModel.from_file(str(options.model), hardware_accel=accelerators)
        except RuntimeError:
            raise RuntimeError("LiteRT found no usable GPU; --log shows its messages") from None
        (signature,) = self.model.get_signature_list()
        (scores,) = self.model.get_output_tensor_details(signature).values()
        self.classes = scores["shape"][-1]
        self.inputs, self.outputs = self.model.create_input_buffers(0), self.model.create_output_buffers(0)
        full = self.model.is_fully_accelerated()
        self.remark = f"fully accelerated: {'yes' if full else 'no, the CPU runs the rest'}; --log names the device"

    def run(self, picture: Any) -> Any:
        """int8 (1, height, width, 3) -> int8 (classes)."""
        import numpy as np

        self.inputs[0].write(picture)
        self.model.run_by_index(0, self.inputs, self.outputs)
        return self.outputs[0].read(self.classes, np.int8)  # reading waits for the device

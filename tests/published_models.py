"""Published files for tests: converted as a publisher does it, and calibrated on real inputs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recreate_model.network.spec import MOBILENET_V2, Model

_SCRIPT = Path(__file__).with_name("calibrate_job.py")


@dataclass(frozen=True)
class Order:
    """One file to make: the name of its calibration set, the type of its input and output, and the quantizer."""

    calibration: str
    ends: str = "int8"
    quantizer: str = "new"

    def __str__(self) -> str:
        return f"{self.calibration}, {self.ends}, {self.quantizer}"


def publish(
    graph: bytes, model: Model, orders: Sequence[Order], folder: Path, python: Path = Path(sys.executable)
) -> dict[Order, bytes]:
    """Converts a frozen graph once for each order, in the TensorFlow of that Python."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.pb").write_bytes(graph)
    document = {
        "graph": str(folder / "graph.pb"),
        "input": MOBILENET_V2.input_name,
        "output": MOBILENET_V2.output_name,
        "shape": [1, model.resolution, model.resolution, 3],
        "orders": [
            {
                "calibration": order.calibration,
                "input_type": order.ends,
                "output_type": order.ends,
                "quantizer": order.quantizer,
                "model": str(folder / f"{number}.tflite"),
            }
            for number, order in enumerate(orders)
        ],
    }
    (folder / "job.json").write_text(json.dumps(document))
    command = [str(python), "-I", str(_SCRIPT), str(folder / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return {order: (folder / f"{number}.tflite").read_bytes() for number, order in enumerate(orders)}

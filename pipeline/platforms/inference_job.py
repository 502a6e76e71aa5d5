"""Runs a model on pictures with the Python that starts it: this program's, the system's, or an emulated one.

`pipeline.platforms.jobs` starts it as a script and exchanges files with it. It needs only numpy and the runtime.

    python inference_job.py JOB.json

Not for: comparing the outputs.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from typing import Any


def main(job_file: str) -> None:
    """Runs a job; writes the outputs of each set of kernels, and a report with versions and run times."""
    with open(job_file) as stream:
        job = json.load(stream)
    # Unpacked wheels are not installed, so their folder is not on the path.
    sys.path[:0] = job["site"]
    import numpy as np

    inputs = np.load(job["inputs"])
    load, versions = {"litert": _litert, "armnn": _armnn}[job["runtime"]](job["model"])
    seconds, outputs = {}, {}
    for kernels in job["kernels"]:
        run = load(kernels)
        start = time.perf_counter()
        outputs[kernels] = np.concatenate([run(value[np.newaxis]) for value in inputs])
        seconds[kernels] = (time.perf_counter() - start) / len(inputs)
    np.savez(job["outputs"], **outputs)  # type: ignore[arg-type]  # numpy's stub takes the mapping for its flag
    document = {
        "machine": platform.machine(),
        "versions": [*versions, f"Python {platform.python_version()}", f"numpy {np.__version__}"],
        "seconds": seconds,
    }
    with open(job["report"], "w") as stream:
        json.dump(document, stream)


def _litert(model: str) -> tuple[Callable[[str], Callable[[Any], Any]], list[str]]:
    from importlib.metadata import version

    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    def load(kernels: str) -> Callable[[Any], Any]:
        resolver = {"reference": OpResolverType.BUILTIN_REF, "xnnpack": OpResolverType.BUILTIN}[kernels]
        interpreter = Interpreter(model_path=model, num_threads=1, experimental_op_resolver_type=resolver)
        interpreter.allocate_tensors()
        (source,) = (detail["index"] for detail in interpreter.get_input_details())
        (result,) = (detail["index"] for detail in interpreter.get_output_details())

        def run(value: Any) -> Any:
            interpreter.set_tensor(source, value)
            interpreter.invoke()
            return interpreter.get_tensor(result)

        return run

    return load, [f"ai-edge-litert {version('ai-edge-litert')}"]


def _armnn(model: str) -> tuple[Callable[[str], Callable[[Any], Any]], list[str]]:
    import pyarmnn  # type: ignore[import-not-found]  # not on PyPI, only for the system's Python

    def load(backend: str) -> Callable[[Any], Any]:
        parser = pyarmnn.ITfLiteParser()
        network = parser.CreateNetworkFromBinaryFile(model)
        (source,) = parser.GetSubgraphInputTensorNames(0)
        (result,) = parser.GetSubgraphOutputTensorNames(0)
        incoming = parser.GetNetworkInputBindingInfo(0, source)
        outgoing = parser.GetNetworkOutputBindingInfo(0, result)
        runtime = pyarmnn.IRuntime(pyarmnn.CreationOptions())
        device = runtime.GetDeviceSpec()
        # Only one back end, so an unsupported operator is an error instead of a fallback.
        optimized, _ = pyarmnn.Optimize(network, [pyarmnn.BackendId(backend)], device, pyarmnn.OptimizerOptions())
        identity, _ = runtime.LoadNetwork(optimized)

        def run(value: Any) -> Any:
            results = pyarmnn.make_output_tensors([outgoing])
            runtime.EnqueueWorkload(identity, pyarmnn.make_input_tensors([incoming], [value]), results)
            (output,) = pyarmnn.workload_tensors_to_ndarray(results)
            return output.copy()

        return run

    return load, [f"pyarmnn {pyarmnn.__version__}"]


if __name__ == "__main__":
    main(sys.argv[1])

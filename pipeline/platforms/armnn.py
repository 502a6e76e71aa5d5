"""Arm NN as a second opinion: another parser of the model, other kernels, none of TensorFlow's code in them.

For: finding the system's Arm NN, whose Python module belongs to the system's Python. Not for: the one in the AArch64
root, which `cortex_a` runs.
"""

from __future__ import annotations

import re
from pathlib import Path

from recreate_model.support.processes import run_to_end

PACKAGES = "python3-pyarmnn libarmnn-cpuref-backend22"
BACKENDS = ("CpuAcc", "CpuRef")  # NEON kernels, which only an Arm has; plain C++

_SYSTEM_PYTHON = Path("/usr/bin/python3")
# A runtime that nothing holds on to is gone, and its back ends with it, before they are printed.
_PROBE = "import pyarmnn; runtime = pyarmnn.IRuntime(pyarmnn.CreationOptions()); print(runtime.GetDeviceSpec())"


def find() -> tuple[Path, str] | None:
    """The system's Python and the best back end of its Arm NN; None where there is no Arm NN, or one without any."""
    done = run_to_end((_SYSTEM_PYTHON, "-I", "-c", _PROBE), 60)
    # It prints `IDeviceSpec { supportedBackends: [CpuRef]}` below remarks on what it was built without.
    listed = re.findall(r"\w+", done.stdout.rpartition("supportedBackends")[2])
    return next(((_SYSTEM_PYTHON, backend) for backend in BACKENDS if backend in listed), None)

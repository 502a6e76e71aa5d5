"""Finds Arm NN, an independent runtime: its parser and kernels share no code with TensorFlow.

For: the Arm NN of the system, whose Python module is for the system's Python. Not for: the one in the AArch64 root,
which `cortex_a` runs.
"""

from __future__ import annotations

import re
from pathlib import Path

from recreate_model.support.processes import run_to_end

PACKAGES = "python3-pyarmnn libarmnn-cpuref-backend22"
BACKENDS = ("CpuAcc", "CpuRef")  # NEON kernels, for Arm CPUs only; plain C++

_SYSTEM_PYTHON = Path("/usr/bin/python3")
# The variable keeps the runtime alive: its back ends are unloaded with it.
_PROBE = "import pyarmnn; runtime = pyarmnn.IRuntime(pyarmnn.CreationOptions()); print(runtime.GetDeviceSpec())"


def find() -> tuple[Path, str] | None:
    """The system's Python and the best back end of its Arm NN; None if there is no Arm NN or no usable back end."""
    done = run_to_end((_SYSTEM_PYTHON, "-I", "-c", _PROBE), 60)
    # It prints `IDeviceSpec { supportedBackends: [CpuRef]}` after warnings about back ends it was built without.
    listed = re.findall(r"\w+", done.stdout.rpartition("supportedBackends")[2])
    return next(((_SYSTEM_PYTHON, backend) for backend in BACKENDS if backend in listed), None)

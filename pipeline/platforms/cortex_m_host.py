"""Evidence for Cortex-M: the standalone runtime compiled for this machine.

For: showing that its C99 gives the same bytes with another processor and compiler. Not for: a tick on the card. No
Cortex-M code is compiled or run here, so the status is `analyzed`.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.cortex_m.firmware import image
from pipeline.platforms.evidence import Evidence, Subject, bit_exact
from recreate_model.support.errors import ToolError
from recreate_model.support.processes import last_line, run_to_end

_PLATFORM = "Cortex-M"
_WHAT = "the standalone C99 runtime as code of this machine"
_COMPILERS = ("cc", "gcc", "clang")
_LIMIT = 300  # seconds to compile, and to run; each takes a few
_MAIN = """\
#include <stdio.h>
#include "firmware_model.h"

int main(void)
{
    while (fread(model_input(), 1, MODEL_INPUT_BYTES, stdin) == MODEL_INPUT_BYTES) {
        model_run();
        if (fwrite(model_output(), 1, MODEL_CLASSES, stdout) != MODEL_CLASSES)
            return 1;
    }
    return fflush(stdout) != 0;
}
"""


def check(subject: Subject, build: Mapping[str, Path]) -> list[Evidence]:
    """Runs the runtime on all pictures of the subject; returns one row.

    Args:
        build: path in the build folder -> path on disk, for every file of the build.

    Raises:
        ToolError: the compiler or the program failed.
    """
    compiler = next(filter(shutil.which, _COMPILERS), None)
    sources = image.sources_of(build)
    if not any(name.endswith("_run.c") for name in sources):
        return [Evidence(_PLATFORM, "not run", _WHAT, missing="the runtime, which lacks something of this model")]
    if compiler is None:
        return [Evidence(_PLATFORM, "not run", _WHAT, missing="a C compiler: `apt-get install gcc`")]
    with tempfile.TemporaryDirectory(prefix="recreate_model-") as scratch:
        folder = Path(scratch)
        written = {**sources, "firmware_model.h": image.names_header(subject.name, sources), "main.c": _MAIN}
        for name, text in written.items():
            (folder / name).write_text(text, encoding="utf-8")
        files = sorted(name for name in written if name.endswith(".c"))
        done = run_to_end([compiler, "-std=c99", "-O2", "-o", "run", *files], _LIMIT, cwd=folder)
        if done.returncode:
            raise ToolError(expected=f"{compiler} to build the runtime", found=last_line(done), next_step="report it")
        (folder / "inputs.bin").write_bytes(subject.inputs.tobytes())
        start = time.perf_counter()
        done = run_to_end(["sh", "-c", "./run <inputs.bin >outputs.bin"], _LIMIT, cwd=folder)
        seconds = time.perf_counter() - start
        outputs = np.frombuffer((folder / "outputs.bin").read_bytes(), np.int8)
    if done.returncode or outputs.size != subject.expected.size:
        found = last_line(done) if done.returncode else f"{outputs.size} bytes"
        expected = f"the runtime to write {subject.expected.size} bytes"
        raise ToolError(expected=expected, found=found, next_step="report it")
    version = run_to_end([compiler, "-dumpfullversion"], 60).stdout.strip()
    return [
        Evidence(
            _PLATFORM,
            "analyzed",
            _WHAT,
            device="this machine",
            tools=(f"{compiler} {version}",),
            agreement=bit_exact(outputs.reshape(subject.expected.shape), subject.expected),
            pictures=len(subject.inputs),
            seconds=round(seconds / len(subject.inputs), 3),
            note="no code of a Cortex-M ran",
        )
    ]

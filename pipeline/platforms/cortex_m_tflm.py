"""Cortex-M: the model under TensorFlow Lite Micro, the runtime of most firmware, as code of this machine.

For: showing that TFLM has every operator and computes the reference kernels' bytes, and how much memory that takes. Not
for: a tick. No instruction of a Cortex-M is run or compiled here, so the model counts as analysed.
"""

from __future__ import annotations

from pipeline.cortex_m import tflm
from pipeline.platforms.evidence import Evidence, Subject, bit_exact

_PLATFORM = "Cortex-M"
_WHAT = "TensorFlow Lite Micro's reference kernels as code of this machine"


def check(subject: Subject) -> list[Evidence]:
    """Runs every picture of the subject.

    Raises:
        InputError: TFLM cannot run the model.
        ToolError: TFLM crashed.
    """
    if not tflm.is_here():
        missing = f"{tflm.DISTRIBUTION}: {tflm.INSTALL}"
        return [Evidence(_PLATFORM, "not run", _WHAT, missing=missing)]
    measured = tflm.measure(subject.model, subject.inputs, subject.name)
    evidence = Evidence(
        _PLATFORM,
        "analysed",
        _WHAT,
        device="this machine",
        tools=(f"{tflm.DISTRIBUTION} {measured.version}",),
        agreement=bit_exact(measured.outputs, subject.expected),
        pictures=len(subject.inputs),
        seconds=measured.seconds,
        note=f"no code of a Cortex-M ran; arena of {measured.arena:,} bytes, enough for these kernels there too",
    )
    return [evidence]

"""Evidence for Cortex-M: the model under TensorFlow Lite Micro, compiled for this machine.

For: showing that TFLM supports every operator and gives the reference kernels' bytes, and how large an arena it needs.
Not for: a tick on the card. No Cortex-M code is compiled or run here, so the status is `analyzed`.
"""

from __future__ import annotations

from pipeline.cortex_m import tflm
from pipeline.platforms.evidence import Evidence, Subject, bit_exact

_PLATFORM = "Cortex-M"
_WHAT = "TensorFlow Lite Micro's reference kernels as code of this machine"


def check(subject: Subject) -> list[Evidence]:
    """Runs the model on all pictures of the subject; returns one row.

    Raises:
        InputError: TFLM cannot run the model.
        ToolError: TFLM crashed.
    """
    if not tflm.is_available():
        missing = f"{tflm.DISTRIBUTION}: {tflm.INSTALL}"
        return [Evidence(_PLATFORM, "not run", _WHAT, missing=missing)]
    measured = tflm.measure(subject.model, subject.inputs, subject.name)
    evidence = Evidence(
        _PLATFORM,
        "analyzed",
        _WHAT,
        device="this machine",
        tools=(f"{tflm.DISTRIBUTION} {measured.version}",),
        agreement=bit_exact(measured.outputs, subject.expected),
        pictures=len(subject.inputs),
        seconds=measured.seconds,
        note=f"no code of a Cortex-M ran; arena of {measured.arena:,} bytes, enough for these kernels there too",
    )
    return [evidence]

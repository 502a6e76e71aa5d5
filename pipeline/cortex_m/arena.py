"""The C header with the measured arena size of TensorFlow Lite Micro, or with a note that it was not measured."""

from __future__ import annotations

from pipeline.c_array import ALIGNMENT, identifier
from pipeline.cortex_m.tflm import DISTRIBUTION, INSTALL, Measurement


def arena_header(measured: Measurement | None, name: str) -> str:
    """The text of `<id>_arena.h`: `<ID>_ARENA_SIZE` and its two parts, in bytes; neither if nothing was measured.

    Args:
        measured: from `tflm.measure`; None if TFLM is not installed.
        name: the model's file name.
    """
    c_name = identifier(name)
    prefix = f"{c_name.upper()}_ARENA"
    text = _measured(measured, prefix) if measured else _not_measured(prefix)
    return f"""\
/*
 * {c_name}: the arena of TensorFlow Lite Micro.
 *
{text}

#endif
"""


def _measured(measured: Measurement, prefix: str) -> str:
    return f"""\
 * Measured with {DISTRIBUTION} {measured.version} and its reference kernels on a 64-bit host: the test
 * vector ran in this arena with the golden output, and an arena {ALIGNMENT} bytes smaller was refused.
 *
 * With the same kernels this is an upper bound on a 32-bit Cortex-M: activations have the same size there, and
 * pointers have half the size. Other kernels (CMSIS-NN, Ethos-U) need additional scratch memory: check
 * arena_used_bytes() on the device.
 *
 * Generated: do not edit.
 */
#ifndef {prefix}_H
#define {prefix}_H

#define {prefix}_SIZE {measured.arena}UL
#define {prefix}_ALIGNMENT {ALIGNMENT}

/* The two parts of it: the activations, which share memory, and the persistent structures. */
#define {prefix}_HEAD {measured.head}UL
#define {prefix}_TAIL {measured.tail}UL

#define {prefix}_TFLM "{DISTRIBUTION} {measured.version}\""""


def _not_measured(prefix: str) -> str:
    return f"""\
 * NOT MEASURED: {DISTRIBUTION} was not installed, so no size is defined. To measure it, in the project's folder:
 *
 *   {INSTALL}
 *   python -m pipeline cortex-m
 *
 * Generated: do not edit.
 */
#ifndef {prefix}_H
#define {prefix}_H

#define {prefix}_ALIGNMENT {ALIGNMENT}"""

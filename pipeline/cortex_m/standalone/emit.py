"""Writes the C sources of a planned program: its constants, its arena, and the kernel calls with literal sizes.

Pure functions from values to text; the kernels are `int8_kernels.h`, which is copied unchanged. Not for: decisions,
which are made by `lowering`, `schedule` and `plan`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from importlib.resources import files

from pipeline.c_array import ByteArray, array_source, float_literal, identifier
from pipeline.cortex_m import standalone
from pipeline.cortex_m.standalone.calls import Calls, outside_name
from pipeline.cortex_m.standalone.constants import Constants, constants_of
from pipeline.cortex_m.standalone.layers import Program
from pipeline.cortex_m.standalone.lowering import lower
from pipeline.cortex_m.standalone.plan import Plan, plan
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_bytes

KERNELS = "int8_kernels.h"
_PER_LINE = 10


def runtime_sources(model: bytes, name: str) -> dict[str, str]:
    """File name -> text of the standalone runtime of a model; a program includes `<id>_run.h`.

    Args:
        model: bytes of the `.tflite` file.
        name: the model's file name; `id` is `identifier(name)`.

    Raises:
        InputError: the runtime does not support the model.
    """
    program = lower(model, name)
    return sources(program, plan(program), identifier(name), model)


def sources(program: Program, plan: Plan, c_name: str, model: bytes) -> dict[str, str]:
    """File name -> text, for a program that is already planned; C names begin with `c_name`."""
    constants = constants_of(program)
    # C has no empty arrays; a model without convolutions has no weights or shifts.
    arrays = [
        ByteArray(f"{c_name}_weights", constants.weights or b"\0", "signed char"),
        ByteArray(f"{c_name}_shifts", constants.shift or b"\0", "signed char"),
    ]
    return {
        f"{c_name}_run.h": _header(program, plan, c_name, model, arrays[0].data),
        f"{c_name}_run.c": _source(program, plan, c_name, constants),
        f"{c_name}_constants.h": _constants_header(c_name, arrays),
        f"{c_name}_constants.c": array_source(f"{c_name}_constants.h", arrays, "MODEL_CONSTANTS"),
        KERNELS: files(standalone).joinpath(KERNELS).read_text(encoding="utf-8"),
    }


def _header(program: Program, plan: Plan, c_name: str, model: bytes, constants: bytes) -> str:
    prefix = c_name.upper()
    source, target = program.activations[program.input], program.activations[program.output]
    weights, crc = len(constants), zlib.crc32(constants)
    return f"""\
/*
 * {c_name}: the whole network as C99, without a library.
 *
 * Made for the model with SHA-256 {digest_bytes(model)}.
 * The outputs are those of TensorFlow Lite's reference kernels, byte for byte.
 *
 *     memcpy({c_name}_input(), picture, {prefix}_RUN_INPUT_BYTES);
 *     {c_name}_run();
 *     scores = {c_name}_output();
 *
 * A run overwrites the input, and the next input may overwrite the scores: read them first. All memory but some stack
 * is static, so the code is not reentrant. -D'{prefix}_ARENA_SECTION=...' places the arena of {plan.arena_bytes} bytes,
 * -D'MODEL_CONSTANTS_SECTION=...' the weights.
 *
 * Generated: do not edit.
 */
#ifndef {prefix}_RUN_H
#define {prefix}_RUN_H

#include <stdint.h>

#define {prefix}_RUN_ARENA_BYTES {plan.arena_bytes}
#define {prefix}_RUN_INPUT_BYTES {source.rows * source.row_bytes}
#define {prefix}_RUN_OUTPUT_BYTES {target.rows * target.row_bytes}

/* real = scale * (quantized - zero point) */
#define {prefix}_RUN_INPUT_SCALE {float_literal(source.scale)}
#define {prefix}_RUN_INPUT_ZERO_POINT ({source.zero_point})
#define {prefix}_RUN_OUTPUT_SCALE {float_literal(target.scale)}
#define {prefix}_RUN_OUTPUT_ZERO_POINT ({target.zero_point})

/* Checksum of the {weights} bytes at {c_name}_weights, to check that they are where the linker put them. */
#define {prefix}_RUN_WEIGHTS_BYTES {weights}
#define {prefix}_RUN_WEIGHTS_CRC32 0x{crc:08x}
extern const signed char {c_name}_weights[];

#ifdef __cplusplus
extern "C" {{
#endif

int8_t *{c_name}_input(void);
void {c_name}_run(void);
const int8_t *{c_name}_output(void);

#ifdef __cplusplus
}}
#endif

#endif
"""


def _constants_header(c_name: str, arrays: Sequence[ByteArray]) -> str:
    prefix = c_name.upper()
    declared = "\n".join(f"extern const {array.element} {array.name}[{len(array.data)}];" for array in arrays)
    return f"""\
/* {c_name}: constants of the network, for {c_name}_run.c. Generated: do not edit. */
#ifndef {prefix}_CONSTANTS_H
#define {prefix}_CONSTANTS_H

{declared}

#endif
"""


def _source(program: Program, plan: Plan, c_name: str, constants: Constants) -> str:
    prefix = c_name.upper()
    writer = Calls(program, plan, constants)
    layers = "\n".join(writer.layer(number) for number in range(len(program.layers)))
    loops = [writer.call(number, segment) for number, segment in enumerate(plan.segments)]
    segments = [writer.segment(number, segment) for number, segment in enumerate(plan.segments) if segment.streams]
    row = "    int32_t row;\n" if any("row" in loop for loop in loops) else ""
    run = row + "\n".join(loops)
    outside = "".join(
        f"static const int8_t {outside_name(zero_point)}[{length}] = {{{', '.join([str(zero_point)] * length)}}};\n"
        for zero_point, length in sorted(constants.outside.items())
    )
    tables = "".join(
        _table(f"exponentials_{number}", layer.table)
        for number, layer in enumerate(program.layers)
        if layer.kind == "softmax"
    )
    return f"""\
/* {c_name}: the schedule of the layers and the place of every tensor. Generated: do not edit. */
#include "{c_name}_run.h"

#include "{c_name}_constants.h"
#include "{KERNELS}"

#ifndef {prefix}_ARENA_SECTION
#define {prefix}_ARENA_SECTION
#endif

/* int16_t, as the kernels use some of it as int16 scratch memory. */
static {prefix}_ARENA_SECTION int16_t arena[{prefix}_RUN_ARENA_BYTES / 2];

#define AT(offset) ((int8_t *)arena + (offset))
#define SCRATCH(offset) (arena + (offset) / 2)
#define WEIGHTS {c_name}_weights
#define SHIFTS {c_name}_shifts

{_table("biases", constants.bias)}{_table("multipliers", constants.multiplier)}{tables}{outside}
{layers}
{"".join(segments)}
int8_t *{c_name}_input(void)
{{
    return AT({plan.places[program.input].offset});
}}

const int8_t *{c_name}_output(void)
{{
    return AT({plan.places[program.output].offset});
}}

void {c_name}_run(void)
{{
{run}
}}
"""


def _table(name: str, values: Array) -> str:
    if not len(values):
        return ""
    rows = [", ".join(map(str, values[at : at + _PER_LINE])) for at in range(0, len(values), _PER_LINE)]
    body = ",\n    ".join(rows)
    return f"static const int32_t {name}[{len(values)}] = {{\n    {body}\n}};\n"

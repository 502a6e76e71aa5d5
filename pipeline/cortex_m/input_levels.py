"""A lookup table from 8-bit pixel levels to the model's int8 input, for pictures that already have the input's size.

Every integer level lies on a rounding tie of the quantization. Another rounding mode, or double instead of float32,
therefore changes up to 88 of the 256 entries. The table holds the build's own rounding. Not for: resized pictures,
whose levels are not integers.
"""

from __future__ import annotations

import numpy as np

from calibration.pictures.preprocess import quantize_input, scaled
from pipeline.c_array import identifier
from recreate_model.network.spec import MOBILENET_V2
from recreate_model.tflite.model_view import read_model

_PER_LINE = 16


def levels_header(model: bytes, name: str) -> str:
    """The text of `<id>_input_levels.h`, a table of 256 int8 values.

    Args:
        model: bytes of an INT8 `.tflite` file whose input has one scale.
        name: the model's file name.
    """
    quantization = read_model(model, name).input.quantization
    assert quantization is not None  # the input of an int8 model
    (scale,), (zero_point,) = quantization.scales, quantization.zero_points
    levels = quantize_input(scaled(np.arange(256, dtype=np.float32)), scale, zero_point)
    c_name = identifier(name)
    guard = f"{c_name.upper()}_INPUT_LEVELS_H"
    rows = [", ".join(map(str, levels[at : at + _PER_LINE])) for at in range(0, len(levels), _PER_LINE)]
    body = ",\n    ".join(rows)
    half = MOBILENET_V2.input_half_range
    return f"""\
/*
 * Input of {c_name} for each level of a picture, 0 to 255: input[i] = {c_name}_input_levels[pixel[i]].
 *
 * That is round((level / {half} - 1) / scale) + zero point in single precision, halves to even. Every level lies on a
 * half, so roundf or double precision would give other bytes.
 *
 * Generated: do not edit.
 */
#ifndef {guard}
#define {guard}

static const signed char {c_name}_input_levels[256] = {{
    {body}
}};

#endif
"""

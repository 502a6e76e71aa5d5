"""The files that TensorFlow Lite Micro needs in addition to the model's C arrays, generated together."""

from __future__ import annotations

import numpy as np

from pipeline.c_array import identifier
from pipeline.cortex_m import tflm
from pipeline.cortex_m.arena import arena_header
from pipeline.cortex_m.example import example_files
from pipeline.cortex_m.input_levels import levels_header
from pipeline.cortex_m.resolver import resolver_header
from pipeline.cortex_m.test_vector import TestVector, golden_vector, vector_sources
from recreate_model.support.errors import CheckError
from recreate_model.tflite.full_integer import picture_fault
from recreate_model.tflite.model_view import read_model


def tflm_files(model: bytes, name: str, labeled: bool = True) -> dict[str, str]:
    """File name -> text: arena size, operators, input levels, test vector, example, `CMakeLists.txt`.

    The input levels are left out if the model does not take pictures in the form that this program prepares. If TFLM is
    not installed, the arena's header says that the arena was not measured.

    Args:
        model: bytes of the `.tflite` file.
        name: the model's file name, the same as for `c_array.model_sources`.
        labeled: whether the classes have labels.

    Raises:
        InputError: the model has an operator that is not in the resolver's table, or more than one input or output, or
            TFLM cannot run it.
        CheckError: TFLM's output on the test vector differs from the golden output.
        ToolError: TFLM crashed.
    """
    view = read_model(model, name)
    operators = resolver_header(view, name)
    vector = golden_vector(model, name)
    measured = _measured(model, vector, name) if tflm.is_available() else None
    c_name = identifier(name)
    return {
        f"{c_name}_arena.h": arena_header(measured, name),
        f"{c_name}_ops.h": operators,
        **({} if picture_fault(view) else {f"{c_name}_input_levels.h": levels_header(model, name)}),
        **vector_sources(vector, name),
        **example_files(name, labeled),
    }


def _measured(model: bytes, vector: TestVector, name: str) -> tflm.Measurement:
    measured = tflm.measure(model, vector.input[np.newaxis], name)
    differing = int(np.sum(measured.outputs[0] != vector.output))
    if differing:
        raise CheckError(
            expected=f"TensorFlow Lite Micro to give the reference kernels' output for {name}",
            found=f"a difference in {differing} of {vector.output.size} values, with {tflm.DISTRIBUTION} "
            f"{measured.version}",
            next_step="compare the versions of ai-edge-litert and tflite-micro with requirements/runtime.lock",
        )
    return measured

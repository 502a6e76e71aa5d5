"""All that TensorFlow Lite Micro needs beside a model's arrays, made together or not at all."""

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


def tflm_files(model: bytes, name: str, labelled: bool = True) -> dict[str, str]:
    """File name -> text: arena size, operators, input levels, test vector, example, `CMakeLists.txt`.

    Of a model that does not take pictures as this program prepares them, there are no input levels.

    Without TFLM on this machine the arena's header says that nothing was measured.

    Args:
        name: of the model's file, as for `c_array.model_sources`, whose files these go with.
        labelled: whether there are labels for its classes.

    Raises:
        InputError: an operator that TFLM lacks, more than one input or output, or a model that TFLM cannot run.
        CheckError: TFLM's output on the test vector is not the golden one.
        ToolError: TFLM crashed.
    """
    view = read_model(model, name)
    operators = resolver_header(view, name)
    vector = golden_vector(model, name)
    measured = _measured(model, vector, name) if tflm.is_here() else None
    c_name = identifier(name)
    return {
        f"{c_name}_arena.h": arena_header(measured, name),
        f"{c_name}_ops.h": operators,
        **({} if picture_fault(view) else {f"{c_name}_input_levels.h": levels_header(model, name)}),
        **vector_sources(vector, name),
        **example_files(name, labelled),
    }


def _measured(model: bytes, vector: TestVector, name: str) -> tflm.Measured:
    measured = tflm.measure(model, vector.input[np.newaxis], name)
    differing = int(np.sum(measured.outputs[0] != vector.output))
    if differing:
        raise CheckError(
            expected=f"TensorFlow Lite Micro to give the reference kernels' output for {name}",
            found=f"{differing} of {vector.output.size} others, with {tflm.DISTRIBUTION} {measured.version}",
            next_step="compare the versions of ai-edge-litert and tflite-micro with requirements/runtime.lock",
        )
    return measured

"""The C++ example and the `CMakeLists.txt` that stand beside a model's files and use them all.

Both are written from the files in `templates/`, which are C++ and CMake as they are: `model_id` and `MODEL_ID` stand
for the model's identifier there.
"""

from __future__ import annotations

from importlib.resources import files

from pipeline.c_array import identifier
from pipeline.cortex_m import templates
from pipeline.cortex_m.tflm import INSTALL

FILES = ("example.cc", "CMakeLists.txt")


def example_files(name: str) -> dict[str, str]:
    """File name -> text, for the model called `name`."""
    return {file: _filled(files(templates).joinpath(file).read_text(encoding="utf-8"), name) for file in FILES}


def _filled(text: str, name: str) -> str:
    c_name = identifier(name)
    return text.replace("INSTALL_TFLM", INSTALL).replace("model_id", c_name).replace("MODEL_ID", c_name.upper())

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

# What the templates say of labels, and what they say where there are none.
_LABELLED = {
    '#include "labels.h"\n': "",
    'static_assert(LABELS_COUNT == MODEL_ID_OUTPUT_BYTES, "the labels are those of another model");\n': "",
    "LABELS_COUNT": "static_cast<int>(MODEL_ID_OUTPUT_BYTES)",
    '"class %d, %s, %d in a thousand\\n", best, labels[best],': '"class %d, %d in a thousand\\n", best,',
    "the model, its labels and its test vector": "the model and its test vector",
    "model_id_test_vector.c labels.c": "model_id_test_vector.c",
}


def example_files(name: str, labelled: bool = True) -> dict[str, str]:
    """File name -> text, for the model called `name`; without `labelled`, classes have numbers and no names."""
    texts = {file: files(templates).joinpath(file).read_text(encoding="utf-8") for file in FILES}
    if not labelled:
        texts = {file: _without_labels(text) for file, text in texts.items()}
    return {file: _filled(text, name) for file, text in texts.items()}


def _without_labels(text: str) -> str:
    for words, instead in _LABELLED.items():
        text = text.replace(words, instead)
    assert "labels" not in text.lower(), "a template speaks of labels in words that are not known here"
    return text


def _filled(text: str, name: str) -> str:
    c_name = identifier(name)
    return text.replace("INSTALL_TFLM", INSTALL).replace("model_id", c_name).replace("MODEL_ID", c_name.upper())

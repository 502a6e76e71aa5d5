"""The C++ example and the `CMakeLists.txt` for a model's C sources.

Both come from the files in `templates/`, which are valid C++ and CMake; `model_id` and `MODEL_ID` are replaced by the
model's identifier.
"""

from __future__ import annotations

from importlib.resources import files

from pipeline.c_array import identifier
from pipeline.cortex_m import templates
from pipeline.cortex_m.tflm import INSTALL

FILES = ("example.cc", "CMakeLists.txt")

# Text of the templates about labels -> its replacement for a model without labels.
_LABEL_TEXT = {
    '#include "labels.h"\n': "",
    'static_assert(LABELS_COUNT == MODEL_ID_OUTPUT_BYTES, "the labels belong to another model");\n': "",
    "LABELS_COUNT": "static_cast<int>(MODEL_ID_OUTPUT_BYTES)",
    '"class %d, %s, %d in a thousand\\n", best, labels[best],': '"class %d, %d in a thousand\\n", best,',
    "the model, its labels and its test vector": "the model and its test vector",
    "model_id_test_vector.c labels.c": "model_id_test_vector.c",
}


def example_files(name: str, labeled: bool = True) -> dict[str, str]:
    """File name -> text.

    Args:
        name: the model's file name.
        labeled: whether the classes have labels; if not, the example prints class numbers only.
    """
    texts = {file: files(templates).joinpath(file).read_text(encoding="utf-8") for file in FILES}
    if not labeled:
        texts = {file: _without_labels(text) for file, text in texts.items()}
    return {file: _filled(text, name) for file, text in texts.items()}


def _without_labels(text: str) -> str:
    for labeled, unlabeled in _LABEL_TEXT.items():
        text = text.replace(labeled, unlabeled)
    assert "labels" not in text.lower(), "a template mentions labels in text that _LABEL_TEXT does not list"
    return text


def _filled(text: str, name: str) -> str:
    c_name = identifier(name)
    return text.replace("INSTALL_TFLM", INSTALL).replace("model_id", c_name).replace("MODEL_ID", c_name.upper())

"""Stage `c-array`: the model and its labels as C sources."""

from __future__ import annotations

from pipeline.c_array import sources
from pipeline.engine.work import CORTEX_M_FOLDER, LABELS_FILE, Work, model_file


def run(work: Work) -> None:
    names = work.read(LABELS_FILE).splitlines() if LABELS_FILE in work.inputs else None
    for name, text in sources(work.model, model_file(work.recipe), names).items():
        work.write(f"{CORTEX_M_FOLDER}/{name}", text)

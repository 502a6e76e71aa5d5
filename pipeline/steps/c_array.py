"""Stage `c-array`: the model and its labels as C sources."""

from __future__ import annotations

from pipeline.c_array import label_sources, model_sources
from pipeline.work import CORTEX_M_FOLDER, LABELS_FILE, Work, model_file


def run(work: Work) -> None:
    labels = work.read(LABELS_FILE).splitlines()
    sources = {**model_sources(work.model, model_file(work.recipe)), **label_sources(labels)}
    for name, text in sources.items():
        work.write(f"{CORTEX_M_FOLDER}/{name}", text)

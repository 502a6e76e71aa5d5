"""Stage `c-array`: the model and its labels as C sources."""

from __future__ import annotations

from pipeline.c_array import label_sources, model_sources
from pipeline.engine.work import CORTEX_M_FOLDER, LABELS_FILE, Work, model_file
from recreate_model.support.errors import InputError


def run(work: Work) -> None:
    sources = model_sources(work.model, model_file(work.recipe))
    if LABELS_FILE in work.inputs:
        names = label_sources(work.read(LABELS_FILE).splitlines())
        if not sources.keys().isdisjoint(names):
            raise InputError(
                expected="a model whose C sources have other names than those of its labels",
                found=", ".join(sources),
                next_step="rename its file",
            )
        sources |= names
    for name, text in sources.items():
        work.write(f"{CORTEX_M_FOLDER}/{name}", text)

"""Stage `standalone`: the network as C99 of its own."""

from __future__ import annotations

from pipeline.cortex_m.standalone.emit import runtime_sources
from pipeline.engine.work import STANDALONE_FOLDER, Work, model_file


def run(work: Work) -> None:
    with work.machine.progress.bar("planning the standalone runtime"):
        sources = runtime_sources(work.model, model_file(work.recipe))
    for name, text in sources.items():
        work.write(f"{STANDALONE_FOLDER}/{name}", text)

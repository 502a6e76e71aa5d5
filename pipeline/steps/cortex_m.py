"""Stage `cortex-m`: what TensorFlow Lite Micro needs beside the model's C sources, and an example that uses it."""

from __future__ import annotations

from pipeline.cortex_m.bundle import tflm_files
from pipeline.engine.work import CORTEX_M_FOLDER, Work, model_file


def run(work: Work) -> None:
    with work.machine.progress.bar("measuring the arena"):
        labeled = f"{CORTEX_M_FOLDER}/labels.h" in work.inputs
        sources = tflm_files(work.model, model_file(work.recipe), labeled)
    for name, text in sources.items():
        work.write(f"{CORTEX_M_FOLDER}/{name}", text)

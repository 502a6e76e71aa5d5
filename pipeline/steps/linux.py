"""Stage `linux`: a program to start from for each platform that runs Linux, beside the model and its labels."""

from __future__ import annotations

from pipeline.linux.program import linux_programs
from pipeline.work import Work, model_file


def run(work: Work) -> None:
    for path, text in linux_programs(work.recipe.preprocess.crop, model_file(work.recipe)).items():
        work.write(path, text)

"""Stage `linux`: an example program for each platform that runs Linux, beside the model and its labels."""

from __future__ import annotations

from pipeline.engine.work import LABELS_FILE, Work, model_file
from pipeline.linux.program import linux_programs
from pipeline.request.given import check_pictures
from recreate_model.support.errors import InputError


def run(work: Work) -> None:
    check_pictures(work)
    if LABELS_FILE not in work.inputs:
        raise InputError(
            expected="labels for the classes that the programs print",
            found="none that fit the model",
            next_step="give an ImageNet classifier",
        )
    for path, text in linux_programs(work.recipe.preprocess.crop, model_file(work.recipe)).items():
        work.write(path, text)

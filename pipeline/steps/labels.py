"""Stage `labels`: the class labels as text."""

from __future__ import annotations

from pipeline.engine.work import LABELS_FILE, Work
from pipeline.request.given import check_classes
from recreate_model.network.labels import labels, labels_text
from recreate_model.tflite.model_view import read_model


def run(work: Work) -> None:
    names = labels()
    if work.recipe.given:
        # A network without a background class begins with the first of ImageNet's.
        names = names[-check_classes(read_model(work.model)) :]
    work.write(LABELS_FILE, labels_text(names))

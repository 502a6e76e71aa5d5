"""Stage `labels`: the class labels as text."""

from __future__ import annotations

from pipeline.work import LABELS_FILE, Work
from recreate_model.labels import labels, labels_text


def run(work: Work) -> None:
    work.write(LABELS_FILE, labels_text(labels()))

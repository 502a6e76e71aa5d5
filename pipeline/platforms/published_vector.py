"""Evidence from the published test vector: each bit-exact runtime on the input that the ML-zoo publishes.

For: a build whose model is the published one. The expected bytes are the publisher's, so they do not depend on kernels
of this machine. Not for: other models, or fast kernels that are not bit-exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pipeline.claims.published_files import File, pinned_array, vector_beside, vector_fetched
from pipeline.platforms import cortex_a, cortex_m, cortex_m_host, cortex_m_tflm
from pipeline.platforms.evidence import Evidence, Subject, checked
from pipeline.progress import Progress
from recreate_model.network.spec import RESOURCES
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_bytes


@dataclass(frozen=True, eq=False)
class Vector:
    """The published test vector: input int8 (1, height, width, 3), output int8 (1, classes)."""

    input: Array = field(repr=False)
    output: Array = field(repr=False)


def is_published(model: bytes) -> bool:
    """Whether a model is the published one, byte for byte."""
    return digest_bytes(model) == RESOURCES["published-model"].sha256


def find_vector(path: Path | None, cache: Path, progress: Progress) -> Vector | str:
    """The pinned test vector from a folder in the ML-zoo's layout, the cache or a mirror; or why it is not available.

    Args:
        path: the folder, or a model in it; None to use only the cache and the mirrors.
        cache: the download cache folder.
    """
    faults = []
    sources: list[Callable[[], tuple[File, File]]] = [lambda: vector_fetched(cache, progress)]
    if path is not None:
        folder = path if path.is_dir() else path.parent
        sources.insert(0, lambda: vector_beside(folder))
    for source in sources:
        pair = source()
        wrong = [file for file in pair if file.data is None or digest_bytes(file.data) != file.resource.sha256]
        if not wrong:
            return Vector(*map(pinned_array, pair))
        first = wrong[0]
        faults.append(f"{first.what}: {first.why if first.data is None else f'another file at {first.where}'}")
    return "; ".join(faults)


def check(subject: Subject, vector: Vector | str, build: Mapping[str, Path], cache: Path) -> list[Evidence]:
    """One row for each runtime; a single row that names what is missing if the vector is not available.

    Args:
        subject: its model must be the published one.
        vector: from `find_vector`.
        build: path in the build folder -> path on disk, for every file of the build.
        cache: the download cache folder, where `make aarch64` keeps its root.
    """
    if isinstance(vector, str):
        what = "the reference kernels on the published test vector"
        missing = f"{vector}; give a folder in the ML-zoo's layout with --published, or make a mirror reachable"
        return [Evidence("Cortex-A", "not run", what, missing=missing)]
    published = replace(subject, inputs=vector.input, expected=vector.output, source="published", trained=True)
    runtimes: tuple[tuple[str, Callable[[], list[Evidence]]], ...] = (
        ("Cortex-A", lambda: cortex_a.check_reference(published, cache)),
        ("Cortex-M", lambda: cortex_m.check(published, build)),
        ("Cortex-M", lambda: cortex_m_host.check(published, build)),
        ("Cortex-M", lambda: cortex_m_tflm.check(published)),
    )
    rows = [row for platform, run in runtimes for row in checked(platform, run)]
    comparison = f"{vector.output.size} bytes compared with the published output"
    return [
        replace(
            row,
            what=f"{row.what}, on the published test vector",
            note="; ".join(filter(None, (comparison if row.agreement else "", row.note))),
        )
        for row in rows
    ]


def with_vector(subject: Subject, vector: Vector) -> Subject:
    """The subject with the published test vector appended to its pictures."""
    return replace(
        subject,
        inputs=np.concatenate([subject.inputs, vector.input]),
        expected=np.concatenate([subject.expected, vector.output]),
    )

"""Stage `platforms`: the evidence for each platform, as JSON for the card."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.engine.work import PLATFORMS_FILE, VELA_FILE, Work
from pipeline.platforms import cortex_a, cortex_m, cortex_m_tflm, ethos_u, mali, published_vector
from pipeline.platforms.evidence import Evidence, Subject, as_json, checked
from pipeline.platforms.subject import subject
from recreate_model.support.digest import Json, digest_bytes, readable_json
from recreate_model.support.resources import cache_folder

_PICTURES = 20


def run(work: Work) -> None:
    progress = work.machine.progress
    with progress.bar("reference kernels"):
        pictured = subject(work.recipe, work.machine, work.model, _PICTURES)
    checks: list[tuple[str, Callable[[], list[Evidence]]]] = [
        ("Cortex-A", lambda: cortex_a.check(pictured, cache_folder())),
        ("Cortex-M", lambda: cortex_m.check(pictured, work.inputs)),
        ("Cortex-M", lambda: cortex_m_tflm.check(pictured)),
        ("Mali GPU", lambda: mali.check(pictured)),
        *_published_vector(work, pictured),
        ("Ethos U", lambda: ethos_u.check(_variants(work))),
    ]
    rows: list[Evidence] = []
    for platform, check in checks:
        with progress.bar(f"checking {platform}"):
            rows += checked(platform, check, given=bool(work.recipe.given))
    document = {
        "build": work.recipe.name,
        "model_sha256": digest_bytes(work.model),
        "pictures": pictured.source,
        "holds": all(row.holds for row in rows),
        "rows": [as_json(row) for row in rows],
    }
    work.write(PLATFORMS_FILE, readable_json(document))


def _published_vector(work: Work, subject: Subject) -> list[tuple[str, Callable[[], list[Evidence]]]]:
    """The check with the published test vector, if the build's model is the published one."""
    if not published_vector.is_published(work.model):
        return []
    cache = cache_folder()
    vector = published_vector.find_vector(work.machine.published, cache, work.machine.progress)
    return [("Cortex-A", lambda: published_vector.check(subject, vector, work.inputs, cache))]


def _variants(work: Work) -> Json:
    return work.read_json(VELA_FILE)["variants"] if VELA_FILE in work.inputs else []

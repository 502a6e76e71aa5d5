"""Stage `given`: copies the given INT8 model under its own name, and records what is known about it."""

from __future__ import annotations

from pipeline.engine.work import GIVEN_FILE, Work, model_file
from recreate_model.network.spec import MOBILENET_V2, PUBLISHED_MODEL
from recreate_model.support.digest import digest_bytes, readable_json
from recreate_model.support.errors import InputError


def run(work: Work) -> None:
    checkpoint, path = work.recipe.checkpoint, work.machine.checkpoint
    assert path is not None  # the model that was given
    model = path.read_bytes()
    if digest_bytes(model) != checkpoint.sha256:
        raise InputError(
            expected=f"{path} to have SHA-256 {checkpoint.sha256}",
            found=f"{digest_bytes(model)}: the file changed during the build",
            next_step="run again",
        )
    sha1 = digest_bytes(model, "sha1")
    known = f"the published {PUBLISHED_MODEL.name}_INT8" if sha1 == MOBILENET_V2.published.sha1 else ""
    document = {
        "note": "given, not built here" + (f": {known}" if known else ""),
        "file": model_file(work.recipe),
        "bytes": len(model),
        "sha1": sha1,
        "sha256": checkpoint.sha256,
    }
    work.write(model_file(work.recipe), model)
    work.write(GIVEN_FILE, readable_json(document))

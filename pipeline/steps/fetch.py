"""Stage `fetch`: identifies the float weights by content. The archive itself stays in the cache."""

from __future__ import annotations

from pipeline.engine.work import CHECKPOINT_FILE, Work
from recreate_model.floats.float_forms import digest_of, size_of
from recreate_model.network.spec import RESOURCES
from recreate_model.support.digest import Json, readable_json
from recreate_model.support.errors import InputError

_NOTES = {
    "official": "the official archive, verified by size and SHA-256",
    "archive": "an archive given by its path; it is not the official one",
    "file": "a file given by its path; it is not the official archive",
    "seeded": "seeded weights: the network is not trained, and recognizes nothing",
}


def run(work: Work) -> None:
    checkpoint, path = work.recipe.checkpoint, work.machine.checkpoint
    document: dict[str, Json] = {
        "network": work.recipe.network,
        "kind": checkpoint.kind,
        "note": _NOTES[checkpoint.kind],
    }
    if path is None:
        document |= {"seed": checkpoint.seed}
    else:
        found = digest_of(path)
        if found != checkpoint.sha256:
            raise InputError(
                expected=f"{path} to have SHA-256 {checkpoint.sha256}",
                found=f"{found}: the file changed during the build",
                next_step="run again",
            )
        document |= {"sha256": found, "bytes": size_of(path)}
        if checkpoint.form:
            document |= {"form": checkpoint.form}
        if checkpoint.kind == "official":
            document |= {"url": RESOURCES[work.recipe.model.name].urls[0]}
    work.write(CHECKPOINT_FILE, readable_json(document))

"""Stage `attest`: the provenance statement about every file of the build."""

from __future__ import annotations

from pipeline.engine.work import CONVERSION_FILE, MANIFEST_FILE, PROVENANCE_FILE, Work, model_file
from pipeline.provenance.write import statement
from recreate_model.support.digest import digest_bytes, readable_json


def run(work: Work) -> None:
    manifest = work.read_json(MANIFEST_FILE) if MANIFEST_FILE in work.inputs else None
    conversion = work.read_json(CONVERSION_FILE) if CONVERSION_FILE in work.inputs else None
    # Model zoos identify their models by SHA-1.
    sha1 = {model_file(work.recipe): digest_bytes(work.model, "sha1")}
    work.write(PROVENANCE_FILE, readable_json(statement(work.recipe, work.records, manifest, sha1, conversion)))

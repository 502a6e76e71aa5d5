"""The provenance of a build: an in-toto Statement v1 with a SLSA Provenance v1 predicate.

For: showing, in a form other tools read, from which checkpoint and by which steps each file was made, all by digest. It
holds no time, host, path or user, so the same build with the same code and tools has the same statement. Not for:
checking a statement (`check`), or signing it. docs/provenance.md, which `BUILD_TYPE` refers to, describes the fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from pipeline.engine.keys import KeyParts
from pipeline.engine.stages import GIVEN, STAGES
from pipeline.provenance.messages import predicate_message, statement_message
from recreate_model.network.spec import RESOURCES
from recreate_model.recipe import Recipe, as_json
from recreate_model.support.digest import Json

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
_PROJECT = "pkg:generic/recreate-mobilenet-v2-int8"
# Package URLs, as the project has no permanent web address; the part after # is a path in its sources.
BUILD_TYPE = f"{_PROJECT}?build_type=v1#docs/provenance.md"
BUILDER = f"{_PROJECT}#pipeline"
# The files of these stages are the subjects; those of the others are by-products.
DELIVERING = frozenset(stage.name for stage in (GIVEN, *STAGES) if stage.delivers)


def statement(
    recipe: Recipe, records: Mapping[str, Json], manifest: Json, sha1: Mapping[str, str], conversion: Json = None
) -> Json:
    """The statement about a whole build, as JSON.

    Args:
        records: the lock's entry for each stage, in the order of the stages.
        manifest: of the calibration pictures, as `calibrate` writes it; None where a range table was given.
        sha1: path -> SHA-1, for the files that others identify by it.
        conversion: the content of conversion.json, where a separate toolchain converted the checkpoint.

    Raises:
        ValueError: in-toto's own classes do not read it; that would be a fault in this module.
    """
    parts = [KeyParts(**entry["parts"]) for entry in records.values()]
    files = {path: digest for entry in records.values() for path, digest in entry["outputs"].items()}
    delivered = {path for stage in DELIVERING if stage in records for path in records[stage]["outputs"]}
    described = {path: _file(path, digest, sha1.get(path)) for path, digest in files.items()}
    document = {
        "_type": STATEMENT_TYPE,
        "subject": [described[path] for path in files if path in delivered],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"recipe": as_json(recipe)},
                "internalParameters": {
                    "recipeId": recipe.id,
                    **({"conversion": conversion} if conversion else {}),
                    "chain": [_link(recipe, part, records[part.stage]) for part in parts],
                },
                "resolvedDependencies": dependencies(recipe, parts, manifest),
            },
            "runDetails": {
                "builder": {"id": BUILDER},
                "byproducts": [described[path] for path in files if path not in delivered],
            },
        },
    }
    statement_message(document, strict=True)
    predicate_message(document, strict=True)
    return document


def dependencies(recipe: Recipe, parts: Sequence[KeyParts], manifest: Json) -> list[Json]:
    """The inputs of the build, each once: float weights or model, pictures or range table, code and tools."""
    code = {module: digest for part in parts for module, digest in part.code.items()}
    tools = {tool: version for part in parts for tool, version in part.tools.items()}
    converter = {name: digest for part in parts for name, digest in part.recipe.get("converter", {}).items()}
    return [
        _weights(recipe),
        *_background(recipe),
        *_calibration(recipe, manifest),
        *(_dependency("vela.ini", "Vela configuration", sha256=digest) for digest in _vela_configs(recipe)),
        *(_dependency(name, "converter", sha256=digest) for name, digest in sorted(converter.items())),
        *(_dependency(module, "code", sha256=digest) for module, digest in sorted(code.items())),
        *(
            _dependency(tool, "tool", uri=f"pkg:pypi/{quote(tool)}@{quote(version)}")
            for tool, version in sorted(tools.items())
        ),
    ]


def _weights(recipe: Recipe) -> Json:
    checkpoint = recipe.checkpoint
    if checkpoint.kind == "seeded":
        # There is no file to name: `seeded.py`, which is listed with the code, makes the weights from the seed.
        seed = f"{_PROJECT}?seed={checkpoint.seed}#recreate_model/network/seeded.py"
        return _dependency("checkpoint", "float weights, seeded and untrained", uri=seed)
    if checkpoint.kind == "given":
        return _dependency(f"{recipe.name}.tflite", "INT8 model, given and not built here", sha256=checkpoint.sha256)
    name = "checkpoint" if checkpoint.form else f"{recipe.model.name}.tgz"
    what = f"float weights, {checkpoint.form or checkpoint.kind}"
    described = _dependency(name, what, sha256=checkpoint.sha256)
    if checkpoint.kind == "official":
        described["downloadLocation"] = RESOURCES[recipe.model.name].urls[0]
    return described


def _background(recipe: Recipe) -> list[Json]:
    digest = recipe.checkpoint.background
    return [_dependency("background.tflite", "INT8 model that class 0 is taken from", sha256=digest)] if digest else []


def _calibration(recipe: Recipe, manifest: Json) -> list[Json]:
    if recipe.given:
        return []
    if manifest is None:
        return [_dependency("ranges.json", "range table", sha256=recipe.calibration.ranges_sha256)]
    # Not from the recipe: the digest of a procedural picture is known only after it is made.
    return [
        _dependency(picture["id"], "calibration picture", sha256=picture["sha256"]) for picture in manifest["pictures"]
    ]


def _vela_configs(recipe: Recipe) -> list[str]:
    """SHA-256 of the user's Vela configurations; Vela's own is part of Vela."""
    return sorted({target.config_sha256 for target in recipe.targets} - {""})


def _link(recipe: Recipe, parts: KeyParts, entry: Json) -> Json:
    """One stage. Its key can be computed from this and the digests and versions in `resolvedDependencies`."""
    own = as_json(recipe)
    return {
        "stage": parts.stage,
        "key": entry["key"],
        "recipe": [name for name, value in parts.recipe.items() if name in own and own[name] == value],
        "parameters": {name: value for name, value in parts.recipe.items() if name not in own or own[name] != value},
        "code": list(parts.code),
        "tools": list(parts.tools),
        "inputs": dict(parts.inputs),
        "outputs": dict(entry["outputs"]),
    }


def _file(path: str, sha256: str, sha1: str | None) -> Json:
    return {"name": path, "digest": {"sha256": sha256} | ({"sha1": sha1} if sha1 else {})}


def _dependency(name: str, role: str, *, sha256: str = "", uri: str = "") -> dict[str, Json]:
    what = {"digest": {"sha256": sha256}} if sha256 else {"uri": uri}
    return {"name": name, **what, "annotations": {"role": role}}

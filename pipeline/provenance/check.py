"""Checks a provenance statement against the files beside it, and against itself.

Every file is hashed again. Every stage's key is computed again from what the statement says of its recipe, inputs, code
and tools, so none of their digests can be changed alone. The inputs of a stage must be outputs of the stages before it,
and the dependencies must be those that the recipe, the chain and the manifest give. What is not available (the float
archive, the pictures) is reported as not checked. Nothing outside the statement's folder is read, except the archive,
where the user names it or the cache has it. A statement that was forged as a whole is consistent with itself: only a
signature tells it from the real one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.claims.claim import Row, claim
from pipeline.engine.stages import GIVEN, MODEL_STAGE, stages_of
from pipeline.engine.store import LOCK_FILE, Record, Store
from pipeline.engine.work import CHECKPOINT_FILE, CONVERSION_FILE, MANIFEST_FILE, RANGES_FILE, REPORTED, model_file
from pipeline.provenance.read import Link, Statement
from pipeline.provenance.write import DELIVERING, dependencies
from recreate_model.floats.float_forms import digest_of
from recreate_model.network.spec import RESOURCES
from recreate_model.support import resources
from recreate_model.support.digest import Json, digest_file, digest_json
from recreate_model.support.errors import InputError, UsageError, reason

_SHOWN = 3  # at most, of the differences in one row
_LONGEST = 300  # characters, at most, of an entry that is shown


def rows(statement: Statement, folder: Path, archive: Path | None) -> tuple[Row, ...]:
    """All rows for a statement.

    Args:
        folder: the names in the statement are relative to it.
        archive: the float archive that the user names; None to look for it in the cache.

    Raises:
        InputError: the archive cannot be read.
        UsageError: an archive is named, and the statement is about seeded weights.
    """
    return (
        *_files(statement, folder),
        _subjects(statement),
        claim("recipe", statement.recipe_id, statement.recipe.id, "SHA-256 of the recipe in the statement"),
        *_chain(statement),
        _flow(statement),
        _dependencies(statement, folder),
        *_conversion(statement, folder),
        _checkpoint_file(statement, folder),
        _checkpoint(statement, archive),
        _pictures(statement),
        _lock(statement, folder),
    )


def _files(statement: Statement, folder: Path) -> Iterator[Row]:
    made = {path for link in statement.chain for path in link.outputs}
    for name, digests in statement.files.items():
        for algorithm, expected in digests.items():
            what = name if algorithm == "sha256" else f"{name} ({algorithm})"
            yield claim(what, expected, _digest_or_fault(folder, name, algorithm), "the file")
        if name not in made:
            yield Row(name, "made by a stage of the chain", "made by none", "differs", "the chain")


def _subjects(statement: Statement) -> Row:
    """The subjects are the files of the stages in `DELIVERING`; the model has its SHA-1 too, as in published cards."""
    why, model = "the files of the stages that deliver", model_file(statement.recipe)
    delivered = {path for link in statement.chain if link.parts.stage in DELIVERING for path in link.outputs}
    if wrong := sorted(delivered ^ statement.subjects):
        places = ("a subject", "a by-product, or not listed")
        expected, found = places if wrong[0] in delivered else places[::-1]
        return Row("subjects", f"{wrong[0]} as {expected}", found, "differs", why)
    if "sha1" not in statement.files.get(model, {}):
        return Row("subjects", f"{model} with its SHA-1", "without", "differs", "published cards name a model by it")
    count = f"{len(delivered)} files"
    return claim("subjects", count, f"{len(statement.subjects)} files", why)


def _chain(statement: Statement) -> Iterator[Row]:
    """Each stage: its inputs come from the stages before it, its key fits its parts, and its files are listed."""
    made: dict[str, tuple[str, str]] = {}
    for link in statement.chain:
        what = f"stage {link.parts.stage}"
        expected, found = next(_link_faults(statement, link, made), ("", ""))
        if expected:
            yield Row(what, expected, found, "differs", "the chain")
        else:
            why = f"its key; inputs: {len(link.parts.inputs)}, files: {len(link.outputs)}"
            yield claim(what, link.key, link.parts.key, why)
        made |= {path: (link.parts.stage, digest) for path, digest in link.outputs.items()}


def _link_faults(statement: Statement, link: Link, made: dict[str, tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for path, digest in link.parts.inputs.items():
        stage, output = made.get(path, ("", ""))
        if not stage:
            yield f"input {path} to be made by a stage before it", "made by none"
        elif output != digest:
            yield f"input {path} with SHA-256 {output}, as `{stage}` made it", digest
    for path, digest in link.outputs.items():
        listed = statement.files.get(path, {}).get("sha256", "not listed")
        if listed != digest:
            yield f"file {path} with SHA-256 {digest}", f"{listed} among subjects and by-products"
        if path in made:
            yield f"file {path} to be made once", f"made by `{made[path][0]}` too"


def _flow(statement: Statement) -> Row:
    """Every stage of the build is in the chain, and has every file of the stages it needs as an input."""
    recipe, links = statement.recipe, {link.parts.stage: link for link in statement.chain}
    why = "each file by its digest from stage to stage"
    count = 0
    for stage in stages_of(recipe):
        if stage.witness or (stage.on_demand and stage.name not in links):
            continue
        if stage.name not in links:
            return Row("chain", f"the stage `{stage.name}`", "not in the chain", "differs", why)
        inputs = links[stage.name].parts.inputs
        # A stage stands behind those it needs, so that these are known to be in the chain.
        needed = [(name, path) for name in stage.needs for path in links[name].outputs]
        for need, path in needed:
            if path not in inputs and (stage.reports or path not in REPORTED):
                what = f"{path} of `{need}` among the inputs of `{stage.name}`"
                return Row("chain", what, "not among them", "differs", why)
        count += 1
    maker = GIVEN.name if recipe.given else MODEL_STAGE
    if model_file(recipe) not in links[maker].outputs:
        return Row("chain", f"{model_file(recipe)} made by `{maker}`", "not made by it", "differs", why)
    said = f"{count} stages, each with the files of those it needs"
    return claim("chain", said, said, why)


def _dependencies(statement: Statement, folder: Path) -> Row:
    """They are those that recipe, chain and manifest give, in any order. Download locations may change."""
    manifest = None
    if any(MANIFEST_FILE in link.outputs for link in statement.chain):
        manifest = _json(folder, MANIFEST_FILE)
    why = "follow from the recipe, the chain and the manifest of pictures"
    try:
        expected = dependencies(statement.recipe, [link.parts for link in statement.chain], manifest)
    except (KeyError, TypeError):
        return Row("dependencies", f"as {MANIFEST_FILE} has them", "no such manifest", "differs", why)
    stated = [json.dumps(_identity(entry), sort_keys=True) for entry in statement.dependencies]
    wanted = [json.dumps(_identity(entry), sort_keys=True) for entry in expected]
    stated_once, wanted_once = set(stated), set(wanted)
    missing = [text for text in wanted if text not in stated_once]
    extra = [text for text in stated if text not in wanted_once]
    if missing or extra or len(stated) != len(wanted):
        found = ascii(extra[0])[1:-1][:_LONGEST] if extra else f"{len(stated)} entries"
        return Row("dependencies", missing[0] if missing else f"{len(wanted)} entries", found, "differs", why)
    return claim("dependencies", f"{len(wanted)} entries", f"{len(stated)} entries", why)


def _identity(entry: Json) -> Json:
    return {name: value for name, value in entry.items() if name != "downloadLocation"}


def _conversion(statement: Statement, folder: Path) -> Iterator[Row]:
    """Where a separate toolchain converted the checkpoint, statement and conversion.json say the same of it."""
    if statement.recipe.toolchain:
        found, stated = (digest_json(value) for value in (_json(folder, CONVERSION_FILE), statement.conversion))
        yield claim("conversion", found, stated, f"SHA-256 of the content of {CONVERSION_FILE}")


def _checkpoint_file(statement: Statement, folder: Path) -> Row:
    """The recipe's checkpoint is the one that `fetch` recorded, or the model that was given."""
    checkpoint = statement.recipe.checkpoint
    if statement.recipe.given:
        found = statement.files.get(model_file(statement.recipe), {}).get("sha256", "not listed")
        return claim("recipe's model", checkpoint.sha256, found, "the file that was given is the model")
    document = _json(folder, CHECKPOINT_FILE)
    document = document if isinstance(document, dict) else {}
    field = "seed" if checkpoint.kind == "seeded" else "sha256"
    expected = f"{checkpoint.kind}, {field} {getattr(checkpoint, field)}"
    found = f"{ascii(document.get('kind'))[1:-1]}, {field} {ascii(document.get(field)).strip(chr(39))}"
    return claim("recipe's checkpoint", expected, found, f"what {CHECKPOINT_FILE} says")


def _checkpoint(statement: Statement, archive: Path | None) -> Row:
    what, checkpoint = "float archive", statement.recipe.checkpoint
    if checkpoint.kind == "given":
        return Row(what, "", "", "not claimed", "the model was given; the weights it was made from are not known")
    if checkpoint.kind == "seeded":
        if archive:
            raise UsageError(
                expected="no --checkpoint, as the statement is about seeded weights, which have no archive",
                found=f"--checkpoint {archive}",
                next_step="leave it out",
            )
        seed = f"seed {checkpoint.seed}"
        return Row(what, seed, "", "not checked", "seeded weights have no archive; the seed is part of the recipe")
    resource = RESOURCES.get(statement.recipe.model.name)
    if archive is None and resource and resource.sha256 == checkpoint.sha256:
        archive = resources.cached(resource, resources.cache_folder())
    if archive is None:
        why = "it was not found: give it with --checkpoint PATH"
        return Row(what, checkpoint.sha256, "", "not checked", why)
    try:
        return claim(what, checkpoint.sha256, digest_of(archive), str(archive))
    except OSError as error:
        raise InputError(
            expected=f"--checkpoint to name the archive with SHA-256 {checkpoint.sha256}",
            found=f"{reason(error)} at {archive}",
            next_step="give its path, or leave --checkpoint out",
        ) from error


def _pictures(statement: Statement) -> Row:
    calibration = statement.recipe.calibration
    if statement.recipe.given:
        return Row(
            "pictures", "", "", "not claimed", "the model was given; the pictures it was calibrated with are not known"
        )
    if calibration.kind == "ranges":
        what, expected = "range table given", calibration.ranges_sha256
        if statement.files.get(RANGES_FILE, {}).get("sha256") == expected:
            return claim(what, expected, expected, f"it is {RANGES_FILE}, byte for byte")
        return Row(what, expected, "", "not checked", "the file that was given is not part of a build")
    count = f"{len(calibration.pictures)} pictures"
    return Row(
        "pictures", count, "", "not checked", "a build does not contain them; their digests are among the dependencies"
    )


def _lock(statement: Statement, folder: Path) -> Row:
    """The lock beside the statement, if there is one, has the same record of every stage."""
    what = LOCK_FILE
    unreadable = Row(what, "", "", "not checked", "it cannot be read")
    if _file(folder, what) == "missing":
        return Row(what, "", "", "not checked", "there is none beside the statement")
    try:
        records = Store(folder).records() if isinstance(_file(folder, what), Path) else {}
        return _lock_row(statement, records) if records else unreadable
    except (OSError, AttributeError, TypeError, ValueError, RecursionError):
        # The lock is as untrusted as the statement.
        return unreadable


def _lock_row(statement: Statement, records: Mapping[str, Record]) -> Row:
    what = LOCK_FILE
    for link in statement.chain:
        record = records.get(link.parts.stage)
        if record is None or record.parts is None:
            return Row(what, f"an entry for `{link.parts.stage}`", "none", "differs", "the lock")
        changes = link.parts.changes_since(record.parts)
        if dict(record.outputs) != dict(link.outputs):
            changes.append("other files")
        if changes:
            found = f"otherwise in the lock: {ascii('; '.join(changes[:_SHOWN]))[1:-1]}"
            return Row(what, f"`{link.parts.stage}` as in the statement", found, "differs", "the lock")
    count = f"{len(statement.chain)} stages"
    return claim(what, count, count, "the same keys, inputs, code, tools and files")


def _json(folder: Path, name: str) -> Json:
    """The JSON in a file beside the statement; None where there is none."""
    path = _file(folder, name)
    try:
        return json.loads(path.read_text(encoding="utf-8")) if isinstance(path, Path) else None
    except (OSError, ValueError, RecursionError):
        return None


def _digest_or_fault(folder: Path, name: str, algorithm: str) -> str:
    path = _file(folder, name)
    try:
        return digest_file(path, algorithm) if isinstance(path, Path) else path
    except OSError as error:
        return f"cannot be read: {reason(error)}"


def _file(folder: Path, name: str) -> Path | str:
    """The regular file of that name after all links are followed; or what is wrong with it."""
    try:
        real = (folder / name).resolve(strict=True)
        if not real.is_relative_to(folder.resolve()):
            return "a link that leads out of the folder"
        return real if real.is_file() else "not a file"
    except FileNotFoundError:
        return "missing"
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        return f"cannot be read: {reason(error)}"

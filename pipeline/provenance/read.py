"""Reading a provenance statement that anybody may have written: all of it is checked before any of it is believed.

For: `attest_check`. A statement decides which files are read, so its names must not lead out of its folder, and what is
printed of it must not reach the terminal as anything but text. Fields it has beyond ours are ignored, as in-toto wants;
but in `externalParameters`, where SLSA wants them refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from pipeline.engine.keys import KeyParts
from pipeline.provenance.write import BUILD_TYPE, BUILDER, PREDICATE_TYPE, STATEMENT_TYPE
from recreate_model.network.spec import Model
from recreate_model.recipe import (
    FORMS,
    Calibration,
    Checkpoint,
    Evaluation,
    Picture,
    Preprocess,
    Recipe,
    Target,
    as_json,
)
from recreate_model.support.archive import placeholder
from recreate_model.support.digest import Json
from recreate_model.support.errors import InputError, UsageError

_LARGEST = 256 << 20  # bytes; with 50,000 pictures a statement has some 20 million
_DEEPEST = 32  # a statement of ours has eight levels
_DIGEST_LENGTHS = {"sha256": 64, "sha1": 40}


@dataclass(frozen=True)
class Link:
    """One stage of the chain.

    Attributes:
        parts: of its key, put together from the link itself, the recipe and the dependencies.
        key: as stated.
        outputs: path -> SHA-256.
    """

    parts: KeyParts
    key: str
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Statement:
    """What a statement says.

    Attributes:
        files: path below the statement's folder -> algorithm -> digest; subjects first, then by-products.
        subjects: paths of those the statement is about.
        recipe_id: as stated.
        conversion: how a toolchain of its own converted the checkpoint, as stated; None where none did.
        dependencies: each as it stands.
        chain: in the order of the stages; every stage once.
    """

    files: Mapping[str, Mapping[str, str]]
    subjects: frozenset[str]
    recipe: Recipe
    recipe_id: str
    conversion: Json
    dependencies: tuple[Json, ...]
    chain: tuple[Link, ...]


def read_statement(path: Path) -> Statement:
    """Reads the file at `path`.

    Raises:
        InputError: it cannot be read, or is not a statement of this build type.
    """
    try:
        if not path.is_file():
            raise _RefusedError("a folder" if path.is_dir() else "no file there")
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
        return _statement(_document(data))
    except _RefusedError as reason:
        raise _refused(path, str(reason)) from reason
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from error
    except KeyError as error:
        raise _refused(path, f"no field {ascii(error.args[0])[:80]} where it must be") from error
    except (TypeError, AttributeError, ValueError, RecursionError) as error:
        # A value of another type than the field has. Whatever it made Python say means the same to a user.
        raise _refused(path, f"a field of the wrong type or form ({type(error).__name__})") from error


class _RefusedError(Exception):
    """What makes the file no statement of ours, for the `found` of the error."""


def _refused(path: Path, found: str) -> InputError:
    return InputError(
        expected=f"{path} to be an in-toto statement as `python -m pipeline attest` writes it",
        found=found,
        done="nothing was checked",
        next_step="give the provenance.intoto.json of a build folder",
    )


def _document(data: bytes) -> dict[str, Json]:
    if len(data) > _LARGEST:
        raise _RefusedError(f"more than {_LARGEST:,} bytes")
    if what := placeholder(data[:512]):
        raise _RefusedError(what)
    try:
        document = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _RefusedError("a file that is not JSON") from error
    if not isinstance(document, dict):
        raise _RefusedError("JSON that is no object")
    if "payloadType" in document:
        raise _RefusedError(
            "a signed envelope (DSSE): check its signature and unpack its payload, which is the statement"
        )
    _check_depth(document)
    return document


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    # Of a field that stands twice, two programs may see two values.
    if len(dict(pairs)) != len(pairs):
        raise _RefusedError("a field that stands twice")
    return dict(pairs)


def _check_depth(document: Json) -> None:
    # Deeper values would end whatever walks them later with a RecursionError.
    level = [document]
    for _ in range(_DEEPEST):
        outer = [value for value in level if isinstance(value, (dict, list))]
        level = [inner for value in outer for inner in (value.values() if isinstance(value, dict) else value)]
    if level:
        raise _RefusedError(f"values more than {_DEEPEST} deep in each other")


def _no_constant(name: str) -> Json:
    raise _RefusedError(f"{name}, which is not JSON")


def _statement(document: dict[str, Json]) -> Statement:
    for field, expected in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
        if document[field] != expected:
            raise _RefusedError(f"{field} {ascii(document[field])[:80]} instead of {expected}")
    definition, details = document["predicate"]["buildDefinition"], document["predicate"]["runDetails"]
    if definition["buildType"] != BUILD_TYPE:
        raise _RefusedError(f"build type {ascii(definition['buildType'])[:80]} instead of {BUILD_TYPE}")
    if definition["externalParameters"].keys() != {"recipe"}:
        raise _RefusedError("external parameters other than the recipe")
    if details["builder"]["id"] != BUILDER:
        raise _RefusedError(f"builder {ascii(details['builder']['id'])[:80]} instead of {BUILDER}")
    recipe = _recipe(definition["externalParameters"]["recipe"])
    dependencies = tuple(definition["resolvedDependencies"])
    if not all(isinstance(entry, dict) for entry in dependencies):
        raise _RefusedError("a dependency that is no object")
    internal = definition["internalParameters"]
    chain = tuple(_link(entry, recipe, dependencies) for entry in internal["chain"])
    if len({link.parts.stage for link in chain}) != len(chain):
        raise _RefusedError("a stage that stands twice in the chain")
    files: dict[str, Mapping[str, str]] = {}
    for entry in (*document["subject"], *details["byproducts"]):
        name = _path(entry["name"])
        if name in files:
            raise _RefusedError(f"two digests for {name}")
        # Other algorithms may stand beside SHA-256; in-toto wants those ignored that are not known.
        known = {name: value for name, value in entry["digest"].items() if name in _DIGEST_LENGTHS}
        files[name] = {"sha256": known["sha256"], **known}
        for algorithm, value in known.items():
            _digest(value, algorithm)
    subjects = frozenset(entry["name"] for entry in document["subject"])
    conversion = internal.get("conversion")
    return Statement(files, subjects, recipe, _digest(internal["recipeId"]), conversion, dependencies, chain)


def _link(entry: Json, recipe: Recipe, dependencies: tuple[Json, ...]) -> Link:
    own = as_json(recipe)
    if not own.keys().isdisjoint(entry["parameters"]):
        # A stage that was run with another recipe than the one that is stated.
        raise _RefusedError("a field of the recipe among the parameters of a stage")
    code = {d["name"]: d["digest"]["sha256"] for d in dependencies if d["annotations"]["role"] == "code"}
    tools = {
        d["name"]: unquote(d["uri"].rpartition("@")[2]) for d in dependencies if d["annotations"]["role"] == "tool"
    }
    return Link(
        parts=KeyParts(
            stage=_text(entry["stage"]),
            recipe={name: own[name] for name in entry["recipe"]} | dict(entry["parameters"]),
            inputs=_digests(entry["inputs"]),
            code={_text(name): _digest(code[name]) for name in entry["code"]},
            tools={_text(name): _text(tools[name]) for name in entry["tools"]},
        ),
        key=_digest(entry["key"]),
        outputs=_digests(entry["outputs"]),
    )


def _recipe(value: Json) -> Recipe:
    """The recipe of its JSON; refuses fields that a recipe does not have."""
    recipe = Recipe(
        model=Model(**value["model"]),
        checkpoint=Checkpoint(**value["checkpoint"]),
        calibration=Calibration(**{**value["calibration"], "pictures": _pictures(value["calibration"])}),
        evaluation=Evaluation(**{**value["evaluation"], "pictures": _pictures(value["evaluation"])}),
        preprocess=Preprocess(**value["preprocess"]),
        targets=tuple(Target(**target) for target in value["targets"]),
        toolchain=value.get("toolchain", ""),
        given=value.get("given", ""),
    )
    if as_json(recipe) != value:
        raise _RefusedError("a recipe with fields that no recipe has")
    _check_model(recipe)
    checkpoint = recipe.checkpoint
    known = checkpoint.kind in ("official", "archive", "file", "seeded", "given") and isinstance(checkpoint.seed, int)
    if not known or checkpoint.form not in (FORMS if checkpoint.kind == "file" else ("",)):
        raise _RefusedError("a kind of checkpoint that no recipe has")
    if checkpoint.background:
        _digest(checkpoint.background)
    if recipe.checkpoint.kind != "seeded":
        _digest(recipe.checkpoint.sha256)
    return recipe


def _check_model(recipe: Recipe) -> None:
    """A model of the family, or, of a given file, no more than its size."""
    if recipe.checkpoint.kind == "given":
        if not _text(recipe.given) or PurePosixPath(recipe.given).name != recipe.given:
            raise _RefusedError("a name of a given file that is none")
        known = recipe.model == Model("", recipe.model.resolution) and isinstance(recipe.model.resolution, int)
    else:
        try:
            known = not recipe.given and Model.parse(_text(recipe.model.name)) == recipe.model
        except UsageError:
            known = False
    if not known:
        raise _RefusedError("a model that is none of the family")


def _pictures(value: Json) -> tuple[Picture, ...]:
    return tuple(Picture(**picture) for picture in value["pictures"])


def _digests(value: Json) -> dict[str, str]:
    return {_path(name): _digest(digest) for name, digest in value.items()}


def _digest(value: Json, algorithm: str = "sha256") -> str:
    length = _DIGEST_LENGTHS[algorithm]
    if not (isinstance(value, str) and re.fullmatch(rf"[0-9a-f]{{{length}}}", value)):
        raise _RefusedError(f"a {algorithm} digest that is not {length} hexadecimal digits")
    return value


def _path(value: Json) -> str:
    name = _text(value)
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or str(pure) != name or name == ".":
        raise _RefusedError(f"the name {ascii(name)[:80]}, which is no path below the folder")
    return name


def _text(value: Json) -> str:
    # What is not printable could move the cursor, and a lone surrogate cannot be written at all.
    if not (isinstance(value, str) and value and value.isprintable()):
        raise _RefusedError(f"{ascii(value)[:80]} where a name must be")
    return value

"""Reads a provenance statement from an untrusted file; everything is checked before any of it is used.

For: `check`. A statement decides which files are read, so a name in it must not lead out of its folder, and text from
it must not control the terminal when it is printed. Unknown fields are ignored, as in-toto specifies; but in
`externalParameters` they are an error, as SLSA specifies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from pipeline.engine.keys import KeyParts
from pipeline.provenance.messages import predicate_message, statement_message
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
from recreate_model.support.errors import InputError, UsageError, reason

_LARGEST = 256 << 20  # bytes; a statement with 50,000 pictures has about 20 million
_DEEPEST = 32  # a statement written here has eight levels
_DIGEST_LENGTHS = {"sha256": 64, "sha1": 40}


@dataclass(frozen=True)
class Link:
    """One stage of the chain.

    Attributes:
        parts: what its key is computed from: the link itself, the recipe and the dependencies.
        key: the key in the statement.
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
        subjects: paths of the files the statement is about.
        recipe_id: the id in the statement.
        conversion: how a separate toolchain converted the checkpoint; None where none did.
        dependencies: each as JSON, unchanged.
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
    """The statement in the file at `path`.

    Raises:
        InputError: the file cannot be read, or is not a statement of this build type.
    """
    try:
        if not path.is_file():
            raise _RefusedError("a folder" if path.is_dir() else "no file there")
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
        return _statement(_document(data))
    except _RefusedError as refusal:
        raise _refused(path, str(refusal)) from refusal
    except OSError as error:
        raise _refused(path, reason(error)) from error
    except KeyError as error:
        raise _refused(path, f"no field {ascii(error.args[0])[:80]} where it must be") from error
    except (TypeError, AttributeError, ValueError, RecursionError) as error:
        # A value of the wrong type. The words of Python's own error would not help a user.
        raise _refused(path, f"a field of the wrong type or form ({type(error).__name__})") from error


class _RefusedError(Exception):
    """Why the file is not a statement of this pipeline: the `found` of the error."""


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
    # JSON readers differ in which of two fields of the same name they take.
    if len(dict(pairs)) != len(pairs):
        raise _RefusedError("a field that occurs twice")
    return dict(pairs)


def _check_depth(document: Json) -> None:
    # Code that walks deeper values recursively would raise a RecursionError.
    level = [document]
    for _ in range(_DEEPEST):
        outer = [value for value in level if isinstance(value, (dict, list))]
        level = [inner for value in outer for inner in (value.values() if isinstance(value, dict) else value)]
    if level:
        raise _RefusedError(f"values nested more than {_DEEPEST} deep")


def _no_constant(name: str) -> Json:
    raise _RefusedError(f"{name}, which is not JSON")


def _statement(document: dict[str, Json]) -> Statement:
    statement = statement_message(document, strict=False)
    _expect("_type", statement.type, STATEMENT_TYPE)
    _expect("predicateType", statement.predicate_type, PREDICATE_TYPE)
    predicate = predicate_message(document, strict=False)
    definition, details = predicate.build_definition, predicate.run_details
    _expect("build type", definition.build_type, BUILD_TYPE)
    _expect("builder", details.builder.id, BUILDER)
    files: dict[str, Mapping[str, str]] = {}
    for descriptor in (*statement.subject, *details.byproducts):
        name = _path(descriptor.name)
        if name in files:
            raise _RefusedError(f"two digests for {name}")
        files[name] = _file_digests(descriptor.digest)
    stated = document["predicate"]["buildDefinition"]
    if stated["externalParameters"].keys() != {"recipe"}:
        raise _RefusedError("external parameters other than the recipe")
    recipe, internal = _recipe(stated["externalParameters"]["recipe"]), stated["internalParameters"]
    code = {one.name: one.digest["sha256"] for one in definition.resolved_dependencies if _role(one) == "code"}
    tools = {
        one.name: unquote(one.uri.rpartition("@")[2])
        for one in definition.resolved_dependencies
        if _role(one) == "tool"
    }
    chain = tuple(_link(entry, recipe, code, tools) for entry in internal["chain"])
    if len({link.parts.stage for link in chain}) != len(chain):
        raise _RefusedError("a stage that occurs twice in the chain")
    return Statement(
        files=files,
        subjects=frozenset(descriptor.name for descriptor in statement.subject),
        recipe=recipe,
        recipe_id=_digest(internal["recipeId"]),
        conversion=internal.get("conversion"),
        dependencies=tuple(stated["resolvedDependencies"]),
        chain=chain,
    )


def _expect(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise _RefusedError(f"{what} {ascii(found)[:80]} instead of {expected}")


def _role(descriptor: Any) -> str:
    return str(descriptor.annotations.fields["role"].string_value)


def _file_digests(stated: Mapping[str, str]) -> dict[str, str]:
    """Algorithm -> digest; algorithms that are not known here are ignored, as in-toto specifies."""
    return {name: _digest(stated[name], name) for name in _DIGEST_LENGTHS if name in stated or name == "sha256"}


def _link(entry: Json, recipe: Recipe, code: Mapping[str, str], tools: Mapping[str, str]) -> Link:
    own = as_json(recipe)
    if not own.keys().isdisjoint(entry["parameters"]):
        # The stage was run with another recipe than the one in the statement.
        raise _RefusedError("a field of the recipe among the parameters of a stage")
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
    """The recipe from its JSON; a field that a recipe does not have is an error."""
    parts: dict[str, Any] = {
        "model": Model(**value["model"]),
        "checkpoint": Checkpoint(**value["checkpoint"]),
        "calibration": Calibration(**{**value["calibration"], "pictures": _pictures(value["calibration"])}),
        "evaluation": Evaluation(**{**value["evaluation"], "pictures": _pictures(value["evaluation"])}),
        "preprocess": Preprocess(**value["preprocess"]),
        "targets": tuple(Target.from_json(target) for target in value["targets"]),
    }
    plain = {part.name: value[part.name] for part in fields(Recipe) if part.name in value.keys() - parts.keys()}
    recipe = Recipe(**parts, **plain)
    if as_json(recipe) != value:
        raise _RefusedError("a recipe with unknown fields")
    _check_model(recipe)
    checkpoint = recipe.checkpoint
    known = checkpoint.kind in ("official", "archive", "file", "seeded", "given") and isinstance(checkpoint.seed, int)
    if not known or checkpoint.form not in (FORMS if checkpoint.kind == "file" else ("",)):
        raise _RefusedError("an unknown kind of checkpoint")
    if checkpoint.background:
        _digest(checkpoint.background)
    if recipe.checkpoint.kind != "seeded":
        _digest(recipe.checkpoint.sha256)
    return recipe


def _check_model(recipe: Recipe) -> None:
    """The model must be one of the family; of a given file the recipe has only the input's resolution."""
    if recipe.checkpoint.kind == "given":
        if not _text(recipe.given) or PurePosixPath(recipe.given).name != recipe.given:
            raise _RefusedError("a given file whose name is not a file name")
        known = recipe.model == Model("", recipe.model.resolution) and isinstance(recipe.model.resolution, int)
    else:
        try:
            known = not recipe.given and Model.parse(_text(recipe.model.name)) == recipe.model
        except UsageError:
            known = False
    if not known:
        raise _RefusedError("a model that is not of the family")


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
        raise _RefusedError(f"the name {ascii(name)[:80]}, which is not a path below the folder")
    return name


def _text(value: Json) -> str:
    # Unprintable characters can control the terminal, and a lone surrogate cannot be printed at all.
    if not (isinstance(value, str) and value and value.isprintable()):
        raise _RefusedError(f"{ascii(value)[:80]} where a name must be")
    return value

"""What `prove` works on, and what it prints."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

from pipeline.console import Block
from pipeline.engine import user_files
from pipeline.interface.views import diff as diff_view
from pipeline.request.published_recipe import corrections_sentence
from recreate_model.compare.verdict import Verdict, printable
from recreate_model.floats.float_forms import load_weights
from recreate_model.prove import corrections
from recreate_model.prove.channels import FACTOR_ULPS
from recreate_model.prove.prove import Attempt, Checkpoint, Proof, table_of
from recreate_model.quantize.quantizer import Generation
from recreate_model.recipe import Recipe, as_json
from recreate_model.support.digest import Json
from recreate_model.support.errors import CheckError, PipelineError, ResourceError, reason

_SHOWN = 8  # of refutations
_NO_BACKGROUND = "class 0, which the checkpoint does not have; its numbers are taken from the file itself"
_NO_GRAPH = "the checkpoint has no frozen graph that a toolchain could convert"


def checkpoint(recipe: Recipe, file: Path | None) -> Checkpoint:
    """The recipe's float weights, which are in `file` unless they are seeded, and the frozen graph beside them."""
    weights = load_weights(file, recipe.model, recipe.checkpoint.seed)
    return Checkpoint(recipe.model, weights.values, weights.frozen_graph, weights.background)


def document(proof: Proof, recipe: Recipe, path: Path, published: bytes, required: Verdict) -> Json:
    """All of it as plain JSON."""
    activations = proof.recovered.activations
    return {
        "status": 0 if proof.verdict.reaches(required) else _unproved(proof, recipe, path, required).status,
        "verdict": proof.verdict.name,
        "meaning": proof.verdict.meaning,
        "asked": required.name,
        "published": diff_view.identity(path, published),
        "model": recipe.model.name,
        "checkpoint": as_json(recipe.checkpoint),
        "ranges": {
            "arithmetic": proof.recovered.generation.value,
            "recovered": sum(activation.span is not None for activation in activations),
            "left_out": {activation.tensor: activation.why for activation in activations if activation.span is None},
        },
        "numbers": {
            "factor_ulps": FACTOR_ULPS,
            "weights": sum(layer.weights for layer in proof.layers),
            "weights_on_a_tie": sum(layer.on_a_tie for layer in proof.layers),
            "biases": sum(layer.biases for layer in proof.layers),
            "biases_on_a_tie": sum(layer.biases_on_a_tie for layer in proof.layers),
            "biases_without_scale": sum(layer.without_scale for layer in proof.layers),
        },
        "refutations": [asdict(refutation) for refutation in proof.refutations],
        "remarks": [asdict(remark) for remark in proof.remarks],
        "has_frozen_graph": proof.has_graph,
        "has_background": proof.has_background,
        "rebuilt": [_attempt(attempt) for attempt in proof.attempts],
    }


def _attempt(attempt: Attempt) -> Json:
    compared, corrected = attempt.comparison, attempt.corrections
    return {
        "with": attempt.toolchain,
        "verdict": None if compared is None else compared.verdict.name,
        "apart_from_ends": compared.apart_from_ends.name if compared and compared.apart_from_ends is not None else None,
        "first_difference": attempt.first_difference or None,
        "corrections": None if corrected is None else asdict(corrected),
        "failure": None if attempt.failure is None else str(attempt.failure),
    }


def blocks(found: Json) -> list[Block]:
    """The same as lines and tables: the file, the numbers, the rebuilt models, the verdict."""
    published, numbers, ranges = found["published"], found["numbers"], found["ranges"]
    checkpoint = found["checkpoint"]
    rows = [
        ("published", printable(published["path"])),
        ("", f"{published['bytes']:,} bytes, SHA-1 {published['sha1']}"),
        (
            "checkpoint",
            f"{found['model']}, {checkpoint.get('form') or checkpoint['kind']} {checkpoint['sha256'][:16]}".strip(),
        ),
        (
            "ranges",
            f"{ranges['recovered']} recovered, {len(ranges['left_out'])} left out",
        ),
        ("arithmetic", Generation(ranges["arithmetic"]).converter),
    ]
    unscaled = numbers["biases_without_scale"]
    if not found["refutations"]:
        rows += [
            ("INT8 weights", _explained(numbers["weights"], numbers["weights_on_a_tie"])),
            ("INT32 biases", _explained(numbers["biases"] - unscaled, numbers["biases_on_a_tie"])),
            (
                "tolerance",
                f"one folding factor for each channel, at most {numbers['factor_ulps']} units in the last place off",
            ),
        ]
        if unscaled:
            rows.append(("not checked", f"{unscaled:,} biases of channels whose scale is 0"))
    if not found["has_background"]:
        rows.append(("not checked", _NO_BACKGROUND))
    output: list[Block] = [("", ("", ""), rows)]
    if found["rebuilt"]:
        table = [(attempt["with"], attempt["verdict"] or "failed", _remark(attempt)) for attempt in found["rebuilt"]]
        output.append(("rebuilt", ("with", "verdict", "remark"), table))
    if found["verdict"] == "CONSISTENT" and not found["has_frozen_graph"]:
        output.append(f"No toolchain was run: {_NO_GRAPH}.")
    if refutations := found["refutations"]:
        output.append(_table(f"refuted by {_numbers(len(refutations))}", "the checkpoint gives", refutations))
    if remarks := found["remarks"]:
        output.append(_table(f"{_numbers(len(remarks))} that no calibration gives", "a calibration gives", remarks))
    if found["verdict"] == "CONSISTENT" and any(attempt["failure"] for attempt in found["rebuilt"]):
        output.append("A converter that may have made the file could not be run, so IDENTICAL is not ruled out.")
    if found["refutations"]:
        return [*output, f"Refuted: the checkpoint does not give this file ({found['verdict']})."]
    but = ", but no pictures give such ranges" if found["remarks"] else ""
    return [*output, f"{found['verdict']}: {found['meaning']}{but}."]


def _table(title: str, expected: str, refutations: list[Json]) -> Block:
    rows = [
        (printable(row["tensor"].split(";")[0]), row["what"], row["expected"], printable(row["found"]))
        for row in refutations[:_SHOWN]
    ]
    return title, ("tensor", "what", expected, "published"), rows


def _numbers(count: int) -> str:
    return f"{count:,} number{'' if count == 1 else 's'}"


def _explained(count: int, on_a_tie: int) -> str:
    return f"all {count:,} explained; {on_a_tie:,} of them differ from exact arithmetic"


def _remark(attempt: Json) -> str:
    if attempt["failure"]:
        return printable(attempt["failure"])
    remarks = [] if attempt["first_difference"] is None else [attempt["first_difference"]]
    if attempt["corrections"]:
        remarks.append(corrections_sentence(attempt["corrections"]))
    elif attempt["verdict"] == "IDENTICAL":
        remarks.append("nothing was corrected")
    return "; ".join(remarks)


def keep(proof: Proof, folder: Path) -> None:
    """Writes every rebuilt model to a folder, for `diff`.

    Raises:
        ResourceError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for attempt in proof.attempts:
            if attempt.model:
                (folder / f"{re.sub('[^a-z0-9.]+', '-', attempt.toolchain.lower())}.tflite").write_bytes(attempt.model)
    except OSError as error:
        raise ResourceError(
            expected=f"to write into {folder}", found=reason(error), next_step="give another --keep"
        ) from error


def record(proof: Proof, published: bytes, path: Path) -> PipelineError | None:
    """Writes the corrections of a published file that was rebuilt; returns the error if it cannot."""
    try:
        user_files.write_new(path.parent, {path.name: corrections.to_json(table_of(published, proof))}, "--record")
    except PipelineError as error:
        return error
    return None


def check(proof: Proof, recipe: Recipe, path: Path, required: Verdict) -> None:
    """Raises an error unless the verdict is the one asked for, or a stronger one."""
    if not proof.verdict.reaches(required):
        raise _unproved(proof, recipe, path, required)


def _unproved(proof: Proof, recipe: Recipe, path: Path, required: Verdict) -> PipelineError:
    source = recipe.checkpoint.form or f"{recipe.checkpoint.kind} checkpoint"
    expected = f"{path} to be {required.name} with what the {source} gives"
    if proof.refutations:
        first = proof.refutations[0]
        return CheckError(
            expected=expected,
            found=f"{first.number}, where the checkpoint gives {first.expected}; refuted by "
            f"{_numbers(len(proof.refutations))}",
            next_step="give the checkpoint the file was made from, or look at --json",
        )
    # A toolchain that could not be run may give the bytes.
    for attempt in proof.attempts:
        if attempt.failure is not None:
            return attempt.failure
    reason, other = (
        ("no toolchain that was tried gives its bytes", "try others with --toolchain")
        if proof.has_graph
        else (_NO_GRAPH, "give an archive with one")
    )
    return CheckError(
        expected=expected,
        found=f"{proof.verdict.name}: {reason}",
        next_step=f"{other}, or accept it with --accept CONSISTENT",
    )

"""What `diff` prints: a comparison as lines and tables, or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.console import Block
from recreate_model.compare.diff import Comparison, Difference, Kind, Verdict, comparison_json
from recreate_model.compare.verdict import printable
from recreate_model.quantize.convert import activation_name
from recreate_model.support.digest import Json, digest_bytes

_ROWS = 20  # of the table of differences without --all
_NAME = 120  # characters of a tensor's name, at most


def identity(path: Path, data: bytes) -> dict[str, str | int]:
    """Path, size and digests of a file; SHA-1 is among them because model collections publish it."""
    digests = {algorithm: digest_bytes(data, algorithm) for algorithm in ("sha1", "sha256")}
    return {"path": str(path), "bytes": len(data), **digests}


def status(comparison: Comparison, required: Verdict) -> int:
    """Exit status: 0 where the verdict is the one asked for or a stronger one, else 1."""
    return 0 if comparison.verdict.reaches(required) else 1


def document(comparison: Comparison, required: Verdict, files: Sequence[Mapping[str, str | int]]) -> Json:
    """All of it as plain JSON."""
    return {
        "status": status(comparison, required),
        "asked": required.name,
        "files": list(files),
        **comparison_json(comparison),
    }


def blocks(
    comparison: Comparison, required: Verdict, files: Sequence[Mapping[str, str | int]], all_rows: bool
) -> list[Block]:
    """The two files, the verdict, how many differences there are of each kind, and the most significant ones."""
    titles = {"file": "path", "bytes": "bytes", "SHA-1": "sha1", "SHA-256": "sha256"}
    rows = [
        (name, title, _cell(file[key])) for name, file in zip("AB", files, strict=True) for title, key in titles.items()
    ]
    verdict = comparison.verdict.name
    output: list[Block] = [("", ("", "", ""), rows), f"{verdict}: {comparison.verdict.meaning}."]
    if comparison.apart_from_ends is not None:
        output.append(f"Apart from the operators at the ends: {comparison.apart_from_ends.name}.")
    output.append(f"Compared: {comparison.operators:,} pairs of operators, {comparison.tensors:,} of tensors.")
    if not comparison.differences:
        return output
    counted = [(kind.label, f"{count:,}", kind.leaves.name) for kind, count in comparison.counts.items()]
    output.append(("", ("differences", "places>", "verdict at best"), counted))
    order = {kind: rank for rank, kind in enumerate(Kind)}
    sorted_differences = sorted(comparison.differences, key=lambda difference: order[difference.kind])
    shown = sorted_differences if all_rows else sorted_differences[:_ROWS]
    output.append(("", ("kind", "where", "A against B"), [_row(difference) for difference in shown]))
    if left := len(sorted_differences) - len(shown):
        output.append(f"{left:,} more: --all shows them, --json holds them.")
    if status(comparison, required):
        output.append(f"Required verdict: {required.name}. To accept this one: --accept {verdict}")
    return output


def _cell(value: str | int) -> str:
    return f"{value:,}" if isinstance(value, int) else printable(value)


def _row(difference: Difference) -> tuple[str, str, str]:
    """One row; a tensor has the first of its names, as the converter joins the names of all nodes it fused."""
    where = "\n".join(filter(None, (difference.where, activation_name(difference.name)[:_NAME])))
    return difference.kind.label, "\n".join(map(printable, where.split("\n"))), printable(difference.what)

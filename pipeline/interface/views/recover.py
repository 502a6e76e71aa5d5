"""The ranges of a published model as a range table for a float network of ours."""

from __future__ import annotations

import shlex
from pathlib import Path

from calibration.ranges.range_table import Ranges
from pipeline.console import Block, Verbatim
from pipeline.engine.work import Machine
from pipeline.request.request import Request
from recreate_model.compare.verdict import printable
from recreate_model.network.spec import Model
from recreate_model.prove.membership import check_member
from recreate_model.prove.recover import Recovered, recover
from recreate_model.quantize import convert
from recreate_model.quantize.quantizer import Generation
from recreate_model.recipe import Recipe
from recreate_model.support.digest import Json, digest_bytes
from recreate_model.support.errors import CheckError
from recreate_model.tflite.model_view import read_model

_FLOAT32_BITS = 24  # of mantissa: recovered ranges are not rounded


def ranges_of(published: bytes, source: str, model: Model) -> Recovered:
    """The ranges recovered from a published model.

    Args:
        source: what to call the file in an error.

    Raises:
        InputError: the file is not a full-integer INT8 model, or one of another network.
    """
    view = read_model(published, source)
    check_member(view, model, source)
    return recover(view, source)


def as_table(recovered: Recovered, published: bytes, recipe: Recipe, float_model: bytes, graph_sha256: str) -> Ranges:
    """The recovered ranges by the names of our float model; `graph_sha256` is that of its float graph."""
    pairs = list(zip(convert.activations(float_model), recovered.activations, strict=True))
    return Ranges(
        spans={name: activation.span for name, activation in pairs if activation.span is not None},
        network=recipe.network,
        graph_sha256=graph_sha256,
        preprocess="",
        mantissa_bits=_FLOAT32_BITS,
        pictures=(),
        range_method="",
        recovered_from=digest_bytes(published),
        left_out={name: activation.why for name, activation in pairs if activation.span is None},
    )


def document(recovered: Recovered, table: Ranges, target: Path) -> Json:
    """All of it as plain JSON."""
    return {
        "table": str(target),
        "recovered_from": table.recovered_from,
        "network": table.network,
        "arithmetic": recovered.generation.value,
        "recovered": len(table.spans),
        "left_out": dict(table.left_out),
        "missing": _missing(recovered),
        "not_todays": [activation.tensor for activation in recovered.activations if not activation.today],
    }


def _missing(recovered: Recovered) -> list[str]:
    return [found.tensor for found in recovered.activations if found.span is None and not found.without_range]


def check(recovered: Recovered, source: str, target: Path) -> None:
    """Raises CheckError if a range that a build needs was not found."""
    if missing := _missing(recovered):
        raise CheckError(
            expected=f"a range for every activation of {source} whose range decides a byte",
            found=f"none for {len(missing)} of them, the first {printable(missing[0])}",
            done=f"{target} has the others",
            next_step="look at the file with `python -m pipeline prove`: a converter would not have written it",
        )


def blocks(found: Json, machine: Machine, recipe: Recipe) -> list[Block]:
    """The same as lines and tables, with the command that builds from the range table."""
    converter = Generation(found["arithmetic"]).converter
    output: list[Block] = [f"{found['recovered']} ranges recovered, quantized as by {converter}: {found['table']}"]
    if found["left_out"]:
        rows = [(printable(name), printable(why)) for name, why in found["left_out"].items()]
        output.append(("left out", ("activation", "why"), rows))
    output += [
        f"{printable(name)}: no range gives this scale in today's converter; the recovered range gives one "
        "that differs in the last bit."
        for name in found["not_todays"]
    ]
    if found["missing"]:
        return output
    options = f"--model {recipe.model.width}_{recipe.model.resolution}"
    checkpoint, table = (shlex.quote(str(part)) for part in (machine.checkpoint or "seeded", found["table"]))
    options += f" --checkpoint {checkpoint} --ranges {table}"
    if machine.out != Request().out:
        options += f" --out {shlex.quote(str(machine.out))}"
    return [*output, "Build with them:", Verbatim(f"  python -m pipeline quantize {options}")]

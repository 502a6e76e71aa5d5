"""Activation ranges: minimum and maximum of each tensor, merged exactly, rounded, and saved as readable JSON.

The last bits of measured ranges depend on the CPU. After rounding to a few mantissa bits they rarely do: only if a
value happens to be at a rounding boundary. A recorded table does not depend on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from calibration.ranges.range_methods import RangeMethod
from recreate_model.recipe import MIN_MAX
from recreate_model.support.arrays import Array
from recreate_model.support.digest import Json, document_fault, is_sha256, read_document, readable_json
from recreate_model.support.errors import InputError

_FORMAT = "activation-ranges/1"


@dataclass(frozen=True)
class Ranges:
    """A table of activation ranges.

    Attributes:
        spans: activation name -> (minimum, maximum) in real units, float32 values, in the order of the graph.
        network: name of the float network, as `Recipe.network`.
        graph_sha256: of the float graph, as other weights have other ranges.
        preprocess: how the pictures were cropped, as `recipe.Preprocess.crop`; empty if unknown.
        mantissa_bits: number of mantissa bits the ranges are rounded to; 24 means not rounded.
        pictures: SHA-256 of each calibration picture, so that none of them is used for evaluation.
        range_method: how the ranges were chosen, as `str(RangeMethod)`; empty if unknown.
        recovered_from: SHA-256 of the published model they were recovered from; empty if they were measured.
        left_out: activation name -> why it has no range. No model depends on the range of such an activation.
    """

    spans: Mapping[str, tuple[float, float]]
    network: str
    graph_sha256: str
    preprocess: str
    mantissa_bits: int
    pictures: tuple[str, ...]
    range_method: str = MIN_MAX
    recovered_from: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)


def merge(shards: Sequence[Array]) -> Array:
    """Merges arrays of minima and maxima, float32 (tensors, 2). Exact, so order and grouping do not matter."""
    stacked = np.stack(shards)
    return np.stack([stacked[:, :, 0].min(axis=0), stacked[:, :, 1].max(axis=0)], axis=1)


def round_mantissa(values: Array, bits: int) -> Array:
    """Rounds float32 values to `bits` bits of mantissa, ties to even. Idempotent and monotonic."""
    mantissa, exponent = np.frexp(np.asarray(values, np.float32))
    # frexp gives a mantissa in 0.5..1; times 2**bits, its integer part has `bits` bits. Only `rint` rounds.
    rounded: Array = np.ldexp(np.rint(np.ldexp(mantissa, bits)), exponent - bits)
    return rounded.astype(np.float32)


def to_json(ranges: Ranges) -> str:
    """Readable JSON. Floats are written so that reading them gives the same float32."""
    return readable_json(
        {
            "format": _FORMAT,
            "network": ranges.network,
            "graph_sha256": ranges.graph_sha256,
            "preprocess": ranges.preprocess,
            "mantissa_bits": ranges.mantissa_bits,
            "range_method": ranges.range_method,
            "activations": [{"name": name, "min": low, "max": high} for name, (low, high) in ranges.spans.items()],
            "pictures": list(ranges.pictures),
            "recovered_from": ranges.recovered_from,
            "left_out": dict(ranges.left_out),
        }
    )


def from_json(text: str, source: str) -> Ranges:
    """Reads what `to_json` wrote.

    Raises:
        InputError: the text is not such a table. `convert.quantize` checks that a table fits a network.
    """
    try:
        document = read_document(text, _FORMAT)
        spans = {row["name"]: (float(row["min"]), float(row["max"])) for row in document["activations"]}
        if len(spans) != len(document["activations"]):
            raise ValueError("an activation listed twice")
        bits = int(document["mantissa_bits"])
        if not 1 <= bits <= 24:
            raise ValueError(f"mantissa_bits {bits}, which is not 1..24")
        pictures = document["pictures"]
        # Without valid digests, calibration pictures could not be excluded from evaluation.
        if not (isinstance(pictures, list) and all(map(is_sha256, pictures))):
            raise ValueError("pictures that are not listed by SHA-256")
        return Ranges(
            spans=spans,
            network=str(document["network"]),
            graph_sha256=str(document["graph_sha256"]),
            preprocess=str(document["preprocess"]),
            mantissa_bits=bits,
            range_method=_range_method(document),
            pictures=tuple(pictures),
            recovered_from=str(document.get("recovered_from", "")),
            left_out={str(name): str(why) for name, why in document.get("left_out", {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            expected=f"{source} to be a range table ({_FORMAT})",
            found=document_fault(error),
            next_step="give a ranges.json that `python -m pipeline calibrate` wrote",
        ) from error


def _range_method(document: Json) -> str:
    """The range method of a table. Tables written before there was a choice do not have one: `min-max`."""
    text = str(document.get("range_method", "" if document.get("recovered_from") else MIN_MAX))
    return str(RangeMethod.parse(text)) if text else ""

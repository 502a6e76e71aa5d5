"""Activation ranges: minimum and maximum per tensor, merged exactly, rounded, and saved as readable JSON.

Measured ranges depend in their last bits on the CPU. Rounded to a few mantissa bits they do not, but for a value that
happens to lie on a rounding boundary; a recorded table never does.
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
    """Minimum and maximum in real units of each activation, by name, in the order of the graph.

    Attributes:
        spans: name -> (minimum, maximum), float32 values.
        network: name of the float network they belong to, as `Recipe.network`.
        graph_sha256: of its float graph: other weights have other ranges.
        preprocess: how the pictures were cut, as `recipe.Preprocess.crop`; empty where nobody knows.
        pictures: SHA-256 of each picture measured, so that none of them is later used to evaluate.
        mantissa_bits: to which they are rounded; 24 means not rounded.
        range_method: how each was chosen, as `RangeMethod` spells it; empty where nobody knows.
        recovered_from: SHA-256 of the published model they were found in; empty where they were measured.
        left_out: activation -> why it has no range here. No model depends on one of those.
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
    """Joins (tensors, 2) arrays of minima and maxima. Exact, so neither order nor grouping matters."""
    stacked = np.stack(shards)
    return np.stack([stacked[:, :, 0].min(axis=0), stacked[:, :, 1].max(axis=0)], axis=1)


def round_mantissa(values: Array, bits: int) -> Array:
    """float32 values to the nearest with `bits` bits of mantissa, ties to even. Idempotent and monotone."""
    mantissa, exponent = np.frexp(np.asarray(values, np.float32))
    # frexp gives a mantissa of 0.5..1; scaled by 2**bits its whole part has `bits` bits. All of this is exact.
    rounded: Array = np.ldexp(np.rint(np.ldexp(mantissa, bits)), exponent - bits)
    return rounded.astype(np.float32)


def to_json(ranges: Ranges) -> str:
    """Readable JSON. Floats are written so that reading gives the same float32 again."""
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
        InputError: not such a table. Whether it fits a network is for `convert.quantize` to say.
    """
    try:
        document = read_document(text, _FORMAT)
        spans = {row["name"]: (float(row["min"]), float(row["max"])) for row in document["activations"]}
        if len(spans) != len(document["activations"]):
            raise ValueError("a name that stands twice")
        bits = int(document["mantissa_bits"])
        if not 1 <= bits <= 24:
            raise ValueError(f"{bits} bits of mantissa")
        pictures = document["pictures"]
        # With anything else in their place, they would be found among those to evaluate on.
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
    """Tables from before there was a choice do not say."""
    text = str(document.get("range_method", "" if document.get("recovered_from") else MIN_MAX))
    return str(RangeMethod.parse(text)) if text else ""

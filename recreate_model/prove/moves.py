"""A table of moves: by how much each folding factor of a published file is off the exactly rounded one.

With it a CPU that folds BatchNorm otherwise makes the file from its frozen graph, and needs no copy of the file. The
table holds no weight: a shift for each channel that the converter folds, in units in the last place (float32).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from recreate_model.prove.channels import FACTOR_ULPS
from recreate_model.support.arrays import Array
from recreate_model.support.digest import document_fault, is_sha256, read_document, readable_json
from recreate_model.support.errors import InputError

_FORMAT = "folding-moves/1"


@dataclass(frozen=True, eq=False)
class MoveTable:
    """The shifts that give a file.

    Attributes:
        graph_sha256: of the frozen graph whose BatchNorm is folded.
        toolchain: that made the file, as the command line calls it.
        model_sha256: of the file.
        shifts: layer -> int (channels,), in units in the last place. A layer whose BatchNorm was folded before the
            graph was frozen has none: its constants are the graph's own.
    """

    graph_sha256: str
    toolchain: str
    model_sha256: str
    shifts: Mapping[str, Array] = field(repr=False)


def to_json(table: MoveTable) -> str:
    """Readable JSON, a line for each layer."""
    return readable_json(
        {
            "format": _FORMAT,
            "graph_sha256": table.graph_sha256,
            "toolchain": table.toolchain,
            "model_sha256": table.model_sha256,
            "shifts": {layer: " ".join(map(str, shifts.tolist())) for layer, shifts in table.shifts.items()},
        }
    )


def from_json(text: str, source: str) -> MoveTable:
    """Reads what `to_json` wrote.

    Raises:
        InputError: not such a table. Whether it fits a graph is for `rebuild.by_table` to say.
    """
    try:
        document = read_document(text, _FORMAT)
        shifts = {str(layer): np.array(line.split(), np.int64) for layer, line in document["shifts"].items()}
        for layer, values in shifts.items():
            if ((values < -FACTOR_ULPS) | (values > FACTOR_ULPS)).any():
                raise ValueError(f"a shift of more than {FACTOR_ULPS} units in {layer}")
        for name in ("graph_sha256", "model_sha256"):
            if not is_sha256(document[name]):
                raise ValueError(f"no SHA-256 in {name}")
        return MoveTable(document["graph_sha256"], str(document["toolchain"]), document["model_sha256"], shifts)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            expected=f"{source} to be a table of moves ({_FORMAT})",
            found=document_fault(error),
            next_step="give one that `python -m pipeline prove --record` wrote",
        ) from error

"""The table of corrections to BatchNorm folding factors that a published file needs.

CPUs fold BatchNorm to different last bits. With the table, any CPU makes the published file from its frozen graph,
without a copy of the file. The table contains no weights: only the difference, in float32 ulps, between the publisher's
folding factor of each channel and the correctly rounded one.
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
class CorrectionTable:
    """The corrections that give a published file.

    Attributes:
        graph_sha256: of the frozen graph whose BatchNorm is folded.
        toolchain: the toolchain that made the file, as `--toolchain` names it.
        model_sha256: of the published file.
        shifts: layer -> correction of each folding factor in float32 ulps, int (channels,). A layer whose BatchNorm was
            folded before the graph was frozen is not in it: its constants are those of the graph.
    """

    graph_sha256: str
    toolchain: str
    model_sha256: str
    shifts: Mapping[str, Array] = field(repr=False)


def to_json(table: CorrectionTable) -> str:
    """Readable JSON, with one line for each layer."""
    return readable_json(
        {
            "format": _FORMAT,
            "graph_sha256": table.graph_sha256,
            "toolchain": table.toolchain,
            "model_sha256": table.model_sha256,
            "shifts": {layer: " ".join(map(str, shifts.tolist())) for layer, shifts in table.shifts.items()},
        }
    )


def from_json(text: str, source: str) -> CorrectionTable:
    """Reads what `to_json` wrote.

    Raises:
        InputError: the text is not such a table. `rebuild.by_table` checks that a table fits its graph.
    """
    try:
        document = read_document(text, _FORMAT)
        shifts = {str(layer): np.array(line.split(), np.int64) for layer, line in document["shifts"].items()}
        for layer, values in shifts.items():
            if ((values < -FACTOR_ULPS) | (values > FACTOR_ULPS)).any():
                raise ValueError(f"a correction of more than {FACTOR_ULPS} ulps in {layer}")
        for name in ("graph_sha256", "model_sha256"):
            if not is_sha256(document[name]):
                raise ValueError(f"no SHA-256 in {name}")
        return CorrectionTable(document["graph_sha256"], str(document["toolchain"]), document["model_sha256"], shifts)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            expected=f"{source} to be a table of corrections to BatchNorm folding factors ({_FORMAT})",
            found=document_fault(error),
            next_step="give a table that `python -m pipeline prove --record` wrote",
        ) from error

"""Tables of moves: recorded from a file folded on another CPU, read back, and enough to make the same file again."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.console import NoBars
from pipeline.interface.views import prove as prove_view
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from recreate_model.compare.verdict import Verdict
from recreate_model.floats.frozen_graph import as_values, read_layers
from recreate_model.network import architecture
from recreate_model.prove import corrections, toolchain
from recreate_model.prove.channels import FACTOR_ULPS
from recreate_model.prove.prove import Checkpoint, Proof, prove, table_of
from recreate_model.prove.rebuild import by_table
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import CheckError, InputError
from tests import official_layout
from tests.conftest import SMALL
from tests.published_models import Order, publish
from tests.test_prove import folded_elsewhere

LAYERS = architecture.layers(SMALL)


@pytest.fixture(scope="module")
def checkpoint(small_weights: dict[str, Array], tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """An archive with a graph as in the official one: Conv2D folded before freezing, depthwise with BatchNorm."""
    graph = official_layout.official_form_graph(SMALL, small_weights)
    archive = tmp_path_factory.mktemp("archive") / f"{SMALL.name}.tgz"
    official_layout.write_archive(archive, SMALL, small_weights, graph=graph)
    request = Request(model="0.35_96", checkpoint=str(archive), images="procedural", calib=1, limit=0)
    recipe, machine = resolve(request, NoBars(), may_fetch=False)
    return prove_view.checkpoint(recipe, machine.checkpoint)


@pytest.fixture(scope="module")
def elsewhere(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file made from that graph on a CPU whose depthwise factors are up to 2 ulps off."""
    assert checkpoint.frozen_graph is not None
    folder = tmp_path_factory.mktemp("published")
    order = Order("one picture")
    published = publish(checkpoint.frozen_graph, SMALL, [order], folder)[order]
    generator = np.random.default_rng(4)
    return folded_elsewhere(_graph_values(checkpoint), published, [lambda count: generator.integers(-2, 3, count)])[0]


def _graph_values(checkpoint: Checkpoint) -> Checkpoint:
    """Returns the checkpoint with the constants of its graph, so that only layers the converter folds are moved."""
    assert checkpoint.frozen_graph is not None
    return replace(checkpoint, values=as_values(read_layers(checkpoint.frozen_graph, SMALL, "the graph")))


@pytest.fixture(scope="module")
def proved(elsewhere: bytes, checkpoint: Checkpoint) -> Proof:
    """The proof of that file."""
    return prove(elsewhere, "the model", checkpoint, None, lambda chain: Path(sys.executable))


@pytest.fixture(scope="module")
def table(elsewhere: bytes, proved: Proof) -> corrections.CorrectionTable:
    """The table recorded from that file."""
    return table_of(elsewhere, proved)


def test_a_recorded_table_is_enough_to_make_the_file(
    table: corrections.CorrectionTable, proved: Proof, elsewhere: bytes
) -> None:
    """The table is written, read back and applied to the graph and the ranges alone."""
    conversion = proved.attempts[-1].conversion
    assert conversion is not None
    read = corrections.from_json(corrections.to_json(table), "the table")
    model, moved = by_table(read.shifts, conversion)
    assert model == elsewhere
    assert moved == proved.attempts[-1].corrections
    assert 0 < moved.ulps <= 2


def test_a_table_holds_a_shift_for_each_channel_that_the_converter_folds(
    table: corrections.CorrectionTable, checkpoint: Checkpoint, elsewhere: bytes
) -> None:
    """It has no layers that were folded before freezing, and no weights."""
    assert checkpoint.frozen_graph is not None
    assert {name: len(shifts) for name, shifts in table.shifts.items()} == {
        layer.name: layer.outputs for layer in LAYERS if layer.depthwise
    }
    assert table.graph_sha256 == digest_bytes(checkpoint.frozen_graph)
    assert table.model_sha256 == digest_bytes(elsewhere)
    assert table.toolchain == "today"
    assert len(corrections.to_json(table)) < 3 * sum(layer.outputs for layer in LAYERS if layer.depthwise) + 3000


def test_one_changed_shift_makes_another_file(
    table: corrections.CorrectionTable, proved: Proof, elsewhere: bytes
) -> None:
    """So a table that was tampered with does not give the recorded file."""
    conversion = proved.attempts[-1].conversion
    assert conversion is not None
    name = next(iter(table.shifts))
    changed = {**table.shifts, name: table.shifts[name] + 3}
    assert by_table(changed, conversion)[0] != elsewhere


def test_a_table_of_another_network_is_refused(table: corrections.CorrectionTable, proved: Proof) -> None:
    """A layer is missing, or has one channel more; the error names it."""
    conversion = proved.attempts[-1].conversion
    assert conversion is not None
    first, *rest = table.shifts
    with pytest.raises(InputError, match=f"channels of {first}; found none"):
        by_table({name: table.shifts[name] for name in rest}, conversion)
    with pytest.raises(InputError, match=first):
        by_table({**table.shifts, first: np.append(table.shifts[first], 0)}, conversion)


def test_a_file_that_was_not_reproduced_has_no_table(checkpoint: Checkpoint, elsewhere: bytes) -> None:
    """Without a toolchain there is no conversion for the shifts to refer to."""
    found = prove(elsewhere, "the model", checkpoint, (), lambda chain: Path(sys.executable))
    assert found.verdict is Verdict.CONSISTENT
    with pytest.raises(CheckError, match="no table was written"):
        table_of(elsewhere, found)


def _without(name: str) -> Any:
    return lambda document: document.pop(name)


FAULTS = {
    "another format": lambda document: document.update(format="activation-ranges/1"),
    "no shifts": _without("shifts"),
    "no graph": _without("graph_sha256"),
    "a digest that is none": lambda document: document.update(model_sha256="x"),
    "a word for a shift": lambda document: document["shifts"].update(layer="0 one"),
    "the lowest whole number": lambda document: document["shifts"].update(layer=str(-(2**63))),
    "a shift beyond the tolerance": lambda document: document["shifts"].update(layer=f"{FACTOR_ULPS + 1}"),
    "a list for the layers": lambda document: document.update(shifts=["0 0"]),
    "numbers for text": lambda document: document["shifts"].update(layer=[0, 1]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_malformed_table_is_refused_in_one_line(fault: str, table: corrections.CorrectionTable) -> None:
    """The error has the expected format and the command that writes a table."""
    document = json.loads(corrections.to_json(table))
    FAULTS[fault](document)
    with pytest.raises(InputError, match=r"folding-moves/1.*prove --record") as raised:
        corrections.from_json(json.dumps(document), "the table")
    assert "\n" not in str(raised.value)


def test_a_toolchain_lists_the_files_its_result_depends_on() -> None:
    """They are the lock file of its packages and the script that runs in it."""
    assert set(toolchain.parts("2.5.0")) == {"tensorflow-2.5.0.lock", "convert_job.py"}

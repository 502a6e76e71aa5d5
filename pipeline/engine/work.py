"""What a stage is, and what it is given to work with. Frozen values, so that no stage can change another's input."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.console import Progress
from recreate_model.recipe import Recipe
from recreate_model.support.digest import Json

if TYPE_CHECKING:
    from calibration.parallel.workers import Workers
    from calibration.pictures.sources import Source
    from calibration.ranges.range_table import Ranges
    from pipeline.ethos_u.config import VelaConfig


@dataclass(frozen=True)
class Machine:
    """Where the recipe's contents lie on this machine, and how to work on it. Nothing here changes a byte.

    Attributes:
        out: folder that holds the build folders.
        checkpoint: the file with the float weights, or the INT8 file that was given; None for seeded weights.
        background: the INT8 model that class 0 is taken from; None where none is given.
        source: of the recipe's pictures.
        ranges: the range table given; None where ranges are measured.
        workers: the processes that measure, evaluate and compile.
        vela_config: the user's configuration file for Vela; None where Vela's own is used.
        published: a model or folder beside or in which the published files may lie; None for none.
        moves: a file with a table of moves; None for none.
    """

    out: Path
    checkpoint: Path | None
    source: Source
    ranges: Ranges | None
    workers: Workers
    progress: Progress
    vela_config: VelaConfig | None = None
    published: Path | None = None
    moves: Path | None = None
    background: Path | None = None


@dataclass(frozen=True)
class Work:
    """One run of one stage.

    Attributes:
        inputs: every file of the stages this one needs, by its path in the build folder.
        out: an empty folder; what is written here becomes the stage's files, under the same relative paths.
        records: for a witness, what the lock says of each stage it needs, in their order; empty for the others.
    """

    recipe: Recipe
    machine: Machine
    inputs: Mapping[str, Path]
    out: Path
    records: Mapping[str, Json] = field(default_factory=dict)

    @property
    def model(self) -> bytes:
        """The INT8 model's bytes, for the stages that need the stage that makes it."""
        return self.inputs[model_file(self.recipe)].read_bytes()

    def read(self, path: str) -> str:
        """One of the input files as text."""
        return self.inputs[path].read_text(encoding="utf-8")

    def read_json(self, path: str) -> Json:
        """One of the input files as JSON."""
        return json.loads(self.read(path))

    def write(self, path: str, content: str | bytes) -> None:
        """Writes one of the stage's files."""
        target = self.out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)


@dataclass(frozen=True)
class Stage:
    """One row of the table of stages.

    Attributes:
        needs: names of the stages whose files this one reads.
        reads: the slice of the recipe this one depends on, as plain JSON.
        tools: distributions whose versions can change the result.
        optional_tools: the same, of distributions that may be missing; the result says so where they are.
        verdict: the JSON file of this stage whose `holds` says whether its claims hold; empty for a stage with none.
        on_demand: whether it is run only when it is named, and then always: it looks at the tools of this machine.
            golden.json does not hold its files.
        wants: stages on demand whose files are inputs too, while they are up to date.
        witness: whether its files tell how those of the stages it needs were made, with which code and tools. Then the
            keys of those stages are part of its own, and golden.json does not hold its files: code changes with every
            commit, and the versions of tools with the Python.
        reports: whether it says how other stages worked, and reads their files of REPORTED. Of the others these are no
            inputs, so a stage that gave the same result in another way makes nothing stale but reports.
        dispensable: whether the build goes on without this stage's files, with the reason in their place, where the
            stage refuses the model by an InputError, or what it would make of it does not compute the same.
    """

    name: str
    summary: str
    needs: tuple[str, ...]
    reads: Callable[[Recipe], Json]
    tools: tuple[str, ...] = ()
    optional_tools: tuple[str, ...] = ()
    verdict: str = ""
    on_demand: bool = False
    wants: tuple[Stage, ...] = ()
    witness: bool = False
    reports: bool = False
    dispensable: bool = False

    @property
    def module(self) -> str:
        """Full name of the module in `steps/` that runs this stage."""
        return f"{__package__.removesuffix('.engine')}.steps.{self.name.replace('-', '_')}"


def model_file(recipe: Recipe) -> str:
    """Path of the INT8 model in the build folder."""
    return f"{recipe.name}.tflite"


def float_model_file(recipe: Recipe) -> str:
    """Path of the float model in the build folder."""
    return f"float/{recipe.network}_float.tflite"


def archive_graph_file(recipe: Recipe) -> str:
    """Path of the checkpoint's own frozen graph in the build folder, where the recipe converts it."""
    return f"float/{recipe.network}_frozen.pb"


def left_out_file(stage: str) -> str:
    """Path of the reason why a stage's files are no part of the build."""
    return f"left_out/{stage}.json"


CHECKPOINT_FILE = "checkpoint.json"
GIVEN_FILE = "given.json"
FREEZE_FILE = "float/freeze.json"
CONVERSION_FILE = "conversion.json"
REPORTED = frozenset({CONVERSION_FILE})  # files that say how a stage worked, and not what it made
MANIFEST_FILE = "calibration/manifest.json"
RANGES_FILE = "calibration/ranges.json"
VERIFY_FILE = "verify.json"
EVALUATE_FILE = "evaluate.json"
VELA_FILE = "ethos_u/vela.json"
LABELS_FILE = "labels.txt"
CORTEX_M_FOLDER = "cortex_m"
STANDALONE_FOLDER = "cortex_m/standalone"
PLATFORMS_FILE = "platforms.json"
PROVENANCE_FILE = "provenance.intoto.json"

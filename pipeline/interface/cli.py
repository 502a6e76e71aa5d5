"""The command line: arguments to a request, errors to one line and an exit status. Nothing heavy is imported here.

Exit status: 0 done, 1 a check failed, 2 bad usage, 3 bad input, 4 a resource could not be had, 5 a tool failed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from logging import Formatter as StandardFormatter
from logging import LogRecord
from pathlib import Path
from typing import NoReturn

from absl import app, logging
from absl.flags import argparse_flags

from pipeline.engine.stages import STAGES
from pipeline.interface.commands import (
    Command,
    Variant,
    aarch64,
    attest_check,
    check,
    diff,
    firmware,
    prove,
    published,
    recover,
    stage,
    vela_c_array,
    vela_fit,
)
from pipeline.request.request import RECIPES
from recreate_model.recipe import Preprocess
from recreate_model.support.errors import PipelineError, ToolError, UsageError

_EPILOG = (
    "exit status: 0 done, 1 a check failed, 2 bad usage, 3 bad input, 4 a resource could not be had, 5 a tool failed"
)
_STAGE_NAMES = tuple(stage.name for stage in STAGES)
_COMMANDS: dict[str, Command] = {
    "diff": diff,
    "recover": recover,
    "prove": prove,
    "check": check,
    "aarch64": aarch64,
}
_BUILD_COMMANDS: dict[str, Command] = {"firmware": firmware}  # these take the options of a build, too
_VARIANTS: dict[str, tuple[Variant, ...]] = {
    "attest": (attest_check,),
    "verify": (published,),
    "vela": (vela_fit, vela_c_array),
}
_TRACEBACK = "RECREATE_MODEL_TRACEBACK"


def main() -> None:
    """Entry point of `python -m pipeline`."""
    app.run(_run, flags_parser=_parse)


class _Parser(argparse_flags.ArgumentParser):
    """Says what is wrong in one line, as every other error is said; argparse would print the usage above it."""

    def error(self, message: str) -> NoReturn:
        found = " ".join(message.split())
        line = f"expected a command line as `{self.prog} --help` shows it; found {found}; done: nothing was run"
        self.exit(UsageError.status, f"error: {line}; next: {self.prog} --help\n")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(  # type: ignore[no-untyped-call]  # absl ships no types here
        prog="python -m pipeline",
        description="MobileNetV2 from float checkpoint to INT8 model and deployables, the same bytes every time.",
        epilog=_EPILOG,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary, epilog=_EPILOG)
        added.add_argument("--json", action="store_true", help="print JSON instead of tables")
        added.add_argument("--quiet", action="store_true", help="print warnings and errors and nothing else")
        return added

    summaries = {"all": "every stage but `platforms`, in order", **{row.name: row.summary for row in STAGES}}
    for name, summary in summaries.items():
        _add_build_arguments(added := command(name, summary), published=name != "verify")
        added.add_argument("--files", action="store_true", help="list every file of these stages, with size and SHA-1")
        for variant in _VARIANTS.get(name, ()):
            variant.add_arguments(added)
    _add_build_arguments(command("status", "which stages are up to date"))
    explain = command("explain", "why a stage would run again")
    explain.add_argument("stage", choices=_STAGE_NAMES, metavar="STAGE", help=", ".join(_STAGE_NAMES))
    _add_build_arguments(explain)
    for name, module in {**_BUILD_COMMANDS, **_COMMANDS}.items():
        module.add_arguments(added := command(name, module.SUMMARY))
        if name in _BUILD_COMMANDS:
            _add_build_arguments(added)
    return parser.parse_args(list(argv[1:]))


def _add_build_arguments(parser: argparse.ArgumentParser, published: bool = True) -> None:
    """The options of a build.

    Args:
        published: whether `--published` is one of them; `verify` has one of its own.
    """
    add = parser.add_argument
    add(
        "--of",
        type=Path,
        metavar="MODEL",
        help="start from this full-integer INT8 .tflite instead, and make everything that follows from a model",
    )
    add("--model", metavar="WIDTH_RESOLUTION", help="member of the family, such as 0.35_96 (default 1.0_224)")
    add(
        "--checkpoint",
        metavar="auto|official|seeded|PATH",
        help="float weights: an archive of the official layout, the same floats as a frozen graph (.pb), a float "
        ".tflite, a Keras file (.h5, .keras) or a SavedModel folder, or untrained ones made from a seed "
        "(default auto: the official archive, else seeded)",
    )
    add(
        "--recipe",
        choices=RECIPES,
        help="today: TensorFlow as installed, ranges measured; published: the published model's own converter and "
        "recorded ranges, for its SHA-1 (default today)",
    )
    add(
        "--moves",
        type=Path,
        metavar="FILE",
        help="for --recipe published: the folding factors that `prove --record` wrote, for CPUs that fold otherwise",
    )
    if published:
        add(
            "--published",
            type=Path,
            metavar="PATH",
            help="the published model, or a folder with it and its test vector (default: fetched where needed)",
        )
    add(
        "--background",
        type=Path,
        metavar="MODEL",
        help="take class 0, which the checkpoints of Keras lack, from this INT8 .tflite (default: it sees nothing)",
    )
    add(
        "--images",
        metavar="auto|procedural|PATH|tfds:NAME",
        help="pictures: a folder of them, a folder or file of TFRecords, a TFDS data set, or made from a seed "
        "(default auto: what IMAGENET_DIR names, else procedural)",
    )
    add(
        "--labels",
        type=Path,
        metavar="FILE",
        help="for a folder: rows of a picture's name and its class (default val.txt in it; synset folders need none)",
    )
    add(
        "--label-base",
        type=int,
        choices=(0, 1),
        help="number of the first class in a label file or TFRecords (default: found out, or refused)",
    )
    add(
        "--split",
        metavar="NAME",
        help="which split of TFRecords or a TFDS data set (default: the only one, or validation)",
    )
    ranges = parser.add_mutually_exclusive_group()
    ranges.add_argument("--calib", type=int, metavar="N", help="pictures to calibrate on (default 100)")
    ranges.add_argument(
        "--manifest", type=Path, metavar="FILE", help="calibrate on the pictures that a calibration/manifest.json lists"
    )
    ranges.add_argument(
        "--ranges", type=Path, metavar="FILE", help="take the activation ranges from this table, and measure none"
    )
    add("--seed", type=int, metavar="N", help="of the choice of pictures: another one takes others (default 0)")
    add("--limit", type=int, metavar="N", help="pictures to evaluate on, at most (default 200)")
    add(
        "--preprocess",
        dest="crop",
        choices=Preprocess.CROPS,
        help="how pictures are cut to the input's size (default central-crop)",
    )
    add(
        "--range-method",
        metavar="METHOD",
        help="how outliers are cut off ranges: min-max (not at all), percentile:P, mse or entropy (default min-max)",
    )
    add("--targets", metavar="NAME[,NAME...]", help="Ethos-U targets, such as ethos-u55-128 (default all eleven)")
    add(
        "--optimise",
        choices=("speed", "size", "both"),
        help="what Vela optimises for; size saves SRAM, and its variants lie in folders of their own (default speed)",
    )
    add(
        "--vela-config",
        type=Path,
        metavar="FILE",
        help="a Vela configuration (.ini) of your own, whose sections --targets then names",
    )
    add("--out", type=Path, metavar="FOLDER", help="where build folders are made (default artifacts)")
    add(
        "--jobs",
        type=int,
        metavar="N",
        help="processes to work with (default one for each processor); not with --cluster",
    )
    add("--cluster", metavar="tcp://HOST:PORT", help="work on a Dask cluster at this scheduler's address")
    add(
        "--force",
        action="store_true",
        help="run the named stage, or with `all` every stage, even if it is up to date or other options made the build",
    )


def _run(arguments: argparse.Namespace) -> int:
    logging.use_absl_handler()
    logging.get_absl_handler().setFormatter(_Formatter())
    logging.set_verbosity(logging.WARNING)
    # TensorFlow's C++ log is for its developers; what fails is in our errors.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # `timeout` and CI send it; leaving as for Ctrl-C cleans up, and ends the workers.
    signal.signal(signal.SIGTERM, _stop)
    try:
        return _dispatch(arguments)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:
        # Whoever reads the output has had enough, as `head` has; the flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt as stop:
        print("stopped: what was finished is kept, run the same command to go on", file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    except Exception as error:
        if os.environ.get(_TRACEBACK):
            raise
        found = " ".join(f"{type(error).__name__}: {error}".split())
        print(
            f"error: expected no defect in this program; found {found}; done: finished stages are kept; "
            f"next: run again with {_TRACEBACK}=1 and report what it prints",
            file=sys.stderr,
        )
        return ToolError.status


def _stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt(number)


class _Formatter(StandardFormatter):
    """`warning: text`, without the time and place that help nobody here."""

    def format(self, record: LogRecord) -> str:
        return f"{record.levelname.lower()}: {record.getMessage()}"


def _dispatch(arguments: argparse.Namespace) -> int:
    if module := {**_BUILD_COMMANDS, **_COMMANDS}.get(arguments.command):
        return module.run(arguments)
    variants = [row for row in _VARIANTS.get(arguments.command, ()) if getattr(arguments, row.FLAG) is not None]
    if len(variants) > 1:
        flags = [f"--{variant.FLAG.replace('_', '-')}" for variant in variants]
        raise UsageError(expected=f"one of {', '.join(flags)}", found="more", next_step=f"leave {flags[0]} out")
    for variant in variants:
        return variant.run(arguments)
    if arguments.command in ("status", "explain"):
        return stage.inspect(arguments)
    return stage.build(arguments)

"""The program: runs one command, and turns errors into one line and an exit status. Nothing heavy is imported here.

Exit status: 0 done, 1 a check failed, 2 invalid usage, 3 bad input, 4 a resource is not available, 5 a tool failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from absl import app, logging

from pipeline.console import for_this_program
from pipeline.interface.arguments import MODULES, VARIANTS, parse
from pipeline.interface.commands import stage
from recreate_model.support.errors import PipelineError, ToolError, UsageError

_TRACEBACK = "RECREATE_MODEL_TRACEBACK"


def main() -> None:
    """Entry point of `python -m pipeline`, and of the command that an installed copy has."""
    app.run(_run, flags_parser=_parse)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    try:
        return parse(argv)
    except UsageError as error:
        sys.exit(_report(error, "--json" in argv))


def _run(arguments: argparse.Namespace) -> int:
    logging.use_absl_handler()
    logging.get_absl_handler().setFormatter(_JsonFormatter() if arguments.json else _Formatter())
    logging.set_verbosity(logging.WARNING)
    # TensorFlow's C++ log is for its developers; what fails is in our errors.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # `timeout` and CI send it; leaving as for Ctrl-C cleans up, and ends the workers.
    signal.signal(signal.SIGTERM, _stop)
    try:
        return _dispatch(arguments)
    except PipelineError as error:
        return _report(error, arguments.json)
    except BrokenPipeError:
        # Whoever reads the output has had enough, as `head` has; the flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt as stop:
        print("stopped: finished stages are kept; run the same command to continue", file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    except Exception as error:
        if os.environ.get(_TRACEBACK):
            raise
        defect = ToolError(
            expected="no defect in this program",
            found=f"{type(error).__name__}: {error}",
            done="finished stages are kept",
            next_step=f"run again with {_TRACEBACK}=1 and report what it prints",
        )
        return _report(defect, arguments.json)


def _report(error: PipelineError, as_json: bool) -> int:
    """Prints an error on standard error, and returns the exit status."""
    if as_json:
        print(for_this_program(json.dumps({"error": error.document()})), file=sys.stderr)
    else:
        print(_fitted(for_this_program(f"error: {error}")), file=sys.stderr)
    return error.status


def _fitted(line: str) -> str:
    """A line as a terminal shows it, with no word split; elsewhere it stays one line."""
    if not sys.stderr.isatty():
        return line
    width = shutil.get_terminal_size().columns
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)


def _stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt(number)


class _Formatter(logging.PythonFormatter):
    """`warning: text`, without time and place."""

    def format(self, record: Any) -> str:
        return _fitted(for_this_program(f"{record.levelname.lower()}: {record.getMessage()}"))


class _JsonFormatter(logging.PythonFormatter):
    """The same as a JSON object, so that with `--json` all of standard error is one object a line."""

    def format(self, record: Any) -> str:
        return for_this_program(json.dumps({record.levelname.lower(): record.getMessage()}))


def _dispatch(arguments: argparse.Namespace) -> int:
    if module := MODULES.get(arguments.command):
        return module.run(arguments)
    variants = [row for row in VARIANTS.get(arguments.command, ()) if getattr(arguments, row.FLAG) is not None]
    if len(variants) > 1:
        names = [f"--{variant.FLAG.replace('_', '-')}" for variant in variants]
        raise UsageError(expected=f"one of {', '.join(names)}", found="more", next_step=f"leave {names[0]} out")
    for variant in variants:
        return variant.run(arguments)
    if arguments.command in ("status", "explain"):
        return stage.inspect(arguments)
    return stage.build(arguments)

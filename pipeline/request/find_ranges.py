"""From `--ranges` and `--range-method` to the activation ranges of a build, or to how they are measured."""

from __future__ import annotations

from pathlib import Path

from calibration.ranges.range_methods import RangeMethod
from calibration.ranges.range_table import Ranges, from_json
from pipeline.engine import user_files
from pipeline.request import published_recipe
from pipeline.request.request import PUBLISHED, Request, meant
from recreate_model.recipe import MIN_MAX
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import UsageError

_RANGE_METHODS = (MIN_MAX, "percentile:99.99", "mse", "entropy")  # examples, for an error


def find_range_method(request: Request) -> str:
    """The range method in its canonical spelling.

    Raises:
        UsageError: an unknown method, or one beside a range table.
    """
    wanted = request.range_method
    if wanted is None:
        return MIN_MAX
    if request.ranges:
        raise UsageError(
            expected="--range-method or --ranges, as a table has its ranges already",
            found="both",
            next_step="leave one of them out",
        )
    try:
        return str(RangeMethod.parse(wanted))
    except ValueError as error:
        raise UsageError(
            expected="--range-method to be min-max, percentile:P with 0 < P <= 100, mse or entropy",
            found=str(error),
            next_step=meant(wanted, _RANGE_METHODS) or f"give --range-method {_RANGE_METHODS[1]}",
        ) from error


def find_table(request: Request) -> tuple[Ranges | None, str]:
    """The range table of a request and its SHA-256, if it has one. `calibrate` checks that it fits the network.

    Raises:
        InputError: the file is not a range table.
    """
    if request.recipe == PUBLISHED:
        return published_recipe.recorded_ranges()
    return read_table(request.ranges, f"--ranges {request.ranges}") if request.ranges else (None, "")


def read_table(path: Path, source: str) -> tuple[Ranges, str]:
    """The range table in a file, and the file's SHA-256.

    Args:
        source: what to call the file in an error.

    Raises:
        InputError: the file cannot be read, or is not a range table.
    """
    wanted = f"{source} to be a range table"
    text = user_files.read_text(path, wanted, "give a ranges.json that `python -m pipeline calibrate` wrote")
    return from_json(text, str(path)), digest_bytes(text.encode())

"""One line for each stage of a build as it ends, and one for those that were up to date.

They are progress: on standard error where that is a terminal, and nowhere else, so that an error is one line there.
"""

from __future__ import annotations

import sys
import time

from absl import logging

from pipeline.engine.runner import Freshness, Outcome
from pipeline.interface.views import results
from pipeline.request.find_pictures import warn_of_procedural
from pipeline.request.opened import Opened

_LOOKING = ("evaluate", "platforms")  # stages that use pictures; calibrate does, unless it is given ranges
_NAMED = 60  # characters of names in a line of stages that are up to date; more are counted


class StageLines:
    """The callbacks of `runner.build`.

    Args:
        show: whether lines are printed at all. Warnings are printed in any case.
    """

    def __init__(self, build: Opened, show: bool) -> None:
        self._build = build
        self._show = show and sys.stderr.isatty()
        self._unchanged: list[str] = []
        self._start = 0.0
        self._warned = False

    def begins(self, freshness: Freshness) -> None:
        """A stage is about to run."""
        self.flush()
        announce(freshness)
        measured = self._build.recipe.calibration.kind != "ranges"
        looks = freshness.stage in _LOOKING or (freshness.stage == "calibrate" and measured)
        if looks and not self._warned:
            warn_of_procedural(self._build.recipe, self._build.request)
            self._warned = True
        self._start = time.monotonic()

    def ends(self, outcome: Outcome) -> None:
        """A stage is up to date, whether it ran or not."""
        if outcome.state == "reused" and outcome.holds:
            self._unchanged.append(outcome.stage)
            return
        self.flush()
        seconds = "up to date" if outcome.state == "reused" else f"{time.monotonic() - self._start:.1f} s"
        state = outcome.state if outcome.holds else "failed"
        figure = ""
        if outcome.state != "left out":
            figure = results.figure(outcome.stage, self._build.folder, self._build.recipe, outcome.outputs)
        self._print(f"{outcome.stage:<10}  {state:<8}  {figure:<44}  {seconds:>10}")

    def flush(self) -> None:
        """Says which stages were up to date since the last line."""
        names = ", ".join(self._unchanged)
        if len(names) > _NAMED:
            names = f"{self._unchanged[0]} to {self._unchanged[-1]}, {len(self._unchanged)} stages"
        if names:
            self._print(f"up to date: {names}")
        self._unchanged.clear()

    def _print(self, line: str) -> None:
        if self._show:
            print(line, file=sys.stderr, flush=True)


def announce(freshness: Freshness) -> None:
    """Says when a stage's files are about to be replaced because the options differ."""
    changed = [reason.removeprefix("recipe ") for reason in freshness.reasons if reason.startswith("recipe ")]
    if changed:
        logging.warning("%s runs again, as the options differ (%s)", freshness.stage, "; ".join(changed))

"""Plots inferences per second against SRAM for all Ethos-U variants, as SVG with the same bytes on every machine.

The plot does not depend on the user's matplotlib settings, fonts or display. Text is drawn as outlines, so it looks the
same everywhere. Not for: the figures themselves (`variant`).
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.ethos_u.targets import variant_name
from pipeline.ethos_u.variant import Variant
from recreate_model.recipe import Optimization

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZE = (8.0, 5.0)  # inches
_FONT = 8.0  # points
_GAP = 9.5  # points between the centers of two labels
_OFFSET = 14.0  # points from the rightmost mark of a column to its labels
_COLUMN = 80.0  # width of a column of labels, in points
# The colors of Okabe and Ito, distinguishable with any form of color blindness.
_COLORS = {"u55": "#0072B2", "u65": "#D55E00", "u85": "#009E73"}
_MARKERS = "osD^vPX*<>"
# The salt makes the identifiers in the file deterministic.
_SETTINGS = {"svg.hashsalt": "ethos-u", "svg.fonttype": "path", "font.family": "DejaVu Sans", "font.size": _FONT}
_POINTS = 72.0  # in an inch
_MARGIN = 20.0  # points between a mark and the end of an axis
_SMALLEST = 1.0  # KiB or inferences per second; zero has no logarithm
_TICKS = [digit * 10**power for power in range(7) for digit in (1, 2, 5)]


@dataclass(frozen=True)
class Point:
    """A mark and its label, in points from the lower left corner of the axes."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Label:
    """The label of a point: `x` is its left edge and `y` its center, in points."""

    point: Point
    x: float
    y: float


def place(points: Sequence[Point], height: float) -> list[Label]:
    """Places labels in columns to the right of their points without overlap; ordered by column, then bottom to top.

    Points closer to each other than the width of a label share a column. In a column each label is as close to the
    height of its point as the other labels allow, and inside the axes if there is room for all.

    Args:
        height: of the axes, in points.
    """
    labels = []
    for column in _columns(points):
        x = max(point.x for point in column) + _OFFSET
        column.sort(key=lambda point: (point.y, point.text))
        for point, y in zip(column, _spread([point.y for point in column], height), strict=True):
            labels.append(Label(point, x, y))
    return labels


def _columns(points: Sequence[Point]) -> list[list[Point]]:
    columns: list[list[Point]] = []
    for point in sorted(points, key=lambda point: point.x):
        if columns and point.x - columns[-1][-1].x < _COLUMN:
            columns[-1].append(point)
        else:
            columns.append([point])
    return columns


def _spread(wanted: Sequence[float], height: float) -> list[float]:
    """Heights at least _GAP apart, in the given order, with the least squared distance from the wanted heights."""
    # Blocks of adjacent labels: the first height and the number of labels. Blocks that overlap merge at their mean.
    blocks: list[tuple[float, int]] = []
    for y in wanted:
        block = (y, 1)
        while blocks and blocks[-1][0] + blocks[-1][1] * _GAP > block[0]:
            first, count = blocks.pop()
            total = count + block[1]
            start = (first * count + (block[0] - count * _GAP) * block[1]) / total
            block = (start, total)
        blocks.append(block)
    heights = [first + number * _GAP for first, count in blocks for number in range(count)]
    # Move labels into the axes, from the bottom and then from the top; if they do not fit, they exceed the top.
    for number, y in enumerate(heights):
        heights[number] = max(y, _GAP / 2 + number * _GAP)
    for number in reversed(range(len(heights))):
        room = height - _GAP / 2 - (len(heights) - 1 - number) * _GAP
        heights[number] = max(min(heights[number], room), _GAP / 2 + number * _GAP)
    return heights


def plot(build: str, variants: Sequence[Variant]) -> str:
    """The plot as SVG text."""
    with _matplotlib():
        text = io.StringIO()
        # Without date and version, the file changes only if the picture does.
        figure(build, variants).savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


@contextlib.contextmanager
def _matplotlib() -> Iterator[None]:
    """Matplotlib with default settings, without log messages and without files in the user's home folder."""
    with tempfile.TemporaryDirectory(prefix="recreate_model-") as scratch:
        # The folder of its settings and font cache, and its backend: an unknown backend in the environment is an error.
        variables = {"MPLCONFIGDIR": scratch, "MPLBACKEND": "svg"}
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        # Matplotlib logs with the standard library.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        try:
            import matplotlib

            with matplotlib.rc_context():
                matplotlib.rcdefaults()
                matplotlib.rcParams.update(_SETTINGS)
                yield
        finally:
            for name, value in before.items():
                del os.environ[name]
                if value is not None:
                    os.environ[name] = value


def figure(build: str, variants: Sequence[Variant]) -> Figure:
    """The plot as a figure; it needs no display."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    width, height = _SIZE[0], max(_SIZE[1], len(variants) * _GAP / _POINTS + 1.5)
    drawn = Figure(figsize=(width, height))
    axes = drawn.add_axes((0.6 / width, 0.85 / height, 1 - 0.8 / width, 1 - 1.25 / height))
    area = (width - 0.8) * _POINTS, (height - 1.25) * _POINTS
    across = _Scale.over([variant.sram_needed_kib for variant in variants], area[0], _OFFSET + _COLUMN)
    up = _Scale.over([variant.inferences_per_second for variant in variants], area[1], _MARGIN)
    axes.set_title(f"{build} on Ethos-U, as Vela {variants[0].vela_version} estimates it", loc="left")
    for axis, scale, text in (
        (axes.xaxis, across, "SRAM in KiB, logarithmic"),
        (axes.yaxis, up, "inferences per second, logarithmic"),
    ):
        ticks = [tick for tick in _TICKS if 0 <= scale.at(tick) <= scale.length]
        axis.set_ticks([scale.at(tick) for tick in ticks], labels=[f"{tick:,}" for tick in ticks])
        axis.set_label_text(text)
    axes.set_xlim(0, area[0])
    axes.set_ylim(0, area[1])
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)

    modes = list(dict.fromkeys(variant.target.memory_mode for variant in variants))
    marker = {mode: _MARKERS[number % len(_MARKERS)] for number, mode in enumerate(modes)}
    points = []
    for variant in variants:
        family = variant.target.accelerator.split("-")[1]
        point = Point(across.at(variant.sram_needed_kib), up.at(variant.inferences_per_second), _label(variant))
        points.append(point)
        filled = _COLORS[family] if variant.target.optimize is Optimization.SPEED else "white"
        axes.plot(
            point.x,
            point.y,
            marker[variant.target.memory_mode],
            color=_COLORS[family],
            markerfacecolor=filled,
            zorder=3,
        )
    for label in place(points, area[1]):
        line = ([label.point.x, label.x - 2], [label.point.y, label.y])
        axes.plot(*line, color="#999999", linewidth=0.5, zorder=2)
        axes.text(label.x, label.y, label.point.text, verticalalignment="center_baseline")

    entries = [Line2D([], [], color="#555555", marker=marker[mode], linestyle="", label=mode) for mode in modes]
    if any(variant.target.optimize is Optimization.SIZE for variant in variants):
        entries.append(
            Line2D([], [], color="#555555", marker="o", markerfacecolor="white", linestyle="", label="hollow: for size")
        )
    axes.legend(
        handles=entries, loc="upper left", bbox_to_anchor=(0, -0.55 * _POINTS / area[1]), ncols=5, frameon=False,
        borderaxespad=0, borderpad=0, handletextpad=0.2, columnspacing=1.5,
    )  # fmt: skip
    return drawn


def _label(variant: Variant) -> str:
    """The label of a variant, such as `U55-128` or `U55-128 size`."""
    return variant_name(variant.target).removeprefix("ethos-").replace("_", " ").replace("u", "U", 1)


@dataclass(frozen=True)
class _Scale:
    """A logarithmic axis of `length` points that starts at the value `low`; `unit` points are a factor of e."""

    low: float
    unit: float
    length: float

    @classmethod
    def over(cls, values: Sequence[float], length: float, above: float) -> _Scale:
        """A scale for all values, with a margin of _MARGIN points below the smallest and `above` beyond the largest."""
        smallest, largest = max(min(values), _SMALLEST), max(*values, _SMALLEST)
        # The range must not be empty if all values are equal, so it is at least a factor of 2.
        unit = (length - _MARGIN - above) / max(math.log(largest / smallest), math.log(2))
        return cls(smallest * math.exp(-_MARGIN / unit), unit, length)

    def at(self, value: float) -> float:
        """The position of a value, in points from the start of the axis."""
        return math.log(max(value, _SMALLEST) / self.low) * self.unit

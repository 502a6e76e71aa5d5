"""The order of work: which rows of which layer are computed when, so that little has to be kept.

A segment is a run of layers whose rows are interleaved: as soon as enough rows of one layer are there, the next goes
on, and a row is let go when its last reader has been. Inside a segment a tensor is a ring of a few rows; between
segments it is whole. A segment of one layer is computed at once, which reads its weights once.

`cheapest` merges layers into segments where that lowers the peak, and nowhere else. Not for: addresses (`plan`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.cortex_m.standalone.layers import Layer, Program
from recreate_model.support.arrays import Array

_LONGEST = 16  # layers in a segment that are tried; MobileNetV2 needs six
_NEVER = -1


@dataclass(frozen=True)
class Segment:
    """Layers `first` to `last`, both inside."""

    first: int
    last: int

    @property
    def layers(self) -> range:
        return range(self.first, self.last + 1)

    @property
    def streams(self) -> bool:
        """Whether rows of several layers are interleaved."""
        return self.last > self.first


@dataclass(frozen=True)
class Step:
    """Rows `first` to `end`, which is outside, of one layer's output."""

    layer: int
    first: int
    end: int


@dataclass(frozen=True, eq=False)
class Lifetimes:
    """For each activation and row, the first and the last step at which it must be there; read -1 if at none.

    What was there before is made at -1; what is needed afterwards is read at `steps`.
    """

    made: tuple[Array, ...]
    read: tuple[Array, ...]
    steps: int

    def capacity(self, activation: int) -> int:
        """Rows that must lie in memory at once for no row to overwrite one that is still needed."""
        # Rows that nobody needs are never made; they are the last ones.
        there = self.read[activation] >= self.made[activation]
        made, read = self.made[activation][there], self.read[activation][there]
        # Rows are made in order, so those made before row r is let go are a run that begins at r.
        return int((np.searchsorted(made, read, side="right") - np.arange(len(made))).max(initial=1))


def rows_read(layer: Layer, program: Program, first: int, end: int) -> range:
    """The rows of each input that rows `first` to `end` of the output read."""
    rows = program.activations[layer.inputs[0]].rows
    if layer.kind == "reshape":
        return range(rows)
    return range(max(layer.window.rows(first).start, 0), min(layer.window.rows(end - 1).stop, rows))


def steps(program: Program, segments: Sequence[Segment]) -> Iterator[Step]:
    """Every step, in order; the emitted program takes the same."""
    for segment in segments:
        if segment.streams:
            yield from _streamed(program, segment)
        else:
            yield Step(segment.first, 0, program.rows(segment.first))


def _streamed(program: Program, segment: Segment) -> Iterator[Step]:
    done = dict.fromkeys(segment.layers, 0)
    for row in range(program.rows(segment.last)):
        wanted = {segment.last: row + 1}
        for number in reversed(range(segment.first, segment.last)):
            wanted[number] = max(
                rows_read(program.layers[reader], program, 0, wanted[reader]).stop
                for reader in program.readers(program.layers[number].output)
            )
        for number in segment.layers:
            while done[number] < wanted[number]:
                yield Step(number, done[number], done[number] + 1)
                done[number] += 1


def lifetimes(program: Program, segments: Sequence[Segment]) -> Lifetimes:
    """When each row is made and read for the last time, while these segments, which follow each other, run."""
    first, last = segments[0].first, segments[-1].last
    made = [np.zeros(activation.rows, np.int32) for activation in program.activations]
    read = [np.full(activation.rows, _NEVER, np.int32) for activation in program.activations]
    for before in (program.input, *(layer.output for layer in program.layers[:first])):
        made[before][:] = _NEVER
    count = 0
    for number, step in enumerate(steps(program, segments)):
        layer = program.layers[step.layer]
        made[layer.output][step.first : step.end] = read[layer.output][step.first : step.end] = number
        rows = rows_read(layer, program, step.first, step.end)
        for source in layer.inputs:
            read[source][rows.start : rows.stop] = number
        count = number + 1
    there = (program.input, *(layer.output for layer in program.layers[: last + 1]))
    for activation in there:
        if activation == program.output or any(reader > last for reader in program.readers(activation)):
            read[activation][:] = count
    return Lifetimes(tuple(made), tuple(read), count)


def live_bytes(program: Program, lives: Lifetimes) -> Array:
    """For each step, the bytes of the activations that must be there: no plan can do with less."""
    changes = np.zeros(lives.steps + 2, np.int64)
    for activation, made, read in zip(program.activations, lives.made, lives.read, strict=True):
        np.add.at(changes, np.maximum(made, 0), activation.row_bytes)
        np.add.at(changes, read + 1, -activation.row_bytes)
    return np.cumsum(changes)[: lives.steps]


def cheapest(program: Program) -> tuple[Segment, ...]:
    """The segments with the lowest peak, and among those the ones that read the fewest bytes of weights."""
    count = len(program.layers)
    costs = {
        (first, last): _cost(program, Segment(first, last))
        for first in range(count)
        for last in range(first, min(first + _LONGEST, count))
        if first == last or _closed(program, Segment(first, last))
    }
    peaks = [0]  # the lowest possible one, of the layers before each
    for end in range(1, count + 1):
        peaks.append(min(max(peaks[first], costs[first, end - 1][0]) for first in _starts(costs, end)))
    # Only cuts that a way with that peak leads to; the whole program is one of them.
    ways: dict[int, tuple[int, tuple[Segment, ...]]] = {0: (0, ())}
    for end in range(1, count + 1):
        fitting = [first for first in _starts(costs, end) if first in ways and costs[first, end - 1][0] <= peaks[-1]]
        if fitting:
            # Of equal ways the one with the shortest segments.
            best = min(fitting, key=lambda first: (ways[first][0] + costs[first, end - 1][1], -first))
            reads, segments = ways[best]
            ways[end] = (reads + costs[best, end - 1][1], (*segments, Segment(best, end - 1)))
    return ways[count][1]


def _starts(costs: dict[tuple[int, int], tuple[int, int]], end: int) -> list[int]:
    return [first for first, last in costs if last == end - 1]


def _cost(program: Program, segment: Segment) -> tuple[int, int]:
    """The most bytes that must be there at once while a segment runs, and the bytes of weights it reads."""
    live = live_bytes(program, lifetimes(program, (segment,)))
    scratch = max(
        program.layers[number].scratch_bytes(program.blocks(number, segment.streams)[0]) for number in segment.layers
    )
    calls = {number: program.rows(number) if segment.streams else 1 for number in segment.layers}
    return int(live.max()) + scratch, sum(program.layers[number].weights.size * calls[number] for number in calls)


def _closed(program: Program, segment: Segment) -> bool:
    """Whether nothing but the last layer's output is read outside, and every layer goes on as rows come in."""
    inner = [program.layers[number].output for number in range(segment.first, segment.last)]
    return all(program.layers[number].kind != "reshape" for number in segment.layers) and all(
        output != program.output and set(program.readers(output)) <= set(segment.layers) for output in inner
    )

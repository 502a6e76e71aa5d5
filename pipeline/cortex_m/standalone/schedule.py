"""The execution order: when each row of each layer is computed, chosen to minimize the memory in use.

A segment is a sequence of layers whose rows are interleaved: a layer computes its next row as soon as the rows that it
reads are computed, and a row is released after its last reader. Inside a segment a tensor is a ring buffer of a few
rows; between segments it is complete. A segment of one layer computes all rows at once and reads its weights once.

`cheapest` merges layers into a segment only if that lowers the peak. Not for: memory offsets (`plan`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.cortex_m.standalone.layers import Layer, Program
from recreate_model.support.arrays import Array

_LONGEST = 16  # most layers in a segment; MobileNetV2 needs six
_NEVER = -1


@dataclass(frozen=True)
class Segment:
    """Layers `first` to `last`, inclusive."""

    first: int
    last: int

    @property
    def layers(self) -> range:
        return range(self.first, self.last + 1)

    @property
    def streams(self) -> bool:
        """Whether the segment interleaves the rows of several layers."""
        return self.last > self.first


@dataclass(frozen=True)
class Step:
    """Computes rows `first` to `end`, exclusive, of a layer's output."""

    layer: int
    first: int
    end: int


@dataclass(frozen=True, eq=False)
class Lifetimes:
    """For each activation, the steps at which each row is written and last read: int32 (rows,) each.

    A row that exists before the first step is written at -1. A row that is needed after the last step is read at
    `steps`; a row that is never read, at -1.
    """

    made: tuple[Array, ...]
    read: tuple[Array, ...]
    steps: int

    def capacity(self, activation: int) -> int:
        """How many rows of an activation must be kept so that no row overwrites a live one."""
        # Rows that are never read are never computed; they are the last ones.
        live = self.read[activation] >= self.made[activation]
        made, read = self.made[activation][live], self.read[activation][live]
        # Rows are written in order, so those written before row r is released are consecutive and start at r.
        return int((np.searchsorted(made, read, side="right") - np.arange(len(made))).max(initial=1))


def rows_read(layer: Layer, program: Program, first: int, end: int) -> range:
    """The rows of each input that are read for rows `first` to `end`, exclusive, of the output."""
    rows = program.activations[layer.inputs[0]].rows
    if layer.kind == "reshape":
        return range(rows)
    return range(max(layer.window.rows(first).start, 0), min(layer.window.rows(end - 1).stop, rows))


def steps(program: Program, segments: Sequence[Segment]) -> Iterator[Step]:
    """All steps in execution order; the generated C program runs the same steps."""
    for segment in segments:
        if segment.streams:
            yield from _streamed(program, segment)
        else:
            yield Step(segment.first, 0, program.rows(segment.first))


def _streamed(program: Program, segment: Segment) -> Iterator[Step]:
    """The steps of a segment with interleaved rows."""
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
    """When each row is written and last read while these consecutive segments run."""
    first, last = segments[0].first, segments[-1].last
    made = [np.zeros(activation.rows, np.int32) for activation in program.activations]
    read = [np.full(activation.rows, _NEVER, np.int32) for activation in program.activations]
    for existing in (program.input, *(layer.output for layer in program.layers[:first])):
        made[existing][:] = _NEVER
    count = 0
    for number, step in enumerate(steps(program, segments)):
        layer = program.layers[step.layer]
        made[layer.output][step.first : step.end] = read[layer.output][step.first : step.end] = number
        rows = rows_read(layer, program, step.first, step.end)
        for source in layer.inputs:
            read[source][rows.start : rows.stop] = number
        count = number + 1
    computed = (program.input, *(layer.output for layer in program.layers[: last + 1]))
    for activation in computed:
        if activation == program.output or any(reader > last for reader in program.readers(activation)):
            read[activation][:] = count
    return Lifetimes(tuple(made), tuple(read), count)


def live_bytes(program: Program, lives: Lifetimes) -> Array:
    """For each step, the bytes of all live activations: a lower bound for any plan. int64 (steps,)."""
    changes = np.zeros(lives.steps + 2, np.int64)
    for activation, made, read in zip(program.activations, lives.made, lives.read, strict=True):
        np.add.at(changes, np.maximum(made, 0), activation.row_bytes)
        np.add.at(changes, read + 1, -activation.row_bytes)
    return np.cumsum(changes)[: lives.steps]


def cheapest(program: Program) -> tuple[Segment, ...]:
    """The segments with the lowest peak of memory; among equal ones, those that read the fewest bytes of weights."""
    count = len(program.layers)
    costs = {
        (first, last): _cost(program, Segment(first, last))
        for first in range(count)
        for last in range(first, min(first + _LONGEST, count))
        if first == last or _closed(program, Segment(first, last))
    }
    peaks = [0]  # lowest possible peak of the layers before each index, in bytes
    for end in range(1, count + 1):
        peaks.append(min(max(peaks[first], costs[first, end - 1][0]) for first in _starts(costs, end)))
    # End -> bytes of weights read, and segments, of the best plan of the layers before it within that peak.
    best: dict[int, tuple[int, tuple[Segment, ...]]] = {0: (0, ())}
    for end in range(1, count + 1):
        fitting = [first for first in _starts(costs, end) if first in best and costs[first, end - 1][0] <= peaks[-1]]
        if fitting:
            # Among equal plans, the one whose last segment is shortest.
            start = min(fitting, key=lambda first: (best[first][0] + costs[first, end - 1][1], -first))
            reads, segments = best[start]
            best[end] = (reads + costs[start, end - 1][1], (*segments, Segment(start, end - 1)))
    return best[count][1]


def _starts(costs: dict[tuple[int, int], tuple[int, int]], end: int) -> list[int]:
    """The first layers of all segments that end before layer `end`."""
    return [first for first, last in costs if last == end - 1]


def _cost(program: Program, segment: Segment) -> tuple[int, int]:
    """The peak memory of a segment and the weights that it reads, both in bytes."""
    live = live_bytes(program, lifetimes(program, (segment,)))
    scratch = max(
        program.layers[number].scratch_bytes(program.blocks(number, segment.streams)[0]) for number in segment.layers
    )
    calls = {number: program.rows(number) if segment.streams else 1 for number in segment.layers}
    return int(live.max()) + scratch, sum(program.layers[number].weights.size * calls[number] for number in calls)


def _closed(program: Program, segment: Segment) -> bool:
    """Whether only the last layer's output is read outside, and every layer can work row by row."""
    inner = [program.layers[number].output for number in range(segment.first, segment.last)]
    return all(program.layers[number].kind != "reshape" for number in segment.layers) and all(
        output != program.output and set(program.readers(output)) <= set(segment.layers) for output in inner
    )

"""Where everything lies in the arena: an offset for each activation and for the scratch memory of each segment.

Two things may share memory wherever no row of one is needed while a row of the other lies at the same place, so that
an output can follow its input through memory, and an ADD can write over what it adds. Not for: the order of work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.cortex_m.standalone.layers import PIXELS, Program
from pipeline.cortex_m.standalone.schedule import Lifetimes, Segment, cheapest, lifetimes, live_bytes, steps
from recreate_model.support.arrays import Array

ALIGNMENT = 4  # of every offset, in bytes: scratch memory holds int16


@dataclass(frozen=True)
class Place:
    """An activation in the arena: row r lies at `offset + r % rows * row_bytes`.

    Attributes:
        rows: of the activation that are kept; fewer than it has where they are let go in time.
    """

    offset: int
    rows: int


@dataclass(frozen=True, eq=False)
class Plan:
    """The whole of the static memory.

    Attributes:
        segments: in order; see `schedule`.
        places: of each activation of the program.
        scratch: offset of the scratch memory of each segment.
        blocks: for each layer, how many pixels a convolution widens at a time; 0 where there is nothing to widen.
        arena_bytes: from the first byte in use to the last.
    """

    segments: tuple[Segment, ...]
    places: tuple[Place, ...]
    scratch: tuple[int, ...]
    blocks: tuple[int, ...]
    arena_bytes: int


@dataclass(frozen=True, eq=False)
class _Block:
    """Rows at fixed distances, each needed from step `made` to step `read`, both inside."""

    at: Array  # int64, from the block's own offset
    size: int  # of each row
    made: Array
    read: Array

    @property
    def bytes(self) -> int:
        return int(self.at.max()) + self.size


def plan(program: Program) -> Plan:
    """The plan of a program, always the same one."""
    segments = cheapest(program)
    lives = lifetimes(program, segments)
    blocks = _pixel_blocks(program, segments, lives)
    activations = [_activation_block(program, lives, number) for number in range(len(program.activations))]
    scratch = list(_scratch_blocks(program, segments, blocks))
    offsets = _placed([*activations, *scratch], _may_meet(program, len(activations) + len(scratch)))
    places = tuple(Place(offset, lives.capacity(number)) for number, offset in enumerate(offsets[: len(activations)]))
    end = max(offset + block.bytes for offset, block in zip(offsets, [*activations, *scratch], strict=True))
    return Plan(segments, places, tuple(offsets[len(activations) :]), blocks, -(-end // ALIGNMENT) * ALIGNMENT)


def _pixel_blocks(program: Program, segments: Sequence[Segment], lives: Lifetimes) -> tuple[int, ...]:
    """The larger a block the fewer times weights are read; it may fill what the peak leaves free."""
    live = live_bytes(program, lives)
    free = np.full(len(program.layers), np.iinfo(np.int64).max)
    for number, step in enumerate(steps(program, segments)):
        free[step.layer] = min(free[step.layer], live.max() - live[number])
    streams = {number for segment in segments if segment.streams for number in segment.layers}
    blocks = []
    for number, layer in enumerate(program.layers):
        least, most = program.blocks(number, number in streams)
        if number not in streams and (each := layer.scratch_bytes(PIXELS)):
            least = max(least, min(most, int(free[number]) // each * PIXELS))
        blocks.append(least if layer.kind == "conv" else 0)
    return tuple(blocks)


def _activation_block(program: Program, lives: Lifetimes, number: int) -> _Block:
    activation = program.activations[number]
    at = np.arange(activation.rows, dtype=np.int64) % lives.capacity(number) * activation.row_bytes
    # What nobody reads takes no place.
    size = activation.row_bytes if np.any(lives.read[number] >= lives.made[number]) else 0
    return _Block(at * bool(size), size, lives.made[number], lives.read[number])


def _scratch_blocks(program: Program, segments: Sequence[Segment], blocks: Sequence[int]) -> Iterator[_Block]:
    spans: dict[int, list[int]] = {}
    for number, step in enumerate(steps(program, segments)):
        spans.setdefault(step.layer, []).append(number)
    for segment in segments:
        size = max(program.layers[number].scratch_bytes(blocks[number]) for number in segment.layers)
        used = [step for number in segment.layers for step in spans[number]]
        yield _Block(np.zeros(1, np.int64), size, np.asarray([min(used)]), np.asarray([max(used)]))


def _may_meet(program: Program, count: int) -> Array:
    """Pairs of blocks (bool, count by count) that may lie on the very same rows: what ADD reads and what it writes."""
    meets = np.zeros((count, count), bool)
    for layer in program.layers:
        if layer.kind == "add":
            for source in layer.inputs:
                meets[source, layer.output] = meets[layer.output, source] = True
    return meets


def _placed(blocks: Sequence[_Block], meets: Array) -> list[int]:
    """An offset for each block: the largest first, each as low as those before it allow."""
    offsets: dict[int, int] = {}
    for number in sorted(range(len(blocks)), key=lambda one: (-blocks[one].bytes, one)):
        block = blocks[number]
        taken = [
            offsets[other] + interval
            for other in offsets
            if (interval := _forbidden(blocks[other], block, bool(meets[other, number]))) is not None
        ]
        offsets[number] = _lowest(np.concatenate(taken) if taken else np.zeros((0, 2), np.int64))
    return [offsets[number] for number in range(len(blocks))]


def _forbidden(one: _Block, two: _Block, meet: bool) -> Array | None:
    """Open intervals, int64 (n, 2), in which `two` may not begin, counted from where `one` begins; None for none."""
    if not one.size or not two.size or one.made.min() > two.read.max() or two.made.min() > one.read.max():
        return None
    together = (one.made[:, None] <= two.read) & (two.made <= one.read[:, None])
    at = one.at[:, None] - two.at
    low, high = at - two.size, at + one.size
    if meet:
        # At the step that writes row r of one over row r of the other, byte by byte, the same place is as good.
        same = together & ((one.read[:, None] == two.made) | (two.read == one.made[:, None]))
        same &= np.arange(len(one.made))[:, None] == np.arange(len(two.made))
        apart = together & ~same
        pairs = [(low[apart], high[apart]), (low[same], at[same]), (at[same], high[same])]
    else:
        pairs = [(low[together], high[together])]
    intervals = np.unique(np.concatenate([np.stack(pair, axis=1) for pair in pairs]), axis=0)
    return intervals if len(intervals) else None


def _lowest(taken: Array) -> int:
    """The lowest multiple of ALIGNMENT, not below 0, that is inside none of the open intervals."""
    offset = 0
    for low, high in taken[np.argsort(taken[:, 0], kind="stable")]:
        if low < offset < high:
            offset = -(-int(high) // ALIGNMENT) * ALIGNMENT
    return offset

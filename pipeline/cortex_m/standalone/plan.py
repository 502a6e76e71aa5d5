"""Plans the arena: an offset for each activation, and for the scratch memory of each segment.

Two tensors may overlap if no row of one is live while a row of the other occupies the same bytes. An output can thus
follow its input through memory, and an ADD can overwrite its operand. Not for: the execution order (`schedule`).
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
    """The location of an activation in the arena: row r is at byte `offset + r % rows * row_bytes`.

    Attributes:
        rows: number of rows kept at a time; fewer than the activation has if old rows are overwritten.
    """

    offset: int
    rows: int


@dataclass(frozen=True, eq=False)
class Plan:
    """The layout of the static memory.

    Attributes:
        segments: in execution order; see `schedule`.
        places: one for each activation of the program.
        scratch: for each segment, the offset of its scratch memory in bytes.
        blocks: for each layer, how many pixels a convolution widens at a time; 0 for other layers.
        arena_bytes: size of the arena, a multiple of ALIGNMENT.
    """

    segments: tuple[Segment, ...]
    places: tuple[Place, ...]
    scratch: tuple[int, ...]
    blocks: tuple[int, ...]
    arena_bytes: int


@dataclass(frozen=True, eq=False)
class _Block:
    """Rows of memory to place, each live from step `made` to step `read`, inclusive."""

    at: Array  # int64 (rows,), offset of each row in the block, in bytes
    size: int  # of each row, in bytes
    made: Array
    read: Array

    @property
    def bytes(self) -> int:
        return int(self.at.max()) + self.size


def plan(program: Program) -> Plan:
    """The plan of a program; deterministic."""
    segments = cheapest(program)
    lives = lifetimes(program, segments)
    blocks = _pixel_blocks(program, segments, lives)
    activations = [_activation_block(program, lives, number) for number in range(len(program.activations))]
    scratch = list(_scratch_blocks(program, segments, blocks))
    offsets = _place([*activations, *scratch], _may_coincide(program, len(activations) + len(scratch)))
    places = tuple(Place(offset, lives.capacity(number)) for number, offset in enumerate(offsets[: len(activations)]))
    end = max(offset + block.bytes for offset, block in zip(offsets, [*activations, *scratch], strict=True))
    return Plan(segments, places, tuple(offsets[len(activations) :]), blocks, -(-end // ALIGNMENT) * ALIGNMENT)


def _pixel_blocks(program: Program, segments: Sequence[Segment], lives: Lifetimes) -> tuple[int, ...]:
    """The block size of each layer, in pixels.

    A larger block reads the weights fewer times; blocks grow into the memory that is free below the peak.
    """
    live = live_bytes(program, lives)
    free = np.full(len(program.layers), np.iinfo(np.int64).max)
    for number, step in enumerate(steps(program, segments)):
        free[step.layer] = min(free[step.layer], live.max() - live[number])
    streams = {number for segment in segments if segment.streams for number in segment.layers}
    blocks = []
    for number, layer in enumerate(program.layers):
        block, largest = program.blocks(number, number in streams)
        if number not in streams and (unit_bytes := layer.scratch_bytes(PIXELS)):
            block = max(block, min(largest, int(free[number]) // unit_bytes * PIXELS))
        blocks.append(block if layer.kind == "conv" else 0)
    return tuple(blocks)


def _activation_block(program: Program, lives: Lifetimes, number: int) -> _Block:
    activation = program.activations[number]
    at = np.arange(activation.rows, dtype=np.int64) % lives.capacity(number) * activation.row_bytes
    # An activation that no layer reads takes no memory.
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


def _may_coincide(program: Program, count: int) -> Array:
    """Which pairs of blocks may use exactly the same rows: an input and the output of ADD. bool (count, count)."""
    pairs = np.zeros((count, count), bool)
    for layer in program.layers:
        if layer.kind == "add":
            for source in layer.inputs:
                pairs[source, layer.output] = pairs[layer.output, source] = True
    return pairs


def _place(blocks: Sequence[_Block], may_coincide: Array) -> list[int]:
    """An offset for each block, in bytes: the largest block first, each at the lowest offset that is free."""
    offsets: dict[int, int] = {}
    for number in sorted(range(len(blocks)), key=lambda index: (-blocks[index].bytes, index)):
        block = blocks[number]
        taken = [
            offsets[other] + interval
            for other in offsets
            if (interval := _forbidden(blocks[other], block, bool(may_coincide[other, number]))) is not None
        ]
        offsets[number] = _lowest(np.concatenate(taken) if taken else np.zeros((0, 2), np.int64))
    return [offsets[number] for number in range(len(blocks))]


def _forbidden(placed: _Block, block: _Block, may_coincide: bool) -> Array | None:
    """Open intervals, int64 (n, 2), of offsets where `block` may not start, relative to the offset of `placed`.

    None if every offset is allowed.
    """
    if not placed.size or not block.size:
        return None
    if placed.made.min() > block.read.max() or block.made.min() > placed.read.max():
        return None
    together = (placed.made[:, None] <= block.read) & (block.made <= placed.read[:, None])
    at = placed.at[:, None] - block.at
    low, high = at - block.size, at + placed.size
    if may_coincide:
        # ADD reads row r and writes row r in the same step, byte by byte, so the two rows may coincide.
        same = together & ((placed.read[:, None] == block.made) | (block.read == placed.made[:, None]))
        same &= np.arange(len(placed.made))[:, None] == np.arange(len(block.made))
        apart = together & ~same
        pairs = [(low[apart], high[apart]), (low[same], at[same]), (at[same], high[same])]
    else:
        pairs = [(low[together], high[together])]
    intervals = np.unique(np.concatenate([np.stack(pair, axis=1) for pair in pairs]), axis=0)
    return intervals if len(intervals) else None


def _lowest(taken: Array) -> int:
    """The lowest non-negative multiple of ALIGNMENT that is in none of the open intervals."""
    offset = 0
    for low, high in taken[np.argsort(taken[:, 0], kind="stable")]:
        if low < offset < high:
            offset = -(-int(high) // ALIGNMENT) * ALIGNMENT
    return offset

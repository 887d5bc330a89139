"""The pigeonhole tables for an exact Hamming search over 64-bit hashes.

The bits are cut into b blocks. Two hashes that differ in at most d bits agree on at least b - d whole blocks. So every such
pair is found by comparing, for each choice of b - d blocks, the hashes that agree on all of them. Each choice is one table,
independent of the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

MAX_DISTANCE = 16
ONES = (1 << 64) - 1


@dataclass(frozen=True)
class Table:
    """One choice of blocks that must agree. `moves` holds (shift right, mask, shift left). It moves those blocks to the top
    of the word and keeps distances, so that sorting the moved hashes places the agreeing ones next to each other."""

    key_bits: int
    moves: tuple[tuple[int, int, int], ...]
    chosen_mask: int  # the key's bits in hash order
    absent: tuple[int, ...]  # masks, in hash order, of the blocks before the last chosen one that are not chosen

    @property
    def low_mask(self) -> int:
        """The bits below the key, in moved order: two moved hashes have equal keys if their xor is at most this."""
        return (1 << (64 - self.key_bits)) - 1


def edges(blocks: int) -> list[int]:
    """Return the start of each block, as a bit position from the top, and 64; widths differ by at most one bit."""
    return [64 * i // blocks for i in range(blocks + 1)]


def tables(count: int, distance: int) -> list[Table]:
    """Return the tables that find every pair within `distance` among `count` hashes, with the cheapest number of blocks. The
    pairs found do not depend on that number."""
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"distance {distance} is outside 0..{MAX_DISTANCE}, the range of the exact search on 64 bits")
    return tables_of(best_blocks(count, distance), distance)


@lru_cache(maxsize=64)
def tables_of(blocks: int, distance: int) -> list[Table]:
    """Return the tables for a number of blocks greater than `distance`, in a fixed order."""
    return [make_table(chosen, blocks) for chosen in combinations(range(blocks), blocks - distance)]


def best_blocks(count: int, distance: int) -> int:
    """Return the number of blocks with the least cost of sorting and comparing. Moving and sorting a hash costs about 30
    comparisons (measured, AVX-512). Hashes with equal keys are compared pairwise; real ones cluster, so this counts double."""

    def cost(blocks: int) -> float:
        key_bits = 64 * (blocks - distance) / blocks
        return comb(blocks, distance) * count * (30 + 2 * count / 2**key_bits)

    return min(range(distance + 1, min(distance + 6, 33)), key=cost)


def make_table(chosen: tuple[int, ...], blocks: int) -> Table:
    begins = edges(blocks)
    order = list(chosen) + [i for i in range(blocks) if i not in chosen]
    moves: list[tuple[int, int, int]] = []
    top = 64
    for first, last in runs(order):
        width = begins[last + 1] - begins[first]
        top -= width
        moves.append((64 - begins[last + 1], (1 << width) - 1, top))
    absent = tuple(block_mask(i, begins) for i in range(chosen[-1]) if i not in chosen)
    chosen_mask = sum(block_mask(i, begins) for i in chosen)
    return Table(chosen_mask.bit_count(), tuple(moves), chosen_mask, absent)


def runs(order: Sequence[int]) -> list[tuple[int, int]]:
    """Join consecutive block numbers: [0, 1, 3, 2] -> [(0, 1), (3, 3), (2, 2)]."""
    joined: list[tuple[int, int]] = []
    for block in order:
        if joined and joined[-1][1] + 1 == block:
            joined[-1] = (joined[-1][0], block)
        else:
            joined.append((block, block))
    return joined


def block_mask(block: int, begins: list[int]) -> int:
    return (ONES >> begins[block]) & ~(ONES >> begins[block + 1]) & ONES


def move(hashes: Hashes, table: Table, out: Hashes | None = None) -> Hashes:
    """Return the hashes with the table's key at the top. Pieces of 256 KiB fit the CPU's cache."""
    moved = np.empty_like(hashes) if out is None else out
    piece = 1 << 15
    part = np.empty(piece, np.uint64)
    for start in range(0, len(hashes), piece):
        source, target = hashes[start : start + piece], moved[start : start + piece]
        target[:] = 0
        for right, mask, left in table.moves:
            bits = part[: len(source)]
            np.right_shift(source, np.uint64(right), out=bits)
            np.bitwise_and(bits, np.uint64(mask), out=bits)
            np.left_shift(bits, np.uint64(left), out=bits)
            np.bitwise_or(target, bits, out=target)
    return moved


def move_back(moved: Hashes, table: Table) -> Hashes:
    """Undo `move`."""
    hashes = np.zeros_like(moved)
    for right, mask, left in table.moves:
        hashes |= ((moved >> np.uint64(left)) & np.uint64(mask)) << np.uint64(right)
    return hashes


def is_first(differences: Hashes, table: Table) -> NDArray[np.bool_]:
    """Say for each xor of two hashes whether this is the first table to find the pair: the chosen blocks agree, and no other
    block before the last chosen one does. So each pair is returned once without storing pairs."""
    first = (differences & np.uint64(table.chosen_mask)) == 0
    for mask in table.absent:
        first &= (differences & np.uint64(mask)) != 0
    return first

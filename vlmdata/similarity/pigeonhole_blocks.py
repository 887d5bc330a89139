"""The pigeonhole tables for an exact Hamming search over 64-bit hashes.

The bits are cut into b blocks. Two hashes that differ in at most d bits agree on at least b - d whole blocks. The search
therefore finds every pair of such hashes if it compares, for each choice of b - d blocks, the hashes that agree on all of these
blocks. Each choice is one table. Tables are independent of each other.
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
    """A choice of blocks. Two hashes are compared if they agree on all chosen blocks.

    The bits of the chosen blocks are the key of a hash. `moves` rearranges a hash so that its key comes first, in the highest
    bits. Sorting then puts hashes with equal keys next to each other, and distances do not change. Each move (shift right,
    mask, shift left) moves a run of consecutive blocks.
    """

    key_bits: int
    moves: tuple[tuple[int, int, int], ...]
    chosen_mask: int  # the key's bits in hash order
    absent: tuple[int, ...]  # masks, in hash order, of the blocks that are not chosen and precede the last chosen block

    @property
    def low_mask(self) -> int:
        """The mask of the bits below the key in a hash that `move` returned.

        Two such hashes have equal keys if their xor is not greater than this mask.
        """
        return (1 << (64 - self.key_bits)) - 1


def edges(blocks: int) -> list[int]:
    """Return the first bit of each block, counted from the top bit, and then 64, the end of the last block.

    The widths of blocks differ by at most one bit.
    """
    return [64 * i // blocks for i in range(blocks + 1)]


def tables(count: int, distance: int) -> list[Table]:
    """Return the tables that find every pair within `distance` among `count` hashes at the least cost.

    `count` changes the number of tables, but not the pairs that they find. Raises ValueError if `distance` is not in 0..16.
    """
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(
            f"distance must be in 0..{MAX_DISTANCE}, not {distance}. The exact search over 64-bit hashes needs this range"
        )
    return tables_of(best_blocks(count, distance), distance)


@lru_cache(maxsize=64)
def tables_of(blocks: int, distance: int) -> list[Table]:
    """Return the tables for a number of blocks greater than `distance`, in a fixed order."""
    return [make_table(chosen, blocks) for chosen in combinations(range(blocks), blocks - distance)]


def best_blocks(count: int, distance: int) -> int:
    """Return the number of blocks with the least cost of sorting and comparing.

    Moving and sorting a hash costs as much as about 30 comparisons (measured with AVX-512). Hashes with equal keys are compared
    pairwise. The estimated number of these comparisons is doubled, because real hashes cluster.
    """

    def cost(blocks: int) -> float:
        key_bits = 64 * (blocks - distance) / blocks
        return comb(blocks, distance) * count * (30 + 2 * count / 2**key_bits)

    return min(range(distance + 1, min(distance + 6, 33)), key=cost)


def make_table(chosen: tuple[int, ...], blocks: int) -> Table:
    """Return the table for the blocks `chosen`, if 64 bits are cut into `blocks` blocks. `chosen` is in ascending order."""
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
    """Return runs of consecutive block numbers as (first, last): [0, 1, 3, 2] -> [(0, 1), (3, 3), (2, 2)]."""
    joined: list[tuple[int, int]] = []
    for block in order:
        if joined and joined[-1][1] + 1 == block:
            joined[-1] = (joined[-1][0], block)
        else:
            joined.append((block, block))
    return joined


def block_mask(block: int, begins: list[int]) -> int:
    """Return the 64-bit mask of a block's bits in a hash. `begins` holds the starts of blocks, as `edges` returns them."""
    return (ONES >> begins[block]) & ~(ONES >> begins[block + 1]) & ONES


def move(hashes: Hashes, table: Table, out: Hashes | None = None) -> Hashes:
    """Return the hashes with their bits moved so that the table's key is at the top: (N,) -> (N,).

    The result is written to `out` if that is given. Hashes are moved in pieces of 256 KiB, which fit the CPU's cache.
    """
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
    """Return the hashes that `move` turned into `moved`: (N,) -> (N,)."""
    hashes = np.zeros_like(moved)
    for right, mask, left in table.moves:
        hashes |= ((moved >> np.uint64(left)) & np.uint64(mask)) << np.uint64(right)
    return hashes


def is_first(differences: Hashes, table: Table) -> NDArray[np.bool_]:
    """Say for each xor of two hashes whether `table` is the first table that finds this pair of hashes.

    It is the first if the hashes agree on all blocks that the table chose, and differ on every other block before the last
    chosen block. With this check each pair is found once, and the pairs of earlier tables need not be stored.
    """
    first = (differences & np.uint64(table.chosen_mask)) == 0
    for mask in table.absent:
        first &= (differences & np.uint64(mask)) != 0
    return first

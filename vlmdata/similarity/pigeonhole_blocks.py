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
    """The blocks on which two hashes must agree to be compared.

    `moves` holds (shift right, mask, shift left) for each run of consecutive blocks. All moves together bring the chosen blocks
    to the top of a hash and keep distances. Hashes that agree on the chosen blocks are therefore neighbours after sorting.
    """

    key_bits: int
    moves: tuple[tuple[int, int, int], ...]
    chosen_mask: int  # the key's bits in hash order
    absent: tuple[int, ...]  # masks, in hash order, of the blocks that are not chosen and precede the last chosen block

    @property
    def low_mask(self) -> int:
        """The mask of the bits below the key in a moved hash. Two moved hashes with an xor up to this mask have equal keys."""
        return (1 << (64 - self.key_bits)) - 1


def edges(blocks: int) -> list[int]:
    """Return the start of each block, as a bit position from the top, and 64 at the end.

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
    """Return the table with the chosen block numbers, in ascending order, when 64 bits are cut into `blocks` blocks."""
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
    """Say for each xor of two hashes whether `table` is the first table to find the pair.

    `table` is the first if the chosen blocks agree and no other block before the last chosen block agrees. The check makes
    each pair appear once, without storing the pairs of earlier tables.
    """
    first = (differences & np.uint64(table.chosen_mask)) == 0
    for mask in table.absent:
        first &= (differences & np.uint64(mask)) != 0
    return first

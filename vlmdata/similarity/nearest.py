"""Find for each 64-bit hash the nearest reference within a Hamming distance, exactly. Decontamination uses this search."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from vlmdata.similarity.pigeonhole_blocks import Hashes, Table, move, tables
from vlmdata.similarity.runs import Ids

NONE = 255  # the distance of a hash without a near reference
PIECE = 1 << 16  # hashes looked up at a time
CANDIDATES = 1 << 21  # comparisons at a time, which need 48 MiB


def nearest(hashes: Hashes, references: Hashes, distance: int, *, threads: int = 1) -> tuple[Ids, NDArray[np.uint8]]:
    """Return for each hash the place of its nearest reference and their distance: (N,), (R,) -> (N,) int64, (N,) uint8.

    The first of equally near references is returned. If no reference is within `distance` of a hash, the place is -1 and the
    distance is 255.
    """
    values, first = np.unique(references, return_index=True)
    pieces = [hashes[start : start + PIECE] for start in range(0, len(hashes), PIECE)]
    sorted_tables = [sort_references(values, first, table) for table in tables(max(len(values), 1), distance)]
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda piece: nearest_of_piece(piece, sorted_tables, distance), pieces))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.uint8)
    best = np.concatenate(found)
    bits = (best >> np.uint64(56)).astype(np.uint8)
    return np.where(bits == NONE, -1, (best & np.uint64((1 << 56) - 1)).astype(np.int64)), bits


SortedTable = tuple[Table, Hashes, Hashes]  # a table, its moved references in order, and their places


def sort_references(values: Hashes, first: Ids, table: Table) -> SortedTable:
    """Return (table, moved, places): the references, moved for this table and sorted, and the place of each.

    `values` holds the distinct references. `first` holds the first place of each in the caller's references. `moved` is the
    result of `move` on `values`, in ascending order, and `places` holds `first` in the same order.
    """
    moved = move(values, table)
    order = np.argsort(moved)
    return table, moved[order], first[order].astype(np.uint64)


def nearest_of_piece(hashes: Hashes, sorted_tables: list[SortedTable], distance: int) -> Hashes:
    """Return for each hash the distance and the place of its nearest reference, packed into one uint64: (N,) -> (N,).

    The distance is in the top 8 bits and the place in the 56 bits below. The first of equally near references is returned.
    If no reference is within `distance` of a hash, the packed distance is 255 and the place is 0.
    """
    distinct, back = np.unique(hashes, return_inverse=True)
    best = np.full(len(distinct), NONE << 56, np.uint64)
    for table, references, places in sorted_tables:
        moved = move(distinct, table)
        low = np.uint64(table.low_mask)
        begins = np.searchsorted(references, moved & ~low)
        counts = np.searchsorted(references, moved | low, side="right") - begins
        look = np.flatnonzero(counts)
        for some in cut(look, counts[look]):
            which = np.repeat(some, counts[some])
            inside = np.arange(len(which)) - np.repeat(np.cumsum(counts[some]) - counts[some], counts[some])
            candidate = begins[which] + inside
            bits = np.bitwise_count(moved[which] ^ references[candidate])
            near = bits <= distance
            score = bits[near].astype(np.uint64) << np.uint64(56) | places[candidate[near]]
            np.minimum.at(best, which[near], score)
    return best[back]


def cut(items: Ids, counts: Ids) -> list[Ids]:
    """Split items into consecutive groups and return them. The `counts` of each group sum to about `CANDIDATES`."""
    if not len(items):
        return []
    ends = np.flatnonzero(np.diff(np.cumsum(counts) // CANDIDATES)) + 1
    return np.split(items, ends)

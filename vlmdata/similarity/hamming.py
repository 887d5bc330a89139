"""Find every pair of 64-bit hashes within a Hamming distance exactly once.

For each table of `pigeonhole_blocks.py`, the search moves the bits of the table's key to the top of each hash and sorts the
moved hashes. Hashes with equal keys are then neighbours, and the search compares them. The search needs a few times the memory
of the hashes, and memory for one chunk of pairs. The pairs and their order depend only on the input.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vlmdata.similarity.pigeonhole_blocks import Hashes, Table, is_first, move, move_back, tables
from vlmdata.similarity.runs import Ids, batched_rows

PIECE = 1 << 15  # hashes compared at a time; their 256 KiB fit a core's cache
SMALL_RUNS = (2, 4, 8, 16, 32, 64, 128)  # runs of similar length are compared together
TILE = 512  # longer runs are compared in tiles of TILE x TILE


def pairs_within(hashes: Hashes, distance: int, *, threads: int = 1) -> Ids:
    """Return every pair i < j whose hashes differ in at most `distance` bits, sorted: (N,) uint64 -> (M, 2).

    A group of G equal hashes gives G * (G - 1) / 2 pairs. If groups may be large, as for blank images, use `edges_within`.
    """
    distinct, groups, starts = equal_groups(hashes)
    found = [expand(pairs, groups, starts) for pairs in distinct_pairs(distinct, distance, threads=threads)]
    found.append(pairs_in_groups(groups, starts))
    pairs = np.concatenate(found)
    pairs.sort(axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def edges_within(hashes: Hashes, distance: int, *, threads: int = 1) -> Iterator[Ids]:
    """Yield chunks (M, 2) of pairs i < j. Chains of these pairs connect the same hashes as the pairs of `pairs_within`.

    The pairs are fewer than the pairs of `pairs_within`. In a group of equal hashes, the first member is paired with each other
    member. If two groups are within the distance, only their first members are paired.
    """
    distinct, groups, starts = equal_groups(hashes)
    yield star_edges(groups, starts)
    for pairs in distinct_pairs(distinct, distance, threads=threads):
        yield np.sort(groups[starts[pairs]], axis=1)


def equal_groups(hashes: Hashes) -> tuple[Hashes, Ids, Ids]:
    """Return (distinct, groups, starts): the distinct hashes in ascending order, and the places of each distinct hash.

    The hash `distinct[i]` is at the places `groups[starts[i]:starts[i + 1]]`, in ascending order.
    """
    groups = np.argsort(hashes, kind="stable")
    ordered = hashes[groups]
    is_new = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, bool)
    return ordered[is_new], groups, np.append(np.flatnonzero(is_new), len(hashes))


def star_edges(groups: Ids, starts: Ids) -> Ids:
    """Return pairs (M, 2) that connect the members of each group: the first member is paired with each other member."""
    sizes = np.diff(starts)
    first = np.repeat(groups[starts[:-1]], sizes)
    return np.stack([first, groups], axis=1)[first != groups]


def distinct_pairs(distinct: Hashes, distance: int, *, threads: int = 1) -> Iterator[Ids]:
    """Yield the pairs of hashes within the distance, in chunks (M, 2) of places in `distinct`.

    `distinct` is in ascending order and has no repeats. The pairs are searched with the tables of `pigeonhole_blocks.py`. A
    chunk holds pairs that one table finds, and chunks are in the order of the tables. Each thread searches whole tables. The
    threads run in parallel, because numpy sorts and compares without the interpreter's lock.
    """
    pending = tables(len(distinct), distance)
    if threads == 1:
        for table in pending:
            yield from pairs_in_table(distinct, distance, table)
        return
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(pending), threads):  # one table for each thread at a time, to bound memory
            batch = pending[start : start + threads]
            for chunks in pool.map(lambda table: list(pairs_in_table(distinct, distance, table)), batch):
                yield from chunks


def pairs_in_table(distinct: Hashes, distance: int, table: Table) -> Iterator[Ids]:
    """Yield chunks (M, 2) of the pairs within the distance that this table finds and no earlier table finds.

    A pair holds two places in `distinct`.
    """
    moved = move(distinct, table)
    moved.sort()
    for near in batched_rows(compared(moved, distance, table), 1 << 20):
        left, right = move_back(near[:, 0], table), move_back(near[:, 1], table)
        first = is_first(left ^ right, table)
        yield np.searchsorted(distinct, np.stack([left[first], right[first]], axis=1))


def compared(moved: Hashes, distance: int, table: Table) -> Iterator[Hashes]:
    """Yield chunks (M, 2) of pairs of hashes within the distance. `moved` holds the result of `move`, sorted.

    All pairs within the distance that have equal keys are yielded, and also some pairs with different keys.
    """
    is_new = (moved[1:] ^ moved[:-1]) > np.uint64(table.low_mask)
    starts = np.concatenate([[0], np.flatnonzero(is_new) + 1, [len(moved)]])
    sizes = np.diff(starts)
    run_size = np.repeat(np.minimum(sizes, SMALL_RUNS[-1] + 1).astype(np.uint8), sizes)
    smallest = 2
    for largest in SMALL_RUNS:
        chosen = moved[(run_size >= smallest) & (run_size <= largest)]
        yield from compare_small(chosen, largest, distance)
        smallest = largest + 1
    for run in np.flatnonzero(sizes >= smallest):
        yield from compare_run(moved[starts[run] : starts[run + 1]], distance)


def compare_small(moved: Hashes, largest: int, distance: int) -> Iterator[Hashes]:
    """Compare each hash with the `largest` - 1 hashes after it, and yield the pairs that are within the distance.

    `moved` holds runs of at most `largest` hashes with equal keys. Pairs of hashes in different runs may be yielded too. They
    are harmless, because `is_first` removes them.
    """
    differences, counts = np.empty(PIECE, np.uint64), np.empty(PIECE, np.uint8)
    for start in range(0, len(moved), PIECE):
        for offset in range(1, largest):
            right = moved[start + offset : start + offset + PIECE]
            left = moved[start : start + len(right)]
            xor, bits = differences[: len(right)], counts[: len(right)]
            np.bitwise_xor(left, right, out=xor)
            np.bitwise_count(xor, out=bits)
            near = np.flatnonzero(bits <= distance)
            if len(near):
                yield np.stack([left[near], right[near]], axis=1)


def compare_run(run: Hashes, distance: int) -> Iterator[Hashes]:
    """Yield chunks (M, 2) of the pairs of hashes in `run` that are within the distance.

    `run` holds many moved hashes with equal keys. All pairs are compared, `TILE` x `TILE` at a time to bound memory.
    """
    for top in range(0, len(run), TILE):
        rows = run[top : top + TILE]
        for side in range(top, len(run), TILE):
            columns = run[side : side + TILE]
            near = np.bitwise_count(rows[:, None] ^ columns) <= distance
            i, j = np.nonzero(np.triu(near, 1) if side == top else near)
            if len(i):
                yield np.stack([rows[i], columns[j]], axis=1)


def pairs_in_groups(groups: Ids, starts: Ids) -> Ids:
    """Return all pairs of places that hold equal hashes: (M, 2). `groups` and `starts` are as in `equal_groups`."""
    found = [np.zeros((0, 2), np.int64)]
    for group in np.flatnonzero(np.diff(starts) > 1):
        members = groups[starts[group] : starts[group + 1]]
        found.append(np.stack([members[side] for side in np.triu_indices(len(members), 1)], axis=1))
    return np.concatenate(found)


def expand(pairs: Ids, groups: Ids, starts: Ids) -> Ids:
    """Return for each pair of groups all pairs of places, one place from each of the two groups: (K, 2) -> (M, 2)."""
    sizes = np.diff(starts)
    wide = sizes[pairs[:, 1]]
    counts = sizes[pairs[:, 0]] * wide
    which = np.repeat(np.arange(len(pairs)), counts)
    inside = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    left = groups[starts[pairs[which, 0]] + inside // wide[which]]
    right = groups[starts[pairs[which, 1]] + inside % wide[which]]
    return np.stack([left, right], axis=1)

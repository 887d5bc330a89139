"""Cluster rows by pairs of similar rows, and choose the best row of each cluster.

Deduplication uses `representatives_of_rows`. Its clusters consist of one kept row and rows that are paired with the kept row,
so every dropped row is similar to a kept row. In a chain A-B-C where A and C are not similar, A and C both stay, except if B is
the best.

Splits into train and test use `components`. Its clusters hold all rows that pairs connect, by chains of any length, so that
similar rows are not separated. Deduplication does not use such clusters, because it would drop rows of a chain that are not
similar to the kept row. Chains are common at larger distances, such as 8 of 64 bits.

The results do not depend on the order of the pairs. If `best_first` ranks the rows, the results do not depend on the order of
the rows either.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vlmdata.similarity.runs import Ids, batched_rows


def best_first(*columns: NDArray, keys: Sequence[str] | pa.Array) -> Ids:
    """Return the rank of each row: (N,). The row with the greatest value in the first column is the best and has the rank 0.

    The next columns, and then the least key, decide between rows with equal values. NaN ranks below all other values. Negate a
    column to prefer its least value. Pass rounded scores, so that the last bit does not decide. Keys must be distinct, so that
    the ranks do not depend on the order of the rows.
    """
    words = keys if isinstance(keys, pa.Array) else pa.array(keys, pa.string())  # numpy strings take four bytes per character
    by_key = pc.array_sort_indices(words).to_numpy().astype(np.int64)
    descending = [-np.nan_to_num(np.asarray(column, np.float64)[by_key], nan=-np.inf) for column in columns]
    order = by_key[np.lexsort(descending[::-1])] if descending else by_key
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def components(count: int, pairs: Iterable[Ids]) -> Ids:
    """Return for each of `count` rows the lowest row number in its connected component: (count,).

    `pairs` holds chunks (M, 2). The two rows of a pair are connected.
    """
    labels = np.arange(count)  # the label of each row is a row of its component with the same or a lower number
    for chunk in batched_rows(pairs, max(count, 1 << 20)):  # one chunk of pairs is in memory at a time
        left, right = chunk.T
        while len(left):
            ends = np.sort(np.stack([labels[left], labels[right]]), axis=0)
            apart = ends[0] != ends[1]
            left, right, ends = left[apart], right[apart], ends[:, apart]
            np.minimum.at(labels, ends[1], ends[0])
            while (labels != (onward := labels[labels])).any():
                labels = onward
    return labels


def representatives_of_rows(rank: Ids, pairs: Iterable[Ids]) -> Ids:
    """Return the representative of each row: (N,). A kept row represents itself.

    A row is dropped if it is paired with a better row that is kept. Its representative is the best of the kept rows that it is
    paired with. `rank` (N,) holds distinct ranks, 0 for the best. `pairs` holds chunks (M, 2). Together the chunks
    must hold every pair of similar rows. Pairs that merely connect all similar rows are not enough. `pairs` is iterated several
    times, so it must be a list or another reusable iterable. Memory is a few times N. The number of rounds is at most the
    length of the longest chain of pairs with descending ranks, in practice a few.
    """
    undecided, kept = np.ones(len(rank), bool), np.zeros(len(rank), bool)
    best = np.full(len(rank), len(rank))  # rank of each row's representative
    while undecided.any():
        blocked = np.zeros(len(rank), bool)
        for chunk in pairs:
            better, worse = by_rank(chunk, rank)
            undecided[worse[kept[better]]] = False
            blocked[worse[undecided[better]]] = True
        new = undecided & ~blocked
        kept |= new
        undecided &= ~new
    for chunk in pairs:
        better, worse = by_rank(chunk, rank)
        is_kept = kept[better]
        np.minimum.at(best, worse[is_kept], rank[better[is_kept]])
    best[kept] = rank[kept]
    return np.argsort(rank)[best]


def by_rank(pairs: Ids, rank: Ids) -> tuple[Ids, Ids]:
    """Return the better row and the worse row of each pair: (M, 2) -> (M,), (M,)."""
    left, right = pairs[:, 0], pairs[:, 1]
    is_better = rank[left] < rank[right]
    return np.where(is_better, left, right), np.where(is_better, right, left)


def best_of_groups(groups: Ids, rank: Ids) -> Ids:
    """Return for each group 0..G-1 its row with the lowest rank: (N,) groups of rows, (N,) ranks -> (G,)."""
    best = np.full(groups.max(initial=-1) + 1, len(rank))
    np.minimum.at(best, groups, rank)
    return np.argsort(rank)[best]


def representatives_of_items(groups: Ids, rank: Ids, pairs: Iterable[Ids]) -> Ids:
    """Return the representative of each item: (N,). Items of one group are equal and share a representative.

    `groups` (N,) holds the group 0..G-1 of each item, and `rank` (N,) holds distinct ranks. `pairs` holds chunks (M, 2) of
    every pair of similar groups. A group has the rank of its best item. `representatives_of_rows` chooses a representative
    group for each group. The best item of the representative group represents all items of the group.
    """
    best = best_of_groups(groups, rank)
    order = np.empty(len(best), np.int64)
    order[np.argsort(rank[best])] = np.arange(len(best))
    return best[representatives_of_rows(order, list(pairs))][groups]

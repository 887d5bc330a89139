"""Cluster rows by pairs of similar rows, and choose the best row of each cluster.

Deduplication uses `representatives_of_rows`. A cluster is one kept row and the rows paired with it, so every dropped row is
similar to a kept one. In a chain A-B-C where A and C are not similar, A and C both stay, except if B is the best.

Splits into train and test use `components`. A cluster is all rows that pairs connect, by chains of any length, so that similar
rows are not separated. In deduplication, a chain would drop rows that are similar to no kept row. Chains are common at larger
distances, such as 8 of 64 bits.

The results do not depend on the order of the pairs or, with `best_first`, on the order of the rows.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vlmdata.similarity.runs import Ids, batched_rows


def best_first(*columns: NDArray, keys: Sequence[str] | pa.Array) -> Ids:
    """Return the rank of each row, 0 for the best. The greatest value of the first column is the best.

    The next columns, and then the least key, decide between equal rows. Negate a column to prefer its least value. Round scores
    before. NaN is the worst. Keys are distinct, so the ranks do not depend on the input order.
    """
    words = keys if isinstance(keys, pa.Array) else pa.array(keys, pa.string())  # numpy strings take four bytes a letter
    by_key = pc.array_sort_indices(words).to_numpy().astype(np.int64)
    descending = [-np.nan_to_num(np.asarray(column, np.float64)[by_key], nan=-np.inf) for column in columns]
    order = by_key[np.lexsort(descending[::-1])] if descending else by_key
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def components(count: int, pairs: Iterable[Ids]) -> Ids:
    """Return for each of `count` rows the least row in its component: chunks of pairs (M, 2) -> (count,)."""
    labels = np.arange(count)
    for chunk in batched_rows(pairs, max(count, 1 << 20)):  # chunk by chunk: only one is in memory
        joined = np.stack([*labels[chunk].T]).astype(np.int32 if count < 2**31 else np.int64)
        graph = coo_array((np.ones(len(chunk), np.int8), (joined[0], joined[1])), shape=(count, count))
        _, numbers = connected_components(graph, directed=False)
        least = np.full(count, count)
        np.minimum.at(least, numbers, labels)
        labels = least[numbers][labels]
    return labels


def representatives_of_rows(rank: Ids, pairs: Iterable[Ids]) -> Ids:
    """Return the representative of each row: (N,). A kept row represents itself.

    A dropped row is represented by the best of the kept rows that are paired with it. A row is kept if no better row that is
    paired with it is kept. `rank` (N,) holds distinct ranks, 0 for the best. `pairs` holds chunks (M, 2) of every similar pair,
    not only of enough pairs to connect similar rows. It is iterated several times, so it must be a list or another reusable
    iterable. Memory is a few times N. The number of rounds is the length of the longest descending chain of undecided rows, in
    practice a few.
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
    """Return the best row of each group 0..G-1: (N,) groups of rows, (N,) ranks -> (G,)."""
    best = np.full(groups.max(initial=-1) + 1, len(rank))
    np.minimum.at(best, groups, rank)
    return np.argsort(rank)[best]


def representatives_of_items(groups: Ids, rank: Ids, pairs: Iterable[Ids]) -> Ids:
    """Return the representative of each item: (N,). Items of one group are equal and share a representative.

    The best item of a group represents it in `representatives_of_rows`. `groups` (N,) holds the group 0..G-1 of each item, and
    `rank` (N,) holds distinct ranks. `pairs` holds chunks (M, 2) of every pair of similar groups.
    """
    best = best_of_groups(groups, rank)
    order = np.empty(len(best), np.int64)
    order[np.argsort(rank[best])] = np.arange(len(best))
    return best[representatives_of_rows(order, list(pairs))][groups]

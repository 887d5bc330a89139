"""Cluster rows by pairs of similar rows, and choose the best row of each cluster.

For dedup, `representatives_of_rows`: a cluster is one kept row and the rows paired with it. Every dropped row is similar to
a kept one; of a chain A-B-C where A and C are not similar, both A and C stay unless B is the best. For splits into train and
test, `components`: all rows that pairs connect, by chains of any length, so that no similar rows are separated. For dedup a
chain would drop rows similar to no kept row, more often at larger distances (at 8 bits of 64 chains are common).

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
    """Return the rank of each row, 0 the best: greatest in the first column, ties by the next columns, then by the least key.

    Negate a column to prefer its least value. Round scores first; NaN is worst. Keys are distinct, so the order is total
    and does not depend on the input order.
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
    """Return the representative of each row: itself if it is kept, else the best of the kept rows it is paired with.

    A row is kept if no better row it is paired with is kept. `rank` (N,) is distinct, 0 the best. `pairs` is iterated several
    times, so it must be a list or another reusable iterable, and it must hold every pair, not only connecting ones. Memory is
    a few times N. The number of rounds is the longest descending chain of undecided rows, a handful in practice.
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
    """Return the better and the worse row of each pair."""
    left, right = pairs[:, 0], pairs[:, 1]
    is_better = rank[left] < rank[right]
    return np.where(is_better, left, right), np.where(is_better, right, left)


def best_of_groups(groups: Ids, rank: Ids) -> Ids:
    """Return the best row of each group 0..G-1: (N,) group of each row, (N,) ranks -> (G,)."""
    best = np.full(groups.max(initial=-1) + 1, len(rank))
    np.minimum.at(best, groups, rank)
    return np.argsort(rank)[best]


def representatives_of_items(groups: Ids, rank: Ids, pairs: Iterable[Ids]) -> Ids:
    """Return the representative of each item: that of the best item of its group, by `representatives_of_rows`.

    A group holds equal items: (N,) group of each item, 0..G-1, (N,) ranks, chunks of every pair of groups -> (N,)."""
    best = best_of_groups(groups, rank)
    order = np.empty(len(best), np.int64)
    order[np.argsort(rank[best])] = np.arange(len(best))
    return best[representatives_of_rows(order, list(pairs))][groups]

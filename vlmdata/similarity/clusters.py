"""From pairs of similar rows to clusters, and the best row of each.

Two ways, for two needs. `leaders`: a cluster is one kept row and the rows within reach of it. Nothing is given up that is
unlike what is kept; of a chain A-B-C, where A and C are not similar, both ends stay if B is not the best. This is what
dedup wants. `components`: everything that pairs connect, however long the chain. Nothing similar is ever parted, which is
what splits into train and test want; for dedup a chain may give up rows that look like nothing kept, the more so the larger
the distance (at 8 bits of 64 chains are common).

Neither depends on the order of the pairs, and with `best_first` not on the order of the rows.
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
    """Return the rank of each row, 0 the best: greatest in the first column, then in the next, and so on; then least key.

    Negate a column for its least value to win. Round scores first; NaN is worst. Keys are distinct, so the order is
    total, and is the rows' own whatever order they arrive in.
    """
    words = keys if isinstance(keys, pa.Array) else pa.array(keys, pa.string())  # numpy's hold four bytes a letter
    by_key = pc.array_sort_indices(words).to_numpy().astype(np.int64)
    falling = [-np.nan_to_num(np.asarray(column, np.float64)[by_key], nan=-np.inf) for column in columns]
    order = by_key[np.lexsort(falling[::-1])] if falling else by_key
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def components(count: int, pairs: Iterable[Ids]) -> Ids:
    """Return for each of `count` rows the least row that chunks of pairs (M, 2) connect it to: itself where none does."""
    labels = np.arange(count)
    for chunk in batched_rows(pairs, max(count, 1 << 20)):  # joined chunk by chunk: no more than one is held
        joined = np.stack([*labels[chunk].T]).astype(np.int32 if count < 2**31 else np.int64)
        graph = coo_array((np.ones(len(chunk), np.int8), (joined[0], joined[1])), shape=(count, count))
        _, numbers = connected_components(graph, directed=False)
        least = np.full(count, count)
        np.minimum.at(least, numbers, labels)
        labels = least[numbers][labels]
    return labels


def leaders(rank: Ids, pairs: Iterable[Ids]) -> Ids:
    """Return for each row the row kept for it: itself, or the best of the kept rows it is paired with.

    A row is kept where no better row it is paired with is kept. `rank` (N,) is distinct, 0 the best. `pairs` is gone
    through several times (a list of chunks, or what makes them anew) and must hold every pair, not only connecting ones.
    Memory is a few times N. Rounds follow the longest falling chain of undecided rows, a handful in practice.
    """
    undecided, kept = np.ones(len(rank), bool), np.zeros(len(rank), bool)
    stands = np.full(len(rank), len(rank))  # rank of the row that stands for this one
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
        fitting = kept[better]
        np.minimum.at(stands, worse[fitting], rank[better[fitting]])
    stands[kept] = rank[kept]
    return np.argsort(rank)[stands]


def by_rank(pairs: Ids, rank: Ids) -> tuple[Ids, Ids]:
    """Return the better and the worse row of each pair."""
    left, right = pairs[:, 0], pairs[:, 1]
    is_better = rank[left] < rank[right]
    return np.where(is_better, left, right), np.where(is_better, right, left)


def best_of_groups(groups: Ids, rank: Ids) -> Ids:
    """Return for each group 0..G-1 its best row: (N,) group of each row, (N,) ranks -> (G,)."""
    best = np.full(groups.max(initial=-1) + 1, len(rank))
    np.minimum.at(best, groups, rank)
    return np.argsort(rank)[best]


def stand_ins(groups: Ids, rank: Ids, pairs: Iterable[Ids]) -> Ids:
    """Return the item kept for each: the best of its group, or what `leaders` keeps for that.

    Equal items are groups: (N,) group of each, 0..G-1, (N,) ranks, and chunks of every pair of groups -> (N,)."""
    best = best_of_groups(groups, rank)
    order = np.empty(len(best), np.int64)
    order[np.argsort(rank[best])] = np.arange(len(best))
    return best[leaders(order, list(pairs))][groups]

"""Spherical k-means and SemDeDup as tasks: `kmeans.py` and `semdedup.py` for embeddings that lie in pieces.

Cells and verdicts are those of one machine, for all sums are of integers. A round reads every embedding twice: once to find
the nearest centroid, once, in the order of the cells, to move the centroids; no task returns more than its own cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmdata.similarity.cosine import Int8, sample_of
from vlmdata.similarity.distributed import load, starts_of
from vlmdata.similarity.kmeans import moved_centroids, nearest_centroid
from vlmdata.similarity.runs import Ids
from vlmdata.similarity.semdedup import hardness, semantic_duplicates
from vlmdata.step import DistributedSearch, StoredArray

ROWS = 200_000  # embeddings that a task holds, about: at 512 wide 100 MB, and four times that while it multiplies


@dataclass(frozen=True)
class Assign:
    """One task: which of the centroids is nearest to each embedding of some pieces."""

    pieces: tuple[StoredArray, ...]
    centroids: StoredArray


@dataclass(frozen=True)
class Cells:
    """One task over whole cells: the numbers of their embeddings, each with its cell counted from the first of the task,
    and, where they are wanted, their ranks and centroids."""

    pieces: tuple[StoredArray, ...]
    starts: Ids
    rows: Ids
    cells: Ids
    rank: Ids | None = None
    centroids: Int8 | None = None
    cosine: float = 0.0


def spherical_cells(
    pieces: Sequence[StoredArray], clusters: int, spread: DistributedSearch, *, rounds: int, seed: int
) -> tuple[Int8, Ids]:
    """Return what `kmeans.spherical_kmeans` returns for the embeddings of all pieces laid end to end."""
    starts = starts_of(pieces)
    centroids = gathered(pieces, starts, sample_of(int(starts[-1]), clusters, seed))
    cells = assigned(pieces, centroids, spread)
    for _ in range(rounds):
        tasks = by_cells(pieces, starts, cells, clusters, centroids=centroids)
        centroids = np.concatenate(list(spread.run(moved_in_cells, tasks)))
        before, cells = cells, assigned(pieces, centroids, spread)
        if np.array_equal(before, cells):
            break
    return centroids, cells


def assigned(pieces: Sequence[StoredArray], centroids: Int8, spread: DistributedSearch) -> Ids:
    """Return the nearest centroid of every embedding."""
    kept = spread.keep(centroids)
    return np.concatenate(list(spread.run(nearest_in_pieces, [Assign(some, kept) for some in groups_of(pieces)])))


def groups_of(pieces: Sequence[StoredArray]) -> Iterator[tuple[StoredArray, ...]]:
    """Yield neighbouring pieces that together hold about ROWS embeddings."""
    held: list[StoredArray] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += len(load(piece))
        if count >= ROWS:
            yield tuple(held)
            held, count = [], 0
    if held:
        yield tuple(held)


def nearest_in_pieces(task: Assign) -> Ids:
    centroids = np.asarray(load(task.centroids))
    return np.concatenate([nearest_centroid(np.asarray(load(piece)), centroids) for piece in task.pieces])


def by_cells(
    pieces: Sequence[StoredArray],
    starts: Ids,
    cells: Ids,
    clusters: int,
    *,
    rank: Ids | None = None,
    centroids: Int8 | None = None,
    cosine: float = 0.0,
) -> Iterator[Cells]:
    """Yield tasks over neighbouring cells, each of about ROWS embeddings, all cells in order."""
    order = np.argsort(cells, kind="stable")
    ends = np.searchsorted(cells[order], np.arange(clusters), side="right")
    first = 0
    while first < clusters:
        begin = ends[first - 1] if first else 0
        stop = max(int(np.searchsorted(ends, begin + ROWS)), first + 1)
        rows = np.sort(order[begin : ends[stop - 1]])
        yield Cells(
            tuple(pieces),
            starts,
            rows,
            cells[rows] - first,
            rank[rows] if rank is not None else None,
            centroids[first:stop] if centroids is not None else None,
            cosine,
        )
        first = stop


def gathered(pieces: Sequence[StoredArray], starts: Ids, rows: Ids) -> Int8:
    """Return the embeddings with these numbers."""
    piece = np.searchsorted(starts, rows, side="right") - 1
    found: Int8 = np.empty((len(rows), load(pieces[0]).shape[1]), np.int8)
    for number in np.unique(piece).tolist():
        here = piece == number
        found[here] = load(pieces[number])[rows[here] - starts[number]]
    return found


def moved_in_cells(task: Cells) -> Int8:
    assert task.centroids is not None
    return moved_centroids(gathered(task.pieces, task.starts, task.rows), task.cells, task.centroids)


def hardness_in_cells(task: Cells) -> tuple[Ids, NDArray[np.float64]]:
    assert task.centroids is not None
    return task.rows, hardness(gathered(task.pieces, task.starts, task.rows), task.cells, task.centroids)


def duplicates_in_cells(task: Cells) -> tuple[Ids, Ids, NDArray[np.float64]]:
    assert task.rank is not None
    rows = gathered(task.pieces, task.starts, task.rows)
    stands, similarity = semantic_duplicates(rows, task.cells, task.rank, task.cosine)
    return task.rows, task.rows[stands], similarity


def semantic_duplicates_in(
    pieces: Sequence[StoredArray],
    spread: DistributedSearch,
    cosine: float,
    *,
    clusters: int,
    rounds: int,
    seed: int,
    rank: Ids | None,
) -> tuple[Ids, NDArray[np.float64]]:
    """Return what `semdedup.semantic_duplicates` returns; without a rank the hardest comes first."""
    starts = starts_of(pieces)
    centroids, cells = spherical_cells(pieces, clusters, spread, rounds=rounds, seed=seed)
    count = int(starts[-1])
    if rank is None:
        values = np.empty(count)
        for rows, some in spread.run(hardness_in_cells, by_cells(pieces, starts, cells, clusters, centroids=centroids)):
            values[rows] = some
        rank = np.empty(count, np.int64)
        rank[np.argsort(values, kind="stable")] = np.arange(count)
    stands, similarity = np.arange(count), np.full(count, np.nan)
    for rows, leaders, value in spread.run(
        duplicates_in_cells, by_cells(pieces, starts, cells, clusters, rank=rank, cosine=cosine)
    ):
        stands[rows], similarity[rows] = leaders, value
    return stands, similarity

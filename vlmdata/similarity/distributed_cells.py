"""Run the spherical k-means of `kmeans.py` and SemDeDup of `semdedup.py` as tasks, for embeddings that are stored in pieces.

The results equal the results on one machine, because all sums are of integers. A cell holds the embeddings that have the same
nearest centroid. A round of k-means reads every embedding twice. The first tasks of a round move the centroids and read the
embeddings cell by cell. The second tasks find the nearest centroids and read the embeddings piece by piece.
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

ROWS = 200_000  # approximate number of embeddings in a task; at width 512 they take 100 MB, and 400 MB for the products


@dataclass(frozen=True)
class Assign:
    """A task that finds the nearest centroid of each embedding in some pieces."""

    pieces: tuple[StoredArray, ...]
    centroids: StoredArray


@dataclass(frozen=True)
class Cells:
    """A task on all embeddings of some consecutive cells.

    `rows` holds the global number of each embedding. `cells` holds the cell of each embedding, numbered from 0 within the task.
    `rank` and `centroids` are None if the task does not need them.
    """

    pieces: tuple[StoredArray, ...]
    starts: Ids
    rows: Ids
    cells: Ids
    rank: Ids | None = None
    centroids: Int8 | None = None
    cosine: float = 0.0


def spherical_cells(
    pieces: Sequence[StoredArray], clusters: int, search: DistributedSearch, *, rounds: int, seed: int
) -> tuple[Int8, Ids]:
    """Return the centroids (K, D) and each embedding's cell (N,). `clusters` is K.

    The result equals the result of `kmeans.spherical_kmeans` for the embeddings of all pieces together.
    """
    starts = starts_of(pieces)
    centroids = embeddings_of(pieces, starts, sample_of(int(starts[-1]), clusters, seed))
    cells = cells_of(pieces, centroids, search)
    for _ in range(rounds):
        tasks = by_cells(pieces, starts, cells, clusters, centroids=centroids)
        centroids = np.concatenate(list(search.run(moved_in_cells, tasks)))
        before, cells = cells, cells_of(pieces, centroids, search)
        if np.array_equal(before, cells):
            break
    return centroids, cells


def cells_of(pieces: Sequence[StoredArray], centroids: Int8, search: DistributedSearch) -> Ids:
    """Return the number of the nearest centroid of every embedding: (N,)."""
    kept = search.keep(centroids)
    return np.concatenate(list(search.run(nearest_in_pieces, [Assign(some, kept) for some in groups_of(pieces)])))


def groups_of(pieces: Sequence[StoredArray]) -> Iterator[tuple[StoredArray, ...]]:
    """Yield groups of consecutive pieces. A group has about `ROWS` embeddings."""
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
    """Return the number of the nearest centroid of each embedding in the task's pieces, in order: (n,)."""
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
    """Yield tasks that together cover all cells in order. A task covers consecutive cells, with about `ROWS` embeddings."""
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


def embeddings_of(pieces: Sequence[StoredArray], starts: Ids, rows: Ids) -> Int8:
    """Return the embeddings with these global numbers: (M,) -> (M, D)."""
    piece = np.searchsorted(starts, rows, side="right") - 1
    found: Int8 = np.empty((len(rows), load(pieces[0]).shape[1]), np.int8)
    for number in np.unique(piece).tolist():
        here = piece == number
        found[here] = load(pieces[number])[rows[here] - starts[number]]
    return found


def moved_in_cells(task: Cells) -> Int8:
    """Return the new centroids of the task's k cells, as `kmeans.moved_centroids` does: (k, D) int8."""
    assert task.centroids is not None
    return moved_centroids(embeddings_of(task.pieces, task.starts, task.rows), task.cells, task.centroids)


def hardness_in_cells(task: Cells) -> tuple[Ids, NDArray[np.float64]]:
    """Return the global numbers of the task's n embeddings, and the cosine of each with its centroid: (n,), (n,)."""
    assert task.centroids is not None
    return task.rows, hardness(embeddings_of(task.pieces, task.starts, task.rows), task.cells, task.centroids)


def duplicates_in_cells(task: Cells) -> tuple[Ids, Ids, NDArray[np.float64]]:
    """Return (numbers, similar, cosines) for the n embeddings in the task's cells: (n,), (n,), (n,).

    `numbers` holds the global number of each embedding. `similar` holds the global number of the most similar embedding that
    ranks before it in its cell. `cosines` holds the cosine of the two. An embedding that is not a duplicate has its own number
    and NaN.
    """
    assert task.rank is not None
    rows = embeddings_of(task.pieces, task.starts, task.rows)
    similar, similarity = semantic_duplicates(rows, task.cells, task.rank, task.cosine)
    return task.rows, task.rows[similar], similarity


def semantic_duplicates_in(
    pieces: Sequence[StoredArray],
    search: DistributedSearch,
    cosine: float,
    *,
    clusters: int,
    rounds: int,
    seed: int,
    rank: Ids | None,
) -> tuple[Ids, NDArray[np.float64]]:
    """Return for each embedding the most similar embedding that ranks before it in its cell, and their cosine: (N,), (N,).

    The result equals the result of `semdedup.semantic_duplicates` for the embeddings of all pieces together.
    If `rank` is None, the embedding that is least similar to its centroid ranks first.
    """
    starts = starts_of(pieces)
    centroids, cells = spherical_cells(pieces, clusters, search, rounds=rounds, seed=seed)
    count = int(starts[-1])
    if rank is None:
        values = np.empty(count)
        for rows, some in search.run(hardness_in_cells, by_cells(pieces, starts, cells, clusters, centroids=centroids)):
            values[rows] = some
        rank = np.empty(count, np.int64)
        rank[np.argsort(values, kind="stable")] = np.arange(count)
    similar, similarity = np.arange(count), np.full(count, np.nan)
    tasks = by_cells(pieces, starts, cells, clusters, rank=rank, cosine=cosine)
    for rows, found, value in search.run(duplicates_in_cells, tasks):
        similar[rows], similarity[rows] = found, value
    return similar, similarity

"""Spherical k-means on int8 embeddings. All sums are of integers, so the cells do not depend on the number of threads.

A cell holds the rows that have the same nearest centroid. N rows, D width, K centroids.
"""

import numpy as np
from numpy.typing import NDArray

from vlmdata.similarity.cosine import Int8, exact_products, quantise, sample_of, squared_norms
from vlmdata.similarity.runs import Ids

BLOCK_PRODUCTS = 1 << 23  # products of rows and centroids computed at a time, 32 MiB


def spherical_kmeans(rows: Int8, clusters: int, *, rounds: int = 20, seed: int = 0) -> tuple[Int8, Ids]:
    """Return the centroids, and for each row the number of the centroid nearest by cosine: (N, D) -> (K, D) int8, (N,).

    K is `clusters`. The centroids start as K rows that are drawn with `seed`, and move in each round. The search ends after
    `rounds` rounds, or earlier if each row keeps its nearest centroid. A centroid that is nearest to no row does not move.
    SemDeDup runs 100 rounds, but the result hardly changes after 20. Raises ValueError if K is not in 1..N.
    """
    if not 1 <= clusters <= len(rows):
        raise ValueError(f"clusters is {clusters}, but it must be from 1 to the number of rows, which is {len(rows)}")
    centroids = rows[sample_of(len(rows), clusters, seed)]
    cells = nearest_centroid(rows, centroids)
    for _ in range(rounds):
        centroids = moved_centroids(rows, cells, centroids)
        before, cells = cells, nearest_centroid(rows, centroids)
        if np.array_equal(before, cells):
            break
    return centroids, cells


def nearest_centroid(rows: Int8, centroids: Int8) -> Ids:
    """Return for each row the number of the centroid with the greatest cosine: (N, D), (K, D) -> (N,).

    The first of equally near centroids is returned.
    """
    scale = 1 / np.sqrt(np.maximum(squared_norms(centroids), 1))
    cells = np.empty(len(rows), np.int64)
    step = max(BLOCK_PRODUCTS // len(centroids), 1)
    for start in range(0, len(rows), step):
        products = exact_products(rows[start : start + step], centroids)
        products *= scale.astype(products.dtype)
        cells[start : start + step] = products.argmax(axis=1)
    return cells


def moved_centroids(rows: Int8, cells: Ids, centroids: Int8) -> Int8:
    """Return for each cell the direction of the sum of its rows, as int8: (K, D). An empty cell keeps its centroid."""
    sums = np.zeros(centroids.shape, np.int64)
    for start in range(0, len(rows), 1 << 16):
        here = cells[start : start + (1 << 16)]
        order = np.argsort(here, kind="stable")
        begins = np.flatnonzero(np.append(True, np.diff(here[order]) > 0))
        block: NDArray[np.int32] = rows[start : start + (1 << 16)][order].astype(np.int32)
        sums[here[order][begins]] += np.add.reduceat(block, begins, axis=0)
    is_empty = ~sums.any(axis=1)
    moved = quantise(sums.astype(np.float64))
    moved[is_empty] = centroids[is_empty]
    return moved

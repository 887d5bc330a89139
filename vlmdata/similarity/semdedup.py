"""SemDeDup drops a row that is too similar to a row that ranks before it in the same k-means cell.

Source: Abbas et al. 2023, SemDeDup, and its released code. An earlier row counts even if it is dropped itself, so only the
first row of a chain of similar rows stays. Cosines are compared by exact integer products, as in `cosine.py`.
"""

import numpy as np
from numpy.typing import NDArray

from vlmdata.similarity.cosine import Int8, exact_products, squared_norms
from vlmdata.similarity.runs import Ids

BLOCK = 1024


def semantic_duplicates(rows: Int8, cells: Ids, rank: Ids, cosine: float) -> tuple[Ids, NDArray[np.float64]]:
    """Return for each row the most similar row that ranks before it in its cell, and their cosine: (N, D) -> (N,), (N,).

    If their cosine is not above `cosine` (1 - eps in the paper), the row itself and NaN are returned. `rank` (N,) holds
    distinct ranks, 0 for the first.
    """
    similar, similarity = np.arange(len(rows)), np.full(len(rows), np.nan)
    order = np.lexsort((rank, cells))
    ends = np.flatnonzero(np.append(np.diff(cells[order]) != 0, True))[: len(rows)] + 1
    for cell in np.split(order, ends[:-1]):
        best, cosines = most_similar_before(rows[cell])
        is_lost = cosines > cosine
        similar[cell[is_lost]] = cell[best[is_lost]]
        similarity[cell[is_lost]] = cosines[is_lost]
    return similar, similarity


def most_similar_before(rows: Int8) -> tuple[Ids, NDArray[np.float64]]:
    """Return for each row the place of the most similar earlier row, and their cosine: (M, D) -> (M,), (M,).

    The first of equally similar rows is returned. The first row and rows of zeros have the cosine -1.
    """
    norms = np.sqrt(squared_norms(rows))
    best, cosines = np.zeros(len(rows), np.int64), np.full(len(rows), -1.0)
    for top in range(0, len(rows), BLOCK):
        block = slice(top, min(top + BLOCK, len(rows)))
        for side in range(0, top + 1, BLOCK):
            columns = slice(side, min(side + BLOCK, len(rows)))
            products = exact_products(rows[block], rows[columns]).astype(np.float64)
            products /= np.maximum(norms[block, None] * norms[columns], 1)
            products[(norms[block, None] == 0) | (norms[columns] == 0)] = -1
            if side == top:
                products[np.triu_indices(len(products))] = -1  # excludes later rows and the row itself
            place = products.argmax(axis=1)
            value = products[np.arange(len(products)), place]
            is_better = value > cosines[block]
            best[block] = np.where(is_better, place + side, best[block])
            cosines[block] = np.maximum(value, cosines[block])
    return best, cosines


def by_hardness(rows: Int8, cells: Ids, centroids: Int8) -> Ids:
    """Return the rank of each row: (N,). The row that is least similar to its centroid has the rank 0.

    Equally similar rows stay in order. This is SemDeDup's option "hard".
    """
    rank = np.empty(len(rows), np.int64)
    rank[np.argsort(hardness(rows, cells, centroids), kind="stable")] = np.arange(len(rows))
    return rank


def hardness(rows: Int8, cells: Ids, centroids: Int8) -> NDArray[np.float64]:
    """Return the cosine of each row with the centroid of its cell: (N,). The row with the least cosine is the hardest."""
    dots = np.einsum("nd,nd->n", rows, centroids[cells], dtype=np.int64)
    norms = np.sqrt(np.maximum(squared_norms(rows), 1)) * np.sqrt(np.maximum(squared_norms(centroids), 1))[cells]
    values: NDArray[np.float64] = dots / norms
    return values


def follow_to_kept(similar: Ids) -> Ids:
    """Return for each row the kept row at the end of its chain of similar rows: (N,) -> (N,).

    `similar` is the first result of `semantic_duplicates`.
    """
    while not np.array_equal(similar[similar], similar):
        similar = similar[similar]
    return similar

"""Find for each vector the K of many others with the highest cosines. N vectors, C others, D width.

float32 products select, with a margin far above their error, and float64 products decide. So the result does not depend on how
the vectors are divided into calls. The products are never all in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from vlmdata.similarity.cosine import single_threaded
from vlmdata.similarity.runs import Ids
from vlmdata.similarity.units import Units, units_of

ROWS = 1024  # vectors that are compared at a time: 16 MiB of products with a block of 4,096
PAIRS = 8192  # candidates whose exact products are computed at a time: 32 MiB at a width of 512
MARGIN = 1e-5  # float32 errs by about 1e-6 here

Doubles = NDArray[np.float64]


@single_threaded()
def highest_cosines(
    vectors: Units, others: Callable[[], Iterable[NDArray[np.floating]]], count: int, *, absolute: bool = False
) -> tuple[Ids, Doubles]:
    """Return the indices of the `count` others with the highest cosines, and these cosines, both (N, count).

    They are in descending order; of equal cosines, the lower index comes first. `others` yields blocks (M, D) of the others in
    order, which need not have unit length, and is called once for every few hundred vectors. There must be at least `count` of
    them. With `absolute`, absolute values of cosines are compared and returned.
    """
    found = np.empty((len(vectors), count), np.int64)
    values = np.empty((len(vectors), count))
    for start in range(0, len(vectors), ROWS):
        here = slice(start, start + ROWS)
        found[here], values[here] = _highest(vectors[here], others(), count, absolute)
    return found, values


def _highest(vectors: Units, blocks: Iterable[NDArray[np.floating]], count: int, absolute: bool) -> tuple[Ids, Doubles]:
    wide = vectors.astype(np.float64)
    row, index, value = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)  # candidates of all vectors
    least = np.full(len(vectors), -np.inf)  # of each vector, the value at place `count` of its candidates
    begin = 0
    for block in blocks:
        units = units_of(block)
        cosines = vectors @ units.T
        if absolute:
            np.abs(cosines, out=cosines)
        if not begin:  # most of the first block would pass, so its own threshold is applied
            place = max(len(units) - count, 0)
            least = np.partition(cosines, place, axis=1)[:, place].astype(np.float64)
        rows, columns = np.nonzero(cosines >= (least - MARGIN).astype(np.float32)[:, None])
        exact = _products(wide, units, rows, columns)
        row, index = np.concatenate([row, rows]), np.concatenate([index, columns + begin])
        value = np.concatenate([value, np.abs(exact) if absolute else exact])
        row, index, value, rank = _ranked(row, index, value)
        least = np.full(len(vectors), -np.inf)
        least[row[rank == count - 1]] = value[rank == count - 1]
        row, index, value = row[rank < count], index[rank < count], value[rank < count]
        begin += len(units)
    return index.reshape(-1, count), value.reshape(-1, count)


def _products(vectors: Doubles, units: Units, rows: Ids, columns: Ids) -> Doubles:
    """Return the exact products of pairs of rows of `vectors` and `units`: (M,), (M,) -> (M,). Equal units give many pairs."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), PAIRS):
        here = slice(start, start + PAIRS)
        found[here] = (vectors[rows[here]] * units[columns[here]].astype(np.float64)).sum(axis=1)
    return found


def _ranked(row: Ids, index: Ids, value: Doubles) -> tuple[Ids, Ids, Doubles, Ids]:
    """Return the candidates sorted by row, then from the highest value, then by index, and the rank of each in its row."""
    order = np.lexsort((index, -value, row))
    row, index, value = row[order], index[order], value[order]
    return row, index, value, np.arange(len(row)) - np.searchsorted(row, row)

"""Find exactly all pairs of embeddings whose cosine is above a limit. Threads, block order and BLAS do not change the result.

N rows, D width. Vectors are int8, which takes a quarter of the memory of fp32 and changes a cosine by at most a few
thousandths. The search has two stages. A float filter on part of the width excludes most pairs. For the other pairs, exact
integer products decide. The filter cuts unit vectors into a head and a tail, and multiplies only the heads. It uses the bound
cos = head . head + tail . tail <= head . head + |tail| |tail|, with a margin far above the float error.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmdata.similarity.runs import Ids
from vlmdata.splitmix import mixed

Int8 = NDArray[np.int8]  # (N, D)
Floats = NDArray[np.float32]

BLOCK = 4096
STRIP = 256  # rows of a block multiplied at a time: 4 MiB
EXACT_WIDTH = 1040  # up to this width float32 adds products of int8 exactly in any order: all sums stay under 2**24
MARGIN = 1e-4  # float32 errs by about 1e-6 here
HEADS = (32, 64, 96, 128, 192, 256, 384)
VERIFY_COST = 20  # an exact product costs about as much as this many filter products of the same width


@contextmanager
def single_threaded() -> Iterator[None]:
    """Let BLAS use one thread in the block or function. Without the package threadpoolctl, the search is only slower."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with threadpool_limits(1, "blas"):
        yield


def quantise(vectors: NDArray[np.floating]) -> Int8:
    """Return rows as int8: (N, D) -> (N, D). Each row is scaled so that its largest absolute entry is 127, and rounded.

    A row of zeros stays zero. Raises ValueError if an entry is not finite.
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0).astype(np.float64)
    if not np.isfinite(largest).all():
        raise ValueError(f"row {int(np.flatnonzero(~np.isfinite(largest[:, 0]))[0])} has an entry that is not finite")
    scaled = vectors / np.where(largest > 0, largest, 1) * 127
    return np.rint(scaled).astype(np.int8)


def squared_norms(rows: Int8) -> Ids:
    """Return the exact sum of squares of each row: (N, D) -> (N,)."""
    return np.einsum("nd,nd->n", rows, rows, dtype=np.int64)


def pairs_above(rows: Int8, cosine: float, *, threads: int = 1) -> Iterator[Ids]:
    """Yield every pair of rows i < j with a cosine above `cosine`, in chunks (M, 2).

    Each pair is yielded once. Rows of zeros have no pairs.
    """
    filtered = head_and_tail(rows, cosine)
    corners = [(top, side) for top in range(0, len(rows), BLOCK) for side in range(top, len(rows), BLOCK)]

    def block(corner: tuple[int, int]) -> Ids:
        pairs = near_in_block(filtered, filtered, cosine, corner)
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        return pairs[is_above(rows, rows, pairs, cosine)]

    yield from in_threads(block, corners, threads)


def pairs_between(rows: Int8, references: Int8, cosine: float, *, threads: int = 1) -> Iterator[Ids]:
    """Yield, in chunks (M, 2), every pair (row, reference) with a cosine above `cosine`: (N, D), (R, D)."""
    both = head_and_tail(np.concatenate([rows, references]), cosine)
    corners = [(top, side) for top in range(0, len(rows), BLOCK) for side in range(0, len(references), BLOCK)]

    def block(corner: tuple[int, int]) -> Ids:
        pairs = near_in_block(both[: len(rows)], both[len(rows) :], cosine, corner)
        return pairs[is_above(rows, references, pairs, cosine)]

    yield from in_threads(block, corners, threads)


def in_threads(work: Callable[[tuple[int, int]], Ids], corners: list[tuple[int, int]], threads: int) -> Iterator[Ids]:
    """Yield the pairs that `work` returns for each block, in the order of `corners`.

    A corner holds the first row and column of a block. Each thread takes whole blocks, and BLAS uses one thread per product.
    With several threads, BLAS is slower on such small products: on a busy machine it needed five times as long.
    """
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(corners), 8 * threads):  # few at once, to bound the pairs in memory
            with single_threaded():
                found = list(pool.map(work, corners[start : start + 8 * threads]))
            yield from found


def near_in_block(filtered: Floats, others: Floats, cosine: float, corner: tuple[int, int]) -> Ids:
    """Return the pairs of one block that pass the filter: (M, 2). `corner` holds the first row and column of the block.

    `filtered` and `others` are results of `head_and_tail`.
    """
    top, side = corner
    left, right = filtered[top : top + BLOCK], others[side : side + BLOCK]
    found = []
    upper = np.empty((min(STRIP, len(left)), len(right)), np.float32)  # reused, because allocating takes longer than a product
    for start in range(0, len(left), STRIP):
        strip = left[start : start + STRIP]
        bound = np.matmul(strip, right.T, out=upper[: len(strip)])
        places = np.flatnonzero(bound > np.float32(cosine - MARGIN))
        found.append(np.stack([places // len(right) + (top + start), places % len(right) + side], axis=1))
    return np.concatenate(found)


def is_above(rows: Int8, others: Int8, pairs: Ids, cosine: float) -> NDArray[np.bool_]:
    """Say for each pair whether its cosine is above `cosine`: (M, 2) -> (M,).

    Products and norms are exact integers, and are compared in float64.
    """
    dots = np.empty(len(pairs), np.float64)
    kind: Any = np.float32 if rows.shape[1] <= EXACT_WIDTH else np.float64
    for start in range(0, len(pairs), 512):  # small enough for the cache
        some = pairs[start : start + 512]
        left, right = rows[some[:, 0]].astype(kind), others[some[:, 1]].astype(kind)
        dots[start : start + 512] = np.einsum("nd,nd->n", left, right)
    used, places = np.unique(pairs[:, 0], return_inverse=True)
    used_others, places_others = np.unique(pairs[:, 1], return_inverse=True)
    norms = squared_norms(rows[used])[places].astype(np.float64) * squared_norms(others[used_others])[places_others]
    return (dots > cosine * np.sqrt(norms)) & (norms > 0)


@single_threaded()
def head_and_tail(rows: Int8, cosine: float) -> Floats:
    """Scale rows to unit length, and shorten them for the filter in `near_in_block`: (N, D) -> (N, H + 1).

    A rotation brings most of the length of the rows into the first axes. The first H columns are the head of each rotated row,
    and the last column is the length of its tail. H is the width with the least estimated cost.
    """
    norms = np.sqrt(np.maximum(squared_norms(rows), 1)).astype(np.float32)
    sample = sample_of(len(rows), 2000)
    units: Floats = (rows[sample] / norms[sample, None]).astype(np.float32)
    _, axes = np.linalg.eigh(units.T @ units)  # in ascending order of their eigenvalues
    rotation: Floats = np.ascontiguousarray(axes[:, ::-1]).astype(np.float32)
    width = best_head(units @ rotation, cosine)
    head = np.empty((len(rows), width + 1), np.float32)
    for start in range(0, len(rows), BLOCK):
        block: Floats = (rows[start : start + BLOCK] / norms[start : start + BLOCK, None]).astype(np.float32)
        head[start : start + BLOCK] = cut_rows(block @ rotation, width)
    return head


def cut_rows(units: Floats, width: int) -> Floats:
    """Return the first `width` columns, and the length of the rest of each row as the last column: (N, D) -> (N, width + 1)."""
    tail = np.sqrt(np.einsum("nd,nd->n", units[:, width:], units[:, width:]))
    return np.concatenate([units[:, :width], tail[:, None]], axis=1)


def best_head(sample: Floats, cosine: float) -> int:
    """Return the width of the head that gives the least total cost of the filter and of the exact products after it.

    The number of pairs that pass the filter is estimated from the pairs of `sample`.
    """
    full = sample.shape[1]
    costs = {full: float(full)}
    for width in (width for width in HEADS if width < full):
        cut = cut_rows(sample, width)
        near = np.count_nonzero(np.triu(cut @ cut.T > cosine - MARGIN, 1)) / max(len(cut) * (len(cut) - 1) / 2, 1)
        costs[width] = width + VERIFY_COST * full * near
    return min(costs, key=lambda width: (costs[width], width))


def sample_of(count: int, size: int, seed: int = 0) -> Ids:
    """Return up to `size` of the places 0..count-1 in ascending order, chosen by a hash of the place and the seed."""
    start = mixed(np.full(count, seed, np.uint64))
    places: NDArray[np.uint64] = np.arange(1, count + 1).astype(np.uint64)
    return np.sort(np.argsort(mixed(start + places), kind="stable")[:size])


def exact_products(rows: Int8, others: Int8) -> Floats:
    """Return the dot product of each row with each of `others`: (N, D), (K, D) -> (N, K).

    The products are exact integers, stored as float32 or, for widths above `EXACT_WIDTH`, as float64.
    """
    kind: Any = np.float32 if rows.shape[1] <= EXACT_WIDTH else np.float64
    products: Floats = rows.astype(kind) @ others.astype(kind).T
    return products


def greatest_cosine(rows: Int8, references: Int8) -> NDArray[np.float64]:
    """Return the greatest cosine of each row with a reference: (N, D), (R, D) -> (N,). A row of zeros has the cosine 0."""
    found = np.full(len(rows), -1.0)
    scale = 1 / np.sqrt(np.maximum(squared_norms(references), 1))
    step = max((1 << 24) // max(len(references), 1), 1)
    for start in range(0, len(rows), step):
        products = exact_products(rows[start : start + step], references).astype(np.float64) * scale
        found[start : start + step] = products.max(axis=1, initial=-np.inf)
    return found / np.sqrt(np.maximum(squared_norms(rows), 1))

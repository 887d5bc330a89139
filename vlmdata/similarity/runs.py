"""Find pairs of equal values in a sorted array, and join chunks (M, 2) of pairs."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Pairs = TypeVar("Pairs", NDArray[np.int64], NDArray[np.uint64])


def pairs_in_runs(key: NDArray[np.uint64], most: int = 1 << 18) -> Iterator[Ids]:
    """Yield every pair of places i < j with equal keys, in chunks (M, 2) of up to `most` pairs. `key` (N,) is sorted.

    Pairs with j - i = 1 are yielded first for all runs, then pairs with j - i = 2, and so on.
    """
    ends = np.flatnonzero(np.append(key[1:] != key[:-1], True)) + 1 if len(key) else np.zeros(0, np.int64)
    behind = np.repeat(ends, np.diff(ends, prepend=0)) - np.arange(len(key)) - 1  # number of later places in the same run
    here = np.flatnonzero(behind)
    offset = 1
    while len(here):
        for start in range(0, len(here), most):
            some = here[start : start + most]
            yield np.stack([some, some + offset], axis=1)
        offset += 1
        here = here[behind[here] >= offset]


def batched_rows(chunks: Iterable[Pairs], size: int) -> Iterator[Pairs]:
    """Join chunks and yield chunks of at least `size` rows. The last chunk may be smaller.

    Fewer and larger chunks save the fixed cost that later stages have for each chunk.
    """
    held: list[Pairs] = []
    count = 0
    for chunk in chunks:
        held.append(chunk)
        count += len(chunk)
        if count >= size:
            yield np.concatenate(held)
            held, count = [], 0
    if count:
        yield np.concatenate(held)

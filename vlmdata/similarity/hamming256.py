"""Find all pairs of 256-bit hashes (PDQ's length) within a Hamming distance, exactly.

The search cuts each hash into `distance + 2` blocks of bits, as the search over 64-bit hashes does. Two hashes within the
distance agree on at least two whole blocks. Each pair of blocks is a table. For each table, the hashes are sorted by the bits
of both blocks, and hashes with equal bits are compared. PDQ's usual distance of 31 needs 528 tables with keys of 14 to 16 bits,
so the time grows with the square of the number of hashes. The search is meant for up to about a million hashes.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from vlmdata.similarity.runs import Ids, pairs_in_runs

MAX_DISTANCE = 126
Words = NDArray[np.uint64]  # (N, 4), the first word holds the top bits


def distinct_pairs_256(distinct: Words, distance: int) -> Iterator[Ids]:
    """Yield once, in chunks (M, 2), every pair of places in `distinct` whose hashes are within the distance."""
    edges = [256 * i // (distance + 2) for i in range(distance + 3)]
    blocks = [block_bits(distinct, begin, end) for begin, end in pairwise(edges)]
    columns = [np.ascontiguousarray(distinct[:, word]) for word in range(4)]
    for first, second in combinations(range(len(blocks)), 2):
        key = blocks[first] << np.uint64(32) | blocks[second]
        order = np.argsort(key, kind="stable")
        for pairs in near_in_runs(key[order], order, columns, distance):
            yield pairs[is_first(pairs, blocks[:second], first)]


def block_bits(hashes: Words, begin: int, end: int) -> NDArray[np.uint64]:
    """Return the bits from `begin` to `end`, counted from the top, as a number of at most 32 bits: (N, 4) -> (N,).

    A block has at most 128 bits. A block of more than 32 bits is hashed, so that equal bits give equal numbers.
    """
    value = np.zeros(len(hashes), np.uint64)
    for word in range(begin // 64, (end - 1) // 64 + 1):
        low, high = max(begin, 64 * word) - 64 * word, min(end, 64 * word + 64) - 64 * word
        bits = (hashes[:, word] << np.uint64(low)) >> np.uint64(64 - (high - low))
        value = value * np.uint64(0x9E3779B97F4A7C15) + bits if end - begin > 32 else value << np.uint64(high - low) | bits
    return value >> np.uint64(32) if end - begin > 32 else value


def is_first(pairs: Ids, blocks: list[NDArray[np.uint64]], first: int) -> NDArray[np.bool_]:
    """Return for each pair of hashes whether this table is the first to find it: (M, 2) -> (M,).

    A table finds the pairs of hashes that agree on its two blocks. `first` is the number of its first block. `blocks` holds the
    bits of all blocks that precede its second block. If a pair also agrees on a block in `blocks` other than number `first`,
    an earlier table has found the pair.
    """
    is_new = np.ones(len(pairs), bool)
    for number, block in enumerate(blocks):
        if number != first:
            is_new &= block[pairs[:, 0]] != block[pairs[:, 1]]
    return is_new


def near_in_runs(key: Words, order: Ids, columns: list[Words], distance: int) -> Iterator[Ids]:
    """Yield the pairs of hashes that have equal keys and differ in at most `distance` bits, in chunks (M, 2) of their places.

    `key` is sorted, and `key[i]` is the key of the hash at the place `order[i]`. `columns` holds four arrays (N,), one for each
    64-bit word of the hashes. The arrays are indexed by place.
    """
    for places in pairs_in_runs(key):
        left, right = order[places[:, 0]], order[places[:, 1]]
        bits = np.zeros(len(left), np.uint16)
        for column in columns:  # the first word excludes most pairs
            bits += np.bitwise_count(column[left] ^ column[right])
            close = bits <= distance
            left, right, bits = left[close], right[close], bits[close]
        if len(left):
            yield np.stack([left, right], axis=1)

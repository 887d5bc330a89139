"""Hashes for the tests that are distributed like those of pictures: some are near copies, some equal, some almost zero."""

import numpy as np
from numpy.typing import NDArray


def lifelike(count: int, seed: int = 0) -> NDArray[np.uint64]:
    """Return hashes of which a third are copies of others with 0 to 12 bits flipped, and a tenth are zero or near zero."""
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**64, count, dtype=np.uint64)
    blank = random.random(count) < 0.1
    hashes[blank] = 0
    copies = np.flatnonzero(random.random(count) < 0.35)
    source = hashes[random.integers(0, count, len(copies))]
    for _ in range(12):
        flips = np.uint64(1) << random.integers(0, 64, len(copies)).astype(np.uint64)
        source ^= np.where(random.random(len(copies)) < 0.4, flips, np.uint64(0))
    hashes[copies] = source
    return hashes


def brute_pairs(hashes: NDArray[np.uint64], distance: int) -> NDArray[np.int64]:
    """Return all pairs i < j within the distance, found by comparing all: (N,) or (N, words) -> (M, 2)."""
    words = hashes.reshape(len(hashes), -1)
    bits = sum(np.bitwise_count(word[:, None] ^ word).astype(np.int64) for word in words.T)
    return np.argwhere(np.triu(np.asarray(bits) <= distance, 1))

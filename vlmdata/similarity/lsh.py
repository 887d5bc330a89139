"""Pairs of similar texts from MinHash signatures: locality-sensitive hashing in bands, then the exact Jaccard similarity.

Cut a signature into b bands of r values. Texts that agree on a whole band are candidates; a pair of similarity s is one
with probability 1 - (1 - s**r)**b. Verification removes every false candidate, so precision is 1 and that curve is recall.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vlmdata.similarity.grams import Grams, Hashes
from vlmdata.similarity.hamming import equal_groups, star_edges
from vlmdata.similarity.minhash import Signatures, jaccard, sketch
from vlmdata.similarity.runs import Ids, batched_rows, pairs_in_runs
from vlmdata.splitmix import mixed


def similar_texts(
    texts: Sequence[str],
    threshold: float,
    grams: Callable[[Sequence[str]], Grams],
    *,
    permutations: int = 128,
    recall: float = 0.99,
) -> tuple[Ids, Ids, Ids]:
    """Return (pairs, groups, starts): texts in groups with equal grams, and every found pair of groups, by number, whose
    Jaccard similarity is at least `threshold`; a pair at the threshold itself is found with probability `recall` or more.

    `groups` and `starts` are as `hamming.equal_groups` gives them. Texts without grams stand alone.
    """
    sketches = sketch(texts, grams, permutations=permutations)
    _, groups, starts = equal_groups(apart(sketches.fingerprints))
    first = groups[starts[:-1]]
    bands, rows = bands_for(threshold, permutations, recall)
    keys = band_keys(sketches.signatures[first], bands, rows)
    keys[:, sketches.fingerprints[first] == 0] = mixed(np.arange((sketches.fingerprints[first] == 0).sum(), dtype=np.uint64))
    chunks = batched_rows(candidates(keys), 1 << 20)
    found = [pairs[jaccard(first[pairs], texts, grams) >= threshold] for pairs in chunks]
    return np.concatenate([np.zeros((0, 2), np.int64), *found]), groups, starts


def similar_text_edges(texts: Sequence[str], threshold: float, grams: Callable[[Sequence[str]], Grams]) -> Ids:
    """Return pairs of texts, a star for each group with equal grams and a pair for two similar groups: (M, 2)."""
    pairs, groups, starts = similar_texts(texts, threshold, grams)
    return np.concatenate([star_edges(groups, starts), np.sort(groups[starts[pairs]], axis=1)])


def apart(fingerprints: Hashes) -> Hashes:
    """Give each text without grams a fingerprint of its own, so that empty texts are no duplicates of each other."""
    own = fingerprints.copy()
    empty = np.flatnonzero(own == 0)
    own[empty] = mixed(empty.astype(np.uint64) + np.uint64(1 << 63))
    return own


def bands_for(threshold: float, permutations: int, recall: float) -> tuple[int, int]:
    """Return (bands, rows): the longest bands, so the fewest false candidates, that still give the recall at the threshold."""
    for rows in range(permutations, 0, -1):
        if caught(threshold, permutations // rows, rows) >= recall:
            return permutations // rows, rows
    raise ValueError(f"{permutations} permutations cannot give recall {recall} at Jaccard {threshold}: take more of them")


def caught(similarity: float | NDArray[np.float64], bands: int, rows: int) -> float | NDArray[np.float64]:
    """Return the probability that a pair of this Jaccard similarity becomes a candidate.

    Source: Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4."""
    return 1 - (1 - similarity**rows) ** bands


def band_keys(signatures: Signatures, bands: int, rows: int) -> Hashes:
    """Return one 64-bit key for each band of each text: (N, permutations) -> (bands, N)."""
    keys = np.zeros((bands, len(signatures)), np.uint64)
    for band in range(bands):
        for row in range(band * rows, (band + 1) * rows):
            keys[band] = mixed(keys[band] + signatures[:, row] + np.uint64(1))
    return keys


def candidates(keys: Hashes) -> Iterator[Ids]:
    """Yield chunks of the pairs that agree on some band, (M, 2), each pair once: from the first band it agrees on."""
    for band in range(len(keys)):
        yield from candidates_of(keys, band)


def candidates_of(keys: Hashes, band: int) -> Iterator[Ids]:
    """Yield the pairs that this band is the first to bring together: bands can run anywhere, in any order."""
    order = np.argsort(keys[band], kind="stable")
    for places in pairs_in_runs(keys[band][order]):
        pairs = np.sort(order[places], axis=1)
        is_new = np.ones(len(pairs), bool)
        for earlier in range(band):
            is_new &= keys[earlier][pairs[:, 0]] != keys[earlier][pairs[:, 1]]
        yield pairs[is_new]

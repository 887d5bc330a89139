"""Find pairs of similar texts by locality-sensitive hashing of MinHash signatures, and verify their Jaccard similarity.

A signature is cut into b bands of r values. Two texts that agree on a whole band are a candidate pair. A pair of similarity s
becomes a candidate with probability `1 - (1 - s**r)**b`. The exact similarity then removes every false candidate, so the
precision is 1 and this probability is the recall.
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
    """Return (pairs, groups, starts): pairs (M, 2) of similar groups, and the groups, which are texts with equal grams.

    `groups` and `starts` have the form that `hamming.equal_groups` returns. Each text without grams is a group that contains
    only this text. A pair holds the numbers of two groups with a Jaccard similarity of at least `threshold`. A pair at the
    threshold is found with probability `recall` or more.
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
    """Return pairs of texts (M, 2) that connect all similar texts.

    In a group of texts with equal grams, the first text is paired with each other text. If two groups are similar, only their
    first texts are paired.
    """
    pairs, groups, starts = similar_texts(texts, threshold, grams)
    return np.concatenate([star_edges(groups, starts), np.sort(groups[starts[pairs]], axis=1)])


def apart(fingerprints: Hashes) -> Hashes:
    """Return the fingerprints, but give each text without grams a unique fingerprint, so that such texts are not duplicates."""
    own = fingerprints.copy()
    empty = np.flatnonzero(own == 0)
    own[empty] = mixed(empty.astype(np.uint64) + np.uint64(1 << 63))
    return own


def bands_for(threshold: float, permutations: int, recall: float) -> tuple[int, int]:
    """Return the number of bands, and the number of signature values in each band.

    A pair of similarity `threshold` becomes a candidate with probability `recall` or more. A band has as many values as
    possible, because more values in a band give fewer false candidates. Raises ValueError if the permutations are too few.
    """
    for rows in range(permutations, 0, -1):
        if caught(threshold, permutations // rows, rows) >= recall:
            return permutations // rows, rows
    raise ValueError(f"{permutations} permutations cannot reach recall {recall} at Jaccard {threshold}. Use more permutations")


def caught(similarity: float | NDArray[np.float64], bands: int, rows: int) -> float | NDArray[np.float64]:
    """Return the probability that a pair of this Jaccard similarity becomes a candidate. A band has `rows` signature values.

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
    """Yield chunks (M, 2) of the pairs of texts that agree on a band. Each pair is yielded once, by the first such band."""
    for band in range(len(keys)):
        yield from candidates_of(keys, band)


def candidates_of(keys: Hashes, band: int) -> Iterator[Ids]:
    """Yield chunks (M, 2) of the pairs that agree on this band and on no earlier band. Calls are independent of each other."""
    order = np.argsort(keys[band], kind="stable")
    for places in pairs_in_runs(keys[band][order]):
        pairs = np.sort(order[places], axis=1)
        is_new = np.ones(len(pairs), bool)
        for earlier in range(band):
            is_new &= keys[earlier][pairs[:, 0]] != keys[earlier][pairs[:, 1]]
        yield pairs[is_new]

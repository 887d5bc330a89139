"""MinHash signatures of texts.

The share of places where two signatures are equal estimates the Jaccard similarity of their grams. Signatures are computed here
with numpy, because a library may compute other signatures in its next version. The same texts must always give the same
dataset, so a test fixes some of the values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vlmdata.similarity.grams import Grams, Hashes, batches, character_grams, word_grams
from vlmdata.splitmix import mixed

Signatures = NDArray[np.uint32]  # (texts, permutations)

EMPTY = np.uint32(0xFFFFFFFF)  # every value in the signature of a text without grams


@dataclass(frozen=True)
class Sketches:
    """Signatures and fingerprints of texts. Two texts with equal fingerprints contain the same grams equally often.

    A text without grams has the fingerprint 0.
    """

    signatures: Signatures
    fingerprints: Hashes  # (texts,)


def grams_of(n: int, *, characters: bool = False) -> Callable[[Sequence[str]], Grams]:
    """Return a function that returns the n-grams of texts. The n-grams are of words, or of characters if `characters` is True.

    Characters are meant for languages without spaces between words, such as Chinese, Japanese and Thai.
    """
    return partial(character_grams if characters else word_grams, n=n)


def sketch(texts: Sequence[str], grams: Callable[[Sequence[str]], Grams], *, permutations: int = 128) -> Sketches:
    """Return the signatures and fingerprints of texts. Each signature and fingerprint depends only on its text."""
    signatures = np.empty((len(texts), permutations), np.uint32)
    fingerprints = np.empty(len(texts), np.uint64)
    start = 0
    for batch in batches(texts):  # small enough for a core's cache
        end = start + len(batch)
        some = grams(batch)
        signatures[start:end] = minima(some, permutations)
        fingerprints[start:end] = fingerprint(some)
        start = end
    return Sketches(signatures, fingerprints)


def multipliers(permutations: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return an odd factor a and a summand b for each permutation `a * x + b`: (permutations,), (permutations,).

    The values are hashes of a counter, so they do not depend on the random generator of a library.
    """
    values = mixed(np.arange(1, 2 * permutations + 1, dtype=np.uint64))
    words = (values >> np.uint64(32)).astype(np.uint32)
    return words[::2] | np.uint32(1), words[1::2]


def minima(grams: Grams, permutations: int) -> Signatures:
    """Return the least value of each text's grams under each permutation `a * x + b` modulo 2**32: (texts, permutations)."""
    filled = np.flatnonzero(np.diff(grams.starts))
    signatures = np.full((len(grams.starts) - 1, permutations), EMPTY)
    if not len(filled):
        return signatures
    values = (grams.hashes >> np.uint64(32)).astype(np.uint32)
    moved = np.empty_like(values)
    columns = np.empty((permutations, len(filled)), np.uint32)
    for number, (a, b) in enumerate(zip(*multipliers(permutations), strict=True)):
        np.multiply(values, a, out=moved)
        np.add(moved, b, out=moved)
        np.minimum.reduceat(moved, grams.starts[filled], out=columns[number])
    signatures[filled] = columns.T
    return signatures


def fingerprint(grams: Grams) -> Hashes:
    """Return a hash for each text, or 0 for a text without grams: (texts,).

    The hash is made from the sum of the text's grams modulo 2**64.
    """
    filled = np.flatnonzero(np.diff(grams.starts))
    sums = np.zeros(len(grams.starts) - 1, np.uint64)
    if len(filled):
        sums[filled] = mixed(np.add.reduceat(mixed(grams.hashes), grams.starts[filled]))
    return sums


def jaccard(pairs: NDArray[np.int64], texts: Sequence[str], grams: Callable[[Sequence[str]], Grams]) -> NDArray[np.float64]:
    """Return the Jaccard similarity of the gram sets of pairs of texts: (M, 2) -> (M,). Two texts without grams have 0.

    The result is exact, except if two grams of a pair have the same 40-bit hash. This happens in about one of 100 million pairs
    of texts with 100 words.
    """
    found = np.empty(len(pairs))
    for start in range(0, len(pairs), 1 << 15):
        some = pairs[start : start + (1 << 15)]
        used, places = np.unique(some, return_inverse=True)
        sets = distinct(grams([texts[text] for text in used]))
        found[start : start + len(some)] = overlap(places.reshape(-1, 2), sets)
    return found


def distinct(grams: Grams) -> Grams:
    """Return each text's set of grams as 40-bit numbers in ascending order."""
    texts = grams.texts()
    values = grams.hashes >> np.uint64(24)
    order = np.lexsort((values, texts))
    values, texts = values[order], texts[order]
    is_new = np.ones(len(values), bool)
    is_new[1:] = (values[1:] != values[:-1]) | (texts[1:] != texts[:-1])
    counts = np.bincount(texts[is_new], minlength=len(grams.starts) - 1)
    return Grams(values[is_new], np.concatenate([[0], np.cumsum(counts)]))


def overlap(pairs: NDArray[np.int64], sets: Grams) -> NDArray[np.float64]:
    """Return the Jaccard similarity, `len(A & B) / len(A | B)`, of M < 2**24 pairs of gram sets: (M, 2) -> (M,)."""
    sizes = np.diff(sets.starts)[pairs]  # (M, 2)
    counts = sizes.ravel()
    which = np.repeat(np.arange(len(counts)), counts)
    inside = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    values = sets.hashes[sets.starts[pairs.ravel()][which] + inside]
    values |= (which // 2).astype(np.uint64) << np.uint64(40)
    values.sort()
    twice = values[1:][values[1:] == values[:-1]] >> np.uint64(40)
    both = np.bincount(twice.astype(np.int64), minlength=len(pairs))
    either = sizes.sum(axis=1) - both
    return both / np.maximum(either, 1)

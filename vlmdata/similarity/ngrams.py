"""Measure how much of a text is in word n-grams of evaluation texts, and find the entries of a list that a text contains.

The 13-gram rule is from Brown et al. 2020, GPT-3, appendix C. It uses lower-cased words without punctuation, and an n between 8
and 13 that depends on the length of the evaluation texts. Here n is fixed. An evaluation text of fewer than n words is one gram
if it has at least `min_words` words. In scripts without spaces between words each letter is hashed, and two letters count as a
word.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlmdata.similarity.grams import Hashes, full_windows, word_hashes
from vlmdata.similarity.runs import Ids
from vlmdata.text.words import LETTERS_A_WORD, has_unspaced

Index = dict[int, Hashes]  # number of words -> the distinct hashes of n-grams of that length, ascending


def index_of(texts: Sequence[str], n: int, *, min_words: int) -> Index:
    """Return a mapping from each number of words to the hashes of the grams with this number of words.

    The grams of a text are its n-grams. A text of `min_words` to n - 1 words is one gram, and a shorter text has no gram. If a
    text has a letter of a script without spaces, its letters count as words, and its grams are `LETTERS_A_WORD` times as long.
    """
    index: Index = {}
    by_letters = [has_unspaced(text) for text in texts]
    for letters, times in ((False, 1), (True, LETTERS_A_WORD)):
        flat, sizes = word_hashes([text for text, has in zip(texts, by_letters, strict=True) if has == letters])
        for length in range(min_words * times, n * times + 1):
            hashes, owners, _ = full_windows(flat, sizes, length)
            chosen = hashes if length == n * times else hashes[sizes[owners] == length]
            if len(chosen):
                index[length] = np.unique(np.concatenate([index.get(length, chosen[:0]), chosen]))
    return index


def coverage(texts: Sequence[str], index: Index) -> NDArray[np.float64]:
    """Return for each text the share, 0..1, of its words that are in n-grams of the index: (texts,).

    The share of a text without words is 0.
    """
    flat, sizes = word_hashes(texts)
    edges = np.zeros(len(flat) + 1, np.int64)
    for length, known in index.items():
        hashes, _, first = full_windows(flat, sizes, length)
        hit = first[is_in(hashes, known)]
        np.add.at(edges, hit, 1)
        np.add.at(edges, hit + length, -1)
    covered = np.cumsum(edges)[:-1] > 0
    owners = np.repeat(np.arange(len(sizes)), sizes)
    return np.bincount(owners[covered], minlength=len(sizes)) / np.maximum(sizes, 1)


def contained(texts: Sequence[str], entries: Sequence[str]) -> Ids:
    """Return every pair (text, entry) where the text contains the entry's words consecutively: (M, 2), sorted, each pair once.

    Entries match whole words, so "art" is not in "party". In scripts without spaces they match consecutive letters. If several
    entries have the same words, only the first is returned.
    """
    flat, sizes = word_hashes(texts)
    entry_flat, entry_sizes = word_hashes(entries)
    found = [np.zeros((0, 2), np.int64)]
    for length in np.unique(entry_sizes[entry_sizes > 0]).tolist():
        hashes, owners, _ = full_windows(entry_flat, entry_sizes, length)
        whole = entry_sizes[owners] == length
        known, first = np.unique(hashes[whole], return_index=True)
        numbers = owners[whole][first]
        hashes, text, _ = full_windows(flat, sizes, length)
        place = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        hit = known[place] == hashes
        found.append(np.stack([text[hit], numbers[place[hit]]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def is_in(hashes: Hashes, known: Hashes) -> NDArray[np.bool_]:
    """Say for each hash whether it is in `known`, which is in ascending order."""
    place = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return known[place] == hashes

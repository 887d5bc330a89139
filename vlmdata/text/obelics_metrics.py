"""The text measures of OBELICS's filters.

Source: Laurençon et al. 2023, appendix A.1, and the released code (huggingface/OBELICS). Words are separated by spaces, tabs
and line breaks, in lower case, and stripped of special characters; empty ones do not count.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from vlmdata.text.special_characters import SPACES, SPECIAL_TEXT, WITHOUT_SPECIAL

_TOKEN = re.compile(r"[\w']+|[,;:?!.]")
_PUNCTUATION = frozenset(",;:?!.")
_SPLIT = re.compile(r"[ \n\t]+")
_LONG = 400  # from this number of characters, counting hashes is faster


class Metrics(NamedTuple):
    """Measures of a text. Ratios are in [0, 1]; without a word list, its ratio is None and its rule is off."""

    words: int
    char_repetition: float
    word_repetition: float
    special: float
    punctuation: float
    stop_words: float | None
    flagged_words: float | None
    common_words: float | None
    spam_words: float | None


class WordLists(NamedTuple):
    """Lists of words in lower case; None: no list."""

    stop: frozenset[str] | None = None
    flagged: frozenset[str] | None = None
    common: frozenset[str] | None = None
    spam: frozenset[str] | None = None


def measure(text: str, lists: WordLists, *, min_tokens: int = 0) -> Metrics:
    """Measure one text. With fewer than `min_tokens` words and punctuation marks, its punctuation ratio is 1."""
    text = text.translate(SPACES) if not text.isascii() else text
    found = words_of(text)
    return Metrics(
        len(found),
        char_repetition(text),
        word_repetition(found),
        special_ratio(text),
        punctuation_ratio(text, min_tokens),
        *(None if words is None else share_in(found, words) for words in lists),
    )


def words_of(text: str) -> list[str]:
    """Return the words of a text."""
    return [word for part in _SPLIT.split(text) if (word := part.lower().strip(SPECIAL_TEXT))]


def char_repetition(text: str, size: int = 10) -> float:
    """Return the share of the most frequent character n-grams of `size` in all, in [0, 1].

    Their number is the square root of the number of different n-grams; those that occur only once do not count.
    """
    if len(text) < size:
        return 0.0
    counts = _gram_counts(text, size)
    kinds, total = len(counts), int(counts.sum())
    top = min(math.isqrt(kinds), kinds - int((counts == 1).sum()))
    return float(np.sort(counts)[::-1][:top].sum() / total) if top else 0.0


def _gram_counts(text: str, size: int) -> np.ndarray:
    if len(text) < _LONG:
        grams = Counter([text[i : i + size] for i in range(len(text) - size + 1)])
        return np.fromiter(grams.values(), np.int64, len(grams))
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    hashes = np.zeros(len(codes) - size + 1, np.uint64)
    for i in range(size):  # a polynomial modulo 2^64; its base is the odd integer of the golden ratio
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + codes[i : len(hashes) + i]
        hashes ^= hashes >> np.uint64(29)
    return np.unique(hashes, return_counts=True)[1]


def word_repetition(words: list[str], size: int = 5) -> float:
    """Return the share of word n-grams of `size` that occur more than once."""
    grams = Counter([" ".join(words[i : i + size]) for i in range(len(words) - size + 1)])
    return sum(count for count in grams.values() if count > 1) / grams.total() if grams else 0.0


def special_ratio(text: str) -> float:
    """Return the share of special characters: punctuation, digits, white space, symbols, emoji."""
    return (len(text) - len(text.translate(WITHOUT_SPECIAL))) / len(text) if text else 0.0


def punctuation_ratio(text: str, min_tokens: int = 0) -> float:
    """Return the share of `, ; : ? ! .` among these and the words; 1 if there are fewer than `min_tokens` of both."""
    tokens = _TOKEN.findall(text)
    if not tokens:
        return 0.0
    return 1.0 if len(tokens) < min_tokens else sum(token in _PUNCTUATION for token in tokens) / len(tokens)


def share_in(words: list[str], listed: Collection[str]) -> float:
    """Return the share of words that are in a list; 0 without words."""
    return sum(word in listed for word in words) / len(words) if words else 0.0

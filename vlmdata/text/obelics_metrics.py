"""The measures of a text that OBELICS filters by, with its own definitions.

Source: Laurençon et al. 2023, appendix A.1, and the released code (huggingface/OBELICS). A word is what stands between
spaces, tabs and line breaks, in lower case, without special characters at its ends; one that is nothing else is none.
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
_LONG = 400  # characters from which counting by hashes is faster


class Metrics(NamedTuple):
    """Ratios lie in [0, 1]; those of a list are null where there is no list, and then their rule is off."""

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
    """Words in lower case; null: no such list."""

    stop: frozenset[str] | None = None
    flagged: frozenset[str] | None = None
    common: frozenset[str] | None = None
    spam: frozenset[str] | None = None


def measure(text: str, lists: WordLists, *, min_tokens: int = 0) -> Metrics:
    """Measure one text. Below `min_tokens` words and punctuation marks together, its punctuation counts as 1."""
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
    """Return the share of the most frequent character 10-grams, as many as the square root of all different ones.

    Of those only as many as occur more than once count.
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
    for i in range(size):  # a polynomial over 2^64, whose base is the golden ratio's odd multiplier
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + codes[i : len(hashes) + i]
        hashes ^= hashes >> np.uint64(29)
    return np.unique(hashes, return_counts=True)[1]


def word_repetition(words: list[str], size: int = 5) -> float:
    """Return the share of word 5-grams that occur more than once."""
    grams = Counter([" ".join(words[i : i + size]) for i in range(len(words) - size + 1)])
    return sum(count for count in grams.values() if count > 1) / grams.total() if grams else 0.0


def special_ratio(text: str) -> float:
    """Return the share of the characters that are special: punctuation, digits, white space, symbols, emoji."""
    return (len(text) - len(text.translate(WITHOUT_SPECIAL))) / len(text) if text else 0.0


def punctuation_ratio(text: str, min_tokens: int = 0) -> float:
    """Return the share of `, ; : ? ! .` among these and the words; 1 for a text of fewer than `min_tokens` of them."""
    tokens = _TOKEN.findall(text)
    if not tokens:
        return 0.0
    return 1.0 if len(tokens) < min_tokens else sum(token in _PUNCTUATION for token in tokens) / len(tokens)


def share_in(words: list[str], those: Collection[str]) -> float:
    """Return the share of words that stand in a list; 0 for no words."""
    return sum(word in those for word in words) / len(words) if words else 0.0

"""The text measures of OBELICS's filters.

Source: Laurençon et al. 2023, appendix A.1, and the released code (huggingface/OBELICS). Words are separated by spaces, tabs
and line breaks, and are in lower case. Special characters at their ends are removed, and empty words do not count.
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
_LONG = 400  # in texts with at least this many characters, n-grams are counted by hash, which is faster


class Metrics(NamedTuple):
    """Measures of a text. Ratios are in [0, 1]. If a word list is missing, its ratio is None and its rule is off."""

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
    """Lists of words in lower case. None means that there is no list."""

    stop: frozenset[str] | None = None
    flagged: frozenset[str] | None = None
    common: frozenset[str] | None = None
    spam: frozenset[str] | None = None


def measure(text: str, lists: WordLists, *, min_tokens: int = 0) -> Metrics:
    """Return the measures of one text. `min_tokens` is passed to `punctuation_ratio`."""
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
    """Return the words of a text in lower case, without special characters at their ends."""
    return [word for part in _SPLIT.split(text) if (word := part.lower().strip(SPECIAL_TEXT))]


def char_repetition(text: str, size: int = 10) -> float:
    """Return the share of character n-grams that are among the most frequent n-grams, in [0, 1]. `size` is n.

    At most `sqrt(k)` of the k different n-grams count as the most frequent. N-grams that occur only once never count.
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
    for i in range(size):  # each hash is a polynomial modulo 2^64, with an odd base that is 2^64 divided by the golden ratio
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + codes[i : len(hashes) + i]
        hashes ^= hashes >> np.uint64(29)
    return np.unique(hashes, return_counts=True)[1]


def word_repetition(words: list[str], size: int = 5) -> float:
    """Return the share of word n-grams that occur more than once, in [0, 1]. `size` is n."""
    grams = Counter([" ".join(words[i : i + size]) for i in range(len(words) - size + 1)])
    return sum(count for count in grams.values() if count > 1) / grams.total() if grams else 0.0


def special_ratio(text: str) -> float:
    """Return the share of characters that are punctuation, digits, white space, symbols or emoji, in [0, 1]."""
    return (len(text) - len(text.translate(WITHOUT_SPECIAL))) / len(text) if text else 0.0


def punctuation_ratio(text: str, min_tokens: int = 0) -> float:
    """Return the share of punctuation among the tokens of a text. A token is a word or one of the marks `, ; : ? ! .`.

    The share is 0 for a text without tokens, and 1 for any other text with fewer than `min_tokens` tokens.
    """
    tokens = _TOKEN.findall(text)
    if not tokens:
        return 0.0
    return 1.0 if len(tokens) < min_tokens else sum(token in _PUNCTUATION for token in tokens) / len(tokens)


def share_in(words: list[str], listed: Collection[str]) -> float:
    """Return the share of words that are in a list, or 0 if there are no words."""
    return sum(word in listed for word in words) / len(words) if words else 0.0

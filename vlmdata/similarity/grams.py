"""Hash the n-grams of texts: n-grams of words, or n-grams of characters for languages without spaces.

All texts of a batch form one array of code points, and numpy hashes every word and gram. A text of 100 words takes a few
microseconds. A hash depends only on the text and the parameters. The decisions in finished datasets depend on these hashes, so
a test fixes their values.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vlmdata.splitmix import mixed
from vlmdata.text.words import UNSPACED

Hashes = NDArray[np.uint64]
Ids = NDArray[np.int64]

ODD = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio
BATCH_CHARACTERS = 1 << 18


@dataclass(frozen=True)
class Grams:
    """The n-grams of several texts, in order and with repeats. Text i has `hashes[starts[i]:starts[i + 1]]`."""

    hashes: Hashes
    starts: Ids  # (texts + 1,)

    def texts(self) -> Ids:
        """Return for each hash the number of the text that it belongs to: (hashes,)."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def word_grams(texts: Sequence[str], n: int) -> Grams:
    """Return the hashed n-grams of words. Words are lower-cased runs of letters, digits and underscores.

    A text with fewer than n words has one gram of all its words. A text without words has none.
    """
    return joined([windows(*hashed_words(*code_points(batch)), n) for batch in batches(texts)])


def character_grams(texts: Sequence[str], n: int) -> Grams:
    """Return the hashed n-grams of lower-cased characters. A run of white space counts as one space.

    A text with fewer than n characters has one gram of all its characters. A blank text has none.
    """
    return joined([windows(*hashed_characters(*code_points(batch)), n) for batch in batches(texts)])


def word_hashes(texts: Sequence[str]) -> tuple[Hashes, Ids]:
    """Return the hashes of the words of all texts, concatenated, and the number of words of each text.

    Each letter of a script without spaces between words is a word.
    """
    parts = [hashed_words(*code_points(batch), alone=letters_without_blanks()) for batch in batches(texts)]
    return np.concatenate([words for words, _ in parts]), np.concatenate([sizes for _, sizes in parts])


def full_windows(flat: Hashes, sizes: Ids, n: int) -> tuple[Hashes, Ids, Ids]:
    """Return three aligned arrays for every n consecutive words of a text: hash, number of the text, place of the first word.

    `flat` and `sizes` are the results of `word_hashes`. A place is an index of `flat`. Texts with fewer than n words give
    nothing.
    """
    grams = windows(flat, sizes, n)
    texts = grams.texts()
    first = np.arange(len(texts)) + np.repeat(np.cumsum(sizes) - sizes - grams.starts[:-1], np.diff(grams.starts))
    is_full = sizes[texts] >= n
    return grams.hashes[is_full], texts[is_full], first[is_full]


def batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield the lower-cased texts in batches of about `BATCH_CHARACTERS` characters."""
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text.lower())
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield held
            held, size = [], 0
    if held or not len(texts):
        yield held


def code_points(texts: list[str]) -> tuple[NDArray[np.uint32], Ids]:
    """Return the concatenated code points of all texts, and the length of each text."""
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    return np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32), sizes


def hashed_words(points: NDArray[np.uint32], sizes: Ids, *, alone: NDArray[np.bool_] | None = None) -> tuple[Hashes, Ids]:
    """Return a hash of each word of all texts, and the number of words of each text.

    The hash of a word is a polynomial in the constant `ODD` modulo 2**64, computed from prefix sums. `alone` says for each code
    point whether it is a word by itself.
    """
    if not len(points):
        return np.zeros(0, np.uint64), np.zeros(len(sizes), np.int64)
    is_word = word_characters()[points]
    ends = np.cumsum(sizes)
    begins_text = np.zeros(len(points) + 1, bool)
    begins_text[ends - sizes] = True
    before = np.concatenate([[False], is_word[:-1]])
    after = np.concatenate([is_word[1:], [False]])
    begins, ends_here = ~before | begins_text[:-1], ~after | begins_text[1:]
    if alone is not None and (single := alone[points]).any():
        begins |= single | np.concatenate([[False], single[:-1]])
        ends_here |= single | np.concatenate([single[1:], [False]])
    first, last = np.flatnonzero(is_word & begins), np.flatnonzero(is_word & ends_here)
    rising, inverse = powers(len(points))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum((points.astype(np.uint64) + np.uint64(1)) * rising)])
    counts = np.bincount(np.searchsorted(ends, first, side="right"), minlength=len(sizes))
    return mixed((sums[last + 1] - sums[first]) * inverse[first]), counts


def hashed_characters(points: NDArray[np.uint32], sizes: Ids) -> tuple[Hashes, Ids]:
    """Return a hash of each character and the number of characters of each text, after trimming and merging white space."""
    is_space = space_characters()[points]
    ends = np.cumsum(sizes)
    texts = np.repeat(np.arange(len(sizes)), sizes)
    solid = np.flatnonzero(~is_space)
    same_text = texts[solid[1:]] == texts[solid[:-1]]
    gap = np.flatnonzero(same_text & (np.diff(solid) > 1))  # white space inside a text, between two solid characters
    values = mixed(points[solid].astype(np.uint64) + np.uint64(1))
    space = mixed(np.array([ord(" ") + 1], np.uint64))[0]
    counts = np.bincount(texts[solid], minlength=len(sizes)) + np.bincount(texts[solid[gap]], minlength=len(sizes))
    return np.insert(values, gap + 1, space), counts[: len(ends)]


def windows(flat: Hashes, sizes: Ids, n: int) -> Grams:
    """Return a hash of every n consecutive values of each text: (sum of sizes,), (texts,) -> Grams.

    A text with fewer than n values gives one window of all its values. Raises ValueError if n is less than 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1 for n-grams, not {n}")
    counts = np.where(sizes >= n, sizes - n + 1, np.minimum(sizes, 1))
    starts = np.concatenate([[0], np.cumsum(counts)])
    first = np.arange(starts[-1]) + np.repeat(np.cumsum(sizes) - sizes - starts[:-1], counts)
    padded = np.concatenate([flat, np.zeros(n, np.uint64)])
    total = np.zeros(len(first), np.uint64)
    short = starts[:-1][(sizes < n) & (sizes > 0)]
    length = sizes[(sizes < n) & (sizes > 0)]
    for place in range(n):  # Horner's rule, so that the order of the words matters
        total *= np.uint64(ODD)
        here = padded[first + place]
        here[short[length <= place]] = 0
        total += here
    return Grams(mixed(total), starts)


def joined(parts: list[Grams]) -> Grams:
    """Return the grams of all batches as one `Grams`."""
    shifts = np.cumsum([0] + [len(part.hashes) for part in parts[:-1]])
    starts = [part.starts[:-1] + shift for part, shift in zip(parts, shifts, strict=True)]
    total = sum(len(part.hashes) for part in parts)
    return Grams(np.concatenate([part.hashes for part in parts]), np.concatenate([*starts, [total]]))


def powers(count: int) -> tuple[Hashes, Hashes]:
    """Return the first `count` powers of `ODD` and of its inverse, modulo 2**64."""
    size = 1 << max(count - 1, 1).bit_length()  # few distinct sizes, so that the cache serves the next batches
    rising, inverse = all_powers(size)
    return rising[:count], inverse[:count]


@lru_cache(maxsize=2)
def all_powers(count: int) -> tuple[Hashes, Hashes]:
    """Return the first `count` powers of `ODD` and of its inverse modulo 2**64: (count,), (count,)."""
    return power_row(ODD, count), power_row(pow(ODD, -1, 1 << 64), count)


def power_row(base: int, count: int) -> Hashes:
    """Return the first `count` powers of `base` modulo 2**64, beginning with 1: (count,)."""
    row = np.full(count, base, np.uint64)
    row[0] = 1
    return np.cumprod(row)


@lru_cache(maxsize=1)
def word_characters() -> NDArray[np.bool_]:
    """Say for each code point whether it may be part of a word. Letters, digits and the underscore may, as in Python's \\w."""
    return np.fromiter((chr(point).isalnum() or point == ord("_") for point in range(0x110000)), bool, 0x110000)


@lru_cache(maxsize=1)
def letters_without_blanks() -> NDArray[np.bool_]:
    """Say for each code point whether it is a letter of a script without spaces between words."""
    table = np.zeros(0x110000, bool)
    for run in re.finditer(f"[{UNSPACED}]+", "".join(map(chr, range(len(table))))):
        table[run.start() : run.end()] = True
    return table


@lru_cache(maxsize=1)
def space_characters() -> NDArray[np.bool_]:
    """Say for each of the 0x110000 code points whether it is white space, that is, whether `str.isspace` is true for it."""
    return np.fromiter((chr(point).isspace() for point in range(0x110000)), bool, 0x110000)

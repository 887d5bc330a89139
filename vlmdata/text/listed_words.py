"""Finds listed words in scripts that have no spaces between words."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from vlmdata.text.words import UNSPACED, has_unspaced

_RUN = re.compile(f"[{UNSPACED}]+")


def unspaced_words(words: Collection[str]) -> tuple[frozenset[str], int]:
    """Return the words that have only letters of scripts without spaces, and the length of the longest.

    The length is 0 if there are no such words.
    """
    found = frozenset(word for word in words if _RUN.fullmatch(word))
    return found, max(map(len, found), default=0)


def listed_in_runs(text: str, words: frozenset[str], longest: int) -> Iterator[str]:
    """Yield the occurrences of `words` in a text, from left to right without overlaps.

    If several words begin at a position, yield the longest. `words` and `longest` are the result of `unspaced_words`.
    """
    if not longest or not has_unspaced(text):
        return
    for run in _RUN.findall(text):
        at = 0
        while at < len(run):
            sizes = range(min(longest, len(run) - at), 0, -1)
            word = next((run[at : at + size] for size in sizes if run[at : at + size] in words), None)
            at += len(word) if word else 1
            if word:
                yield word

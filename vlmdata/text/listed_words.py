"""Finds the words of a list in scripts without spaces between words, where no boundaries mark them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from vlmdata.text.words import UNSPACED, has_unspaced

_RUN = re.compile(f"[{UNSPACED}]+")


def unspaced_words(words: Collection[str]) -> tuple[frozenset[str], int]:
    """Return the words of a list that have only letters of such scripts, and the length of the longest."""
    found = frozenset(word for word in words if _RUN.fullmatch(word))
    return found, max(map(len, found), default=0)


def listed_in_runs(text: str, words: frozenset[str], longest: int) -> Iterator[str]:
    """Yield the words in runs of such letters, from left to right; at each position the longest."""
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

"""Words of a list in texts of scripts that put no blanks between words: where they end is not known, so they are looked for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from vlmdata.text.words import UNSPACED, has_unspaced

_RUN = re.compile(f"[{UNSPACED}]+")


def unspaced_words(words: Collection[str]) -> tuple[frozenset[str], int]:
    """Return the words of a list that have letters of such scripts alone, and the letters of the longest."""
    found = frozenset(word for word in words if _RUN.fullmatch(word))
    return found, max(map(len, found), default=0)


def listed_in_runs(text: str, words: frozenset[str], longest: int) -> Iterator[str]:
    """Yield the words that stand in the runs of such letters, from left to right, the longest where several begin."""
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

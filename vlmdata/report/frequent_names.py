"""Counts millions of names in bounded memory, and keeps the most frequent names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


class Heavy:
    """Counts the items of each pair of a name and a label. The label is the step that rejected the item, or None if it is kept.

    If there are more than `most` names, rare names are discarded, and counts are lower bounds.
    """

    def __init__(self, most: int = 400_000):
        self.most = most
        self.counts: dict[str, Counter[str | None]] = {}
        self.is_exact = True

    def add(self, lines: Iterable[tuple[str, str | None, int]]) -> None:
        """Add each (name, label, times) in `lines` to the counts."""
        for name, label, times in lines:
            counter = self.counts.get(name)
            if counter is None:
                counter = self.counts[name] = Counter()
            counter[label] += times
        if len(self.counts) > self.most:
            self.is_exact = False
            self.counts = dict(self.largest(self.most // 4))

    def largest(self, count: int) -> list[tuple[str, Counter[str | None]]]:
        """Return the `count` most frequent names with their counts. Equally frequent names are in alphabetical order."""
        return sorted(self.counts.items(), key=lambda item: (-item[1].total(), item[0]))[:count]

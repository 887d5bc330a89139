"""Prefix sums over the blocks of a page. The sum over a section is the difference of two prefix sums."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from vlmdata.html.cards import is_prose
from vlmdata.html.layout import HEADINGS, PageLayout, Section


@dataclass(frozen=True, slots=True)
class Sums:
    """Prefix sums over the blocks of a page. Each list has one entry more than there are blocks.

    The sum of a list `sums` over a section `s` is `sums[s.end] - sums[s.start]`.
    """

    words: list[int]
    linked: list[float]  # words in links
    prose: list[int]  # words of blocks that read like prose
    lines: list[int]  # number of linked blocks that are headings or have at least three words
    images: list[int]
    sections: list[tuple[int, Section]]  # (index, section) of each section that is not empty


def sums_of(layout: PageLayout) -> Sums:
    """Return the prefix sums of a layout."""
    blocks = layout.blocks
    return Sums(
        [0, *accumulate([b.words for b in blocks])],
        [0.0, *accumulate([b.words * b.links for b in blocks])],
        [0, *accumulate([b.words if is_prose(b) else 0 for b in blocks])],
        [0, *accumulate([b.links > 0.8 and (b.words >= 3 or b.tag in HEADINGS) for b in blocks])],
        [0, *accumulate([b.image is not None for b in blocks])],
        [(i, s) for i, s in enumerate(layout.sections) if s.end > s.start],
    )


def prose_of(kept: list[bool], sums: Sums) -> int:
    """Return the number of words of prose in the kept blocks."""
    return sum(sums.prose[i + 1] - sums.prose[i] for i, keep in enumerate(kept) if keep)

"""Decides whether the cards of a page are its content or teasers of other pages.

A card is a picture, a name and a sentence inside a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vlmdata.html.layout import HEADINGS, PageBlock, PageLayout

PROSE_WORDS = 10
_ARTICLE, _NAMES = 0.5, 0.25  # shares of the prose that cards must hold, on a page with and without an article
_PARAGRAPH_WORDS = 60  # a single paragraph with at least this many words counts as an article
_CARD_WORDS = 6  # a card's sentence has at least this many words
_LABEL_WORDS = 4  # a line between cards, such as a date or a price, has at most this many words
_FEWEST = 3  # fewer consecutive cards are ignored
_CARD_BLOCKS = 8  # a card has at most this many blocks
_NAMED_SHARE = 0.8  # share of the prose that cards must hold if their names mean boilerplate: `related-card`
_AROUND = frozenset(("nav", "footer", "aside", "menu", "form"))  # elements whose cards always belong to other pages
_SENTENCE = re.compile(r"[.!?…。！？।؟]\W{0,2}$")


def _is_sentence(block: PageBlock, before: PageBlock | None) -> bool:
    """Return whether a block is a sentence of a card and not a headline.

    The block must be linked, have six words or more, and end like a sentence. If it has ten words or more and `before` is a
    linked heading, it may end in any way. `before` is the previous block of the run of cards. It is None for the first
    block of the run, and for every block of a page with an article.
    """
    if block.links <= 0.7 or block.words < _CARD_WORDS:
        return False
    named = before is not None and before.links > 0.7 and before.tag in HEADINGS and block.words >= PROSE_WORDS
    return named or bool(_SENTENCE.search((block.text or "")[-4:]))


@dataclass(slots=True)
class _LinkRun:
    """A range of consecutive blocks that are links, or short lines between links."""

    start: int
    end: int
    pictures: int = 0
    sentences: int = 0
    words: int = 0
    named: bool = False  # whether the names of its cards mean boilerplate


def teaser_share(layout: PageLayout) -> float:
    """Return a threshold: lists of teasers that hold at least this share of a page's prose are the content of the page.

    The threshold is 0.5 on a page with an article (two consecutive paragraphs, or a long one). It is 0.25 on a page that
    consists of names and short texts.
    """
    row = 0
    for block in layout.blocks:
        if is_prose(block):
            row += 1
            if row == 2 or block.words >= _PARAGRAPH_WORDS:
                return _ARTICLE
        elif block.image is None:
            row = 0
    return _NAMES


def is_prose(block: PageBlock) -> bool:
    """Return whether a block reads like prose: ten words or more, most of them outside links."""
    return block.words >= PROSE_WORDS and block.links < 0.4


def unlink_cards(layout: PageLayout) -> list[range]:
    """Return the ranges of blocks that are cards, or an empty list if the cards are the content of the page.

    Cards are content if they hold enough of the page's prose. In this case, `links` of their blocks is set to 0, so that later
    steps keep the blocks.
    """
    if sum(block.image is not None and block.links > 0.7 for block in layout.blocks) < _FEWEST:
        return []
    least = teaser_share(layout)
    runs = [run for run in _runs(layout, strict=least == _ARTICLE) if run.pictures >= _FEWEST and run.sentences >= _FEWEST]
    if any(run.named for run in runs):
        least = _NAMED_SHARE
    words = sum(run.words for run in runs)
    total = words + sum(block.words for block in layout.blocks if is_prose(block))
    if words < least * total:
        return [range(run.start, run.end) for run in runs]
    free = [False] * len(layout.blocks)
    for run in runs:
        free[run.start : run.end] = [True] * (run.end - run.start)
        for block in layout.blocks[run.start : run.end]:
            block.links = 0.0
    for section in layout.sections:
        if section.chrome and section.end > section.start and free[section.start] and free[section.end - 1]:
            section.chrome = 0  # its names mean boilerplate, as in class="related-card teaser", but it is content
    return []


def _runs(layout: PageLayout, *, strict: bool) -> Iterator[_LinkRun]:
    """Yield the runs of link cards outside boilerplate, with the number of sentences in each run.

    If `strict`, only a block that ends like a sentence counts as one (see `_is_sentence`).
    """
    chrome: list[bool] = []
    named: list[bool] = []
    for section in layout.sections:
        outer = section.parent if section.parent >= 0 else None
        surely = section.chrome > 1
        card = section.end - section.start <= _CARD_BLOCKS and section.tag not in _AROUND
        chrome.append((surely and not card) or (outer is not None and chrome[outer]))
        named.append((surely and card) or (outer is not None and named[outer]))
    run = _LinkRun(0, 0)
    for i, block in enumerate(layout.blocks):
        linked = block.links > 0.7
        if chrome[block.section] or not (linked or (0 < block.words <= _LABEL_WORDS and run.end)):
            if run.end:
                yield run
                run = _LinkRun(0, 0)
            continue
        if not linked:
            continue  # a date or price between cards or after the last one
        run.start, run.end = run.start if run.end else i, i + 1
        run.named = run.named or named[block.section]
        run.pictures += block.image is not None
        if _is_sentence(block, layout.blocks[i - 1] if i > run.start and not strict else None):
            run.sentences += 1
            run.words += block.words
    if run.end:
        yield run

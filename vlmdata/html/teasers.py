"""Finds teasers of other pages: lists of teasers, small boxes, and sections that begin with `Related stories`."""

from __future__ import annotations

import re

from vlmdata.html.layout import PageLayout, Section
from vlmdata.html.sums import Sums

BOXES = frozenset(("div", "section", "aside", "article"))
_BOX_BLOCKS, _BOX_TEXTS = 8, 4  # a box has at most this many blocks and this many texts
_BOX_WORDS = 110  # a teaser has fewer words
_BOXES_SHARE = 0.25  # boxes that hold a greater share of the main content's prose are not dropped
_RELATED = re.compile(
    r"\W{0,4}(?:related|recommended|more (?:from|on|in|about|stories|news|articles|posts|like|coverage)"
    r"|most (?:read|popular|viewed|recent|shared)|you (?:may|might) (?:also )?(?:like|be interested|enjoy)|you'll also"
    r"|read (?:more|next|also)|see also|trending|popular|latest|also (?:on|in|read)|up next|what to read next|don't miss"
    r"|from the web|around the web|promoted|sponsored|advertisement|share this|follow us|about the author"
    r"|leave a (?:reply|comment)|\d* ?comments?\b|join the (?:conversation|discussion)|newsletter|sign up|subscribe|tags?:"
    r"|topics?:|filed under|categories|leia (?:mais|também)|veja (?:mais|também)|lire aussi|à lire|mehr zum thema"
    r"|lesen sie auch|auch interessant|das könnte|ähnliche|passend dazu|zum weiterlesen|interessante artikel|empfehlungen"
    r"|weitere (?:infos?|informationen|artikel|beiträge|themen|meldungen|nachrichten|links?)|mehr (?:zu|aus|von|über|infos?)"
    r"|vous aimerez|sur le même|articles (?:liés|similaires|associés|connexes)|voir aussi|lee también|te puede interesar"
    r"|noticias relacionadas|artículos relacionados|ver también|más (?:noticias|información|sobre)|artigos relacionados"
    r"|você (?:pode|também)|leggi anche|potrebbe|articoli correlati|lees ook|meer (?:over|nieuws)"
    r"|(?:zobacz|czytaj) (?:także|też|również)|polecamy|читайте также|похожие|по теме|смотрите также)\b",
    re.IGNORECASE,
)


def is_related(layout: PageLayout, s: Section, sums: Sums) -> bool:
    """Return whether a section begins with a short line such as `Related stories` and has links."""
    first = layout.blocks[s.start]
    return (
        0 < first.words < 9
        and sums.linked[s.end] - sums.linked[s.start] >= 0.1 * (sums.words[s.end] - sums.words[s.start])
        and bool(_RELATED.match((first.text or "")[:80]))
    )


def teaser_lists(layout: PageLayout, sums: Sums) -> set[int]:
    """Return the indexes of the sections whose parts are mostly teasers.

    A teaser has a linked line, fewer than 110 words and at most 12 blocks.
    """
    parts: dict[int, int] = {}
    teasers: dict[int, int] = {}
    for _, s in sums.sections:
        size = s.end - s.start
        if s.parent < 0:
            continue
        parent = layout.sections[s.parent]
        if parent.end - parent.start == size:
            continue
        parts[s.parent] = parts.get(s.parent, 0) + 1
        few = size <= 12 and sums.words[s.end] - sums.words[s.start] < 110
        if few and sums.lines[s.end] > sums.lines[s.start]:
            teasers[s.parent] = teasers.get(s.parent, 0) + 1
    return {i for i, count in teasers.items() if count >= 3 and count >= 0.6 * parts[i]}


def drop_teasers(layout: PageLayout, chosen: Section, kept: list[bool], sums: Sums) -> None:
    """Drop the small boxes inside `chosen` that consist of a link and a few words, such as a teaser, an author or a film.

    If the boxes together hold more than a quarter of the prose, as on a page that lists articles, all of them are kept.
    """
    blocks, words = layout.blocks, sums.words
    boxes: list[Section] = []
    done = 0
    for _, s in sums.sections:
        if s.start < max(done, chosen.start) or s.end > chosen.end or s is chosen or s.tag not in BOXES:
            continue
        if s.end - s.start > _BOX_BLOCKS or words[s.end] - words[s.start] >= _BOX_WORDS:
            continue
        texts = [b for b in blocks[s.start : s.end] if b.words or (b.image and b.image.caption)]
        if any(b.image for b in texts):
            continue  # a figure
        if 1 < len(texts) <= _BOX_TEXTS and texts[0].links > 0.7 and texts[1].links < 0.3:
            boxes.append(s)
            done = s.end
    box_prose = sum(sums.prose[s.end] - sums.prose[s.start] for s in boxes)
    if box_prose <= _BOXES_SHARE * (sums.prose[chosen.end] - sums.prose[chosen.start]):
        for s in boxes:
            kept[s.start : s.end] = [False] * (s.end - s.start)

"""What points to other pages: lists and boxes of teasers, sections that begin with `Related stories`."""

from __future__ import annotations

import re

from vlmdata.html.layout import Layout, Section
from vlmdata.html.sums import Sums

_RELATED = re.compile(
    r"\W{0,4}(?:related|recommended|more (?:from|on|in|about|stories|news|articles|posts|like|coverage)"
    r"|most (?:read|popular|viewed|recent|shared)|you (?:may|might) (?:also )?(?:like|be interested|enjoy)|you'll also"
    r"|read (?:more|next|also)|see also|trending|popular|latest|also (?:on|in|read)|up next|what to read next|don't miss"
    r"|from the web|around the web|promoted|sponsored|advertisement|share this|follow us|about the author"
    r"|leave a (?:reply|comment)|\d* ?comments?\b|join the (?:conversation|discussion)|newsletter|sign up|subscribe|tags?:"
    r"|topics?:|filed under|categories|leia (?:mais|também)|veja (?:mais|também)|lire aussi|à lire|mehr zum thema"
    r"|lesen sie auch|auch interessant|lee también|te puede interesar|noticias relacionadas|leggi anche)\b",
    re.IGNORECASE,
)


def is_related(layout: Layout, s: Section, sums: Sums) -> bool:
    """Say whether a section begins with a short line such as `Related stories`."""
    first = layout.blocks[s.start]
    return (
        0 < first.words < 9
        and sums.linked[s.end] - sums.linked[s.start] >= 0.1 * (sums.words[s.end] - sums.words[s.start])
        and bool(_RELATED.match((first.text or "")[:80]))
    )


def teaser_lists(layout: Layout, sums: Sums) -> set[int]:
    """Return the sections most of whose parts are teasers: a line that is a link, and few words more."""
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

"""Which blocks of a page are its main content: a pure function over its layout.

Every block has a worth: its words when it reads like prose, less than nothing when it is made of links. Sections that call
themselves boilerplate, and lists of teasers, count only where they hold most of the prose. The section with the greatest
sum holds the main content; what is made of links inside it, and short lines before and behind its prose, go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate

from vlmdata.html.cards import free_cards, is_prose, teaser_share
from vlmdata.html.image_ref import ImageRef
from vlmdata.html.layout import HEADINGS, Block, Layout, Section
from vlmdata.text.words import count_words

_GALLERY_WORDS = 60
_ICON = 64  # pixels, at most
_LOOSE = frozenset(("div", "p", "section", "article", "main", "body", "center", "header", "form", "fieldset"))
_TEXTUAL = frozenset(("p", "blockquote", "table", "pre", "dl", *HEADINGS))
_CELLS = frozenset(("td", "th", "dt", "dd"))
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
_COOKIES = re.compile(
    r"(?=.*\bcookies?\b)"
    r".*\b(?:we use|uses?|accept|agree|consent|continu|policy|privacy|akzept|nutz|utilis|acept|usamos|utiliza)",
    re.IGNORECASE | re.DOTALL,
)
_DATED = re.compile(
    r"\b(?:19|20)\d\d\b|\b\d{1,2}:\d\d\b"
    r"|\b(?:ago|updated?|published|posted|by|photo|image|credit|getty|share|comments?|min(?:utes?)? read)\b",
    re.IGNORECASE,
)


_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b"
)
_DATE = (
    rf"\d{{1,4}}(?:st|nd|rd|th)?|{_MONTH}|mon(?:day)?|tues?(?:day)?|wed(?:nesday)?|thu(?:rs?)?(?:day)?|fri(?:day)?"
    r"|sat(?:urday)?|sun(?:day)?|at|on|[ap]\.?m\.?|[ecmp][sd]?t|gmt|utc|bst|ist"
)
_FURNITURE = re.compile(  # a line that says when, by whom or with what button, wherever it stands
    rf"\W*(?:(?:first |last )?(?:published|updated|posted|modified)\b.*\d.*"
    rf"|(?=\D*\d)(?=.*(?:\b{_MONTH}|\d\d-\d\d))(?:(?:{_DATE})\W+)*(?:{_DATE})"
    r"|advert(?:isement)?|caption|close|facebook|twitter|e-?mail|whatsapp|linkedin|pinterest|share|tags|author|publish date"
    r"|(?:image|photo|slide) \d+ (?:of|/) \d+|(?:read (?:more|also|next)|see also) ?:.*"
    r"|(?:follow (?:us|me|\w+ on)|subscribe|join our|like this (?:story|article|post)|share (?:this|your)|also on"
    r"|download (?:our|the) app)\b.*)\W*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Running sums over the blocks of a page: of a section, `sums[s.end] - sums[s.start]`."""

    words: list[int]
    linked: list[float]  # words in links
    prose: list[int]  # words of blocks that read like prose
    lines: list[int]  # blocks that are one link: a heading, or three words or more
    images: list[int]
    sections: list[tuple[int, Section]]  # those that hold blocks, with their numbers


def _sums(layout: Layout) -> _Sums:
    blocks = layout.blocks
    return _Sums(
        [0, *accumulate([b.words for b in blocks])],
        [0.0, *accumulate([b.words * b.links for b in blocks])],
        [0, *accumulate([b.words if is_prose(b) else 0 for b in blocks])],
        [0, *accumulate([b.links > 0.8 and (b.words >= 3 or b.tag in HEADINGS) for b in blocks])],
        [0, *accumulate([b.image is not None for b in blocks])],
        [(i, s) for i, s in enumerate(layout.sections) if s.end > s.start],
    )


def main_blocks(layout: Layout) -> list[bool]:
    """Say for each block whether it belongs to the main content."""
    blocks = layout.blocks
    teasers = free_cards(layout)
    sums = _sums(layout)
    kept = _without_chrome(layout, sums)
    for run in teasers:
        kept[run.start : run.stop] = [False] * len(run)
    if _is_gallery(kept, sums):
        return _gallery(layout, sums)
    chosen = _widened(layout, _best(layout, kept, sums), kept)
    for i in range(len(blocks)):
        kept[i] = kept[i] and chosen.start <= i < chosen.end
    _drop_links(layout, chosen, kept, sums)
    for i, b in enumerate(blocks):
        if kept[i] and b.text and b.words < 20 and len(b.text) < 300 and b.tag not in _CELLS and b.tag not in HEADINGS:
            kept[i] = not _FURNITURE.fullmatch(b.text)
    _trim(blocks, kept)
    _drop_repeats(blocks, kept)
    return kept


def _is_gallery(kept: list[bool], sums: _Sums) -> bool:
    """Say whether a page is a gallery or a shop window: hardly any prose, and at least three images."""
    if sums.images[-1] < 3:
        return False
    return sum(sums.prose[i + 1] - sums.prose[i] for i, keep in enumerate(kept) if keep) < _GALLERY_WORDS


def _gallery(layout: Layout, sums: _Sums) -> list[bool]:
    """Keep the images and the lines that go with them; links without an image beside them go."""
    kept = [True] * len(layout.blocks)
    for _, s in sums.sections:
        if s.tag == "body":
            continue
        linked = sums.linked[s.end] - sums.linked[s.start] > 0.7 * (sums.words[s.end] - sums.words[s.start])
        shows = sums.images[s.end] > sums.images[s.start]
        if s.chrome > 1 or (linked and not shows and not _beside_image(layout.sections[s.parent], sums)):
            kept[s.start : s.end] = [False] * (s.end - s.start)
    return kept


def _beside_image(parent: Section, sums: _Sums) -> bool:
    """Say whether the element around a section is small and shows an image: the section is its title or price."""
    return parent.end - parent.start <= 12 and sums.images[parent.end] > sums.images[parent.start]


def _without_chrome(layout: Layout, sums: _Sums) -> list[bool]:
    """Say for each block whether it stands outside boilerplate that does not hold the better part of the prose."""
    kept = [True] * len(layout.blocks)
    prose = sums.prose
    total = prose[-1]
    teasers = _teaser_lists(layout, sums)
    enough = teaser_share(layout) if teasers else 0.0
    for i, s in sums.sections:
        chrome = 0 if s.chrome and _is_content(layout, s, sums) else s.chrome
        share = (
            0.5 if chrome > 1 else enough if i in teasers else 0.25 if chrome else 0.3 if _is_related(layout, s, sums) else 0.0
        )
        if prose[s.end] - prose[s.start] < share * total:
            kept[s.start : s.end] = [False] * (s.end - s.start)
    return kept


def _is_content(layout: Layout, s: Section, sums: _Sums) -> bool:
    """Say whether a section holds content whatever its names say: an illustration, or prose of its own amid the prose."""
    words, linked = sums.words[s.end] - sums.words[s.start], sums.linked[s.end] - sums.linked[s.start]
    around = layout.sections[s.parent]
    amid = sums.prose[s.start] > sums.prose[around.start] and sums.prose[around.end] > sums.prose[s.end]
    if sums.images[s.end] == sums.images[s.start]:
        return amid and s.tag in _TEXTUAL and linked <= 0.5 * words
    images = [block for block in layout.blocks[s.start : s.end] if block.image]
    if any(_is_icon(block.image) for block in images if block.image):
        return False
    if s.tag == "figure":
        return linked <= 0.5 * words or not all(b.links for b in images)
    captions = {block.image.caption for block in images if block.image and block.image.caption}
    said = sum(map(count_words, captions))
    return amid and (said <= words - linked <= said + 3 if captions else words == 0 and not all(b.links for b in images))


def _is_icon(image: ImageRef) -> bool:
    return any(side is not None and side <= _ICON for side in (image.rendered_width, image.rendered_height))


def _is_related(layout: Layout, s: Section, sums: _Sums) -> bool:
    """Say whether a section begins with a short line such as `Related stories`."""
    first = layout.blocks[s.start]
    return (
        0 < first.words < 9
        and sums.linked[s.end] - sums.linked[s.start] >= 0.1 * (sums.words[s.end] - sums.words[s.start])
        and bool(_RELATED.match((first.text or "")[:80]))
    )


def _teaser_lists(layout: Layout, sums: _Sums) -> set[int]:
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


def _best(layout: Layout, kept: list[bool], totals: _Sums) -> Section:
    """Return the section of the greatest worth, the innermost of equals."""
    worth = [_worth(b) if keep and b.words else 0.0 for b, keep in zip(layout.blocks, kept, strict=True)]
    sums = [0.0, *accumulate(worth)]
    best, top = layout.sections[0], 0.0
    for _, s in totals.sections:
        value = sums[s.end] - sums[s.start]
        if s.body:
            value *= 1.1
        if value >= top and value > 0:
            best, top = s, value
    return best


def _widened(layout: Layout, chosen: Section, kept: list[bool]) -> Section:
    """Return the outermost section around the chosen one that adds no links and nothing left out, only images and lines."""
    blocks = layout.blocks
    while chosen.parent >= 0:
        parent = layout.sections[chosen.parent]
        added = [*range(parent.start, chosen.start), *range(chosen.end, parent.end)]
        if not all(kept[i] and (blocks[i].image or blocks[i].links < 0.5) for i in added):
            break
        chosen = parent
    return chosen


def _worth(block: Block) -> float:
    if block.links > 0.7:
        return -block.words - 1.0
    if block.words < 4 or block.tag in HEADINGS:
        return 0.0
    return block.words * (1 - block.links)


def _drop_links(layout: Layout, chosen: Section, kept: list[bool], sums: _Sums) -> None:
    """Leave out the text of sections inside the chosen one that are made of links."""
    words, linked = sums.words, sums.linked
    done = 0  # up to which block a section around has been left out already
    for _, s in sums.sections:
        if s.end <= done or not (chosen.start <= s.start and s.end <= chosen.end) or s is chosen or s.tag in _CELLS:
            continue
        all_words = words[s.end] - words[s.start]
        if all_words and linked[s.end] - linked[s.start] > 0.7 * all_words:
            done = s.end
            for i in range(s.start, s.end):
                kept[i] = kept[i] and layout.blocks[i].image is not None


def _trim(blocks: list[Block], kept: list[bool]) -> None:
    """Leave out bylines, dates and other short lines before the first prose and behind the last."""
    prose = [i for i, b in enumerate(blocks) if kept[i] and is_prose(b)]
    if not prose:
        return
    for i in range(prose[0]):
        b = blocks[i]
        if kept[i] and b.text and b.tag not in HEADINGS and b.words < 15 and (b.words < 4 or _DATED.search(b.text)):
            kept[i] = False
    last = True
    for i in range(len(blocks) - 1, prose[-1], -1):
        b = blocks[i]
        if not kept[i] or b.text is None:
            continue
        stub = b.words < 4 and b.tag in _LOOSE and b.text[-1] not in ".!?:)"
        if b.links > 0.3 or stub or (b.tag in HEADINGS and last):
            kept[i] = False
        else:
            last = False


def _drop_repeats(blocks: list[Block], kept: list[bool]) -> None:
    """Leave out cookie notices, and long blocks that stood just before word for word (captions of slide shows)."""
    seen: dict[str, int] = {}
    for i, b in enumerate(blocks):
        if kept[i] and b.text and b.words >= 15:
            if (b.tag != "p" and i - seen.get(b.text, -100) < 25) or (b.words < 80 and _COOKIES.match(b.text[:1000])):
                kept[i] = False
            seen[b.text] = i

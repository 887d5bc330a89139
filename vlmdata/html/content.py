"""Selects the blocks of a page that are its main content. The selection depends on the layout only.

Each block has a score: its number of words if it reads like prose, or a negative number if it consists of links. Sections that
are marked as boilerplate, and lists of teasers, count only if they hold most of the prose. The section with the highest sum of
scores holds the main content. The innermost section with nearly all prose of the main content is the core. The title and the
summary before the core are added. Links and the lines that `furniture.py` recognizes are dropped.
"""

from __future__ import annotations

from itertools import accumulate

from vlmdata.html.cards import is_prose, teaser_share, unlink_cards
from vlmdata.html.furniture import CELLS, drop_furniture
from vlmdata.html.layout import HEADINGS, PageBlock, PageLayout, Section
from vlmdata.html.lead import is_icon, restore_figures, restore_lead
from vlmdata.html.sums import Sums, prose_of, sums_of
from vlmdata.html.teasers import BOXES, drop_teasers, is_related, teaser_lists
from vlmdata.text.words import count_words

_GALLERY_WORDS = 40  # a gallery has fewer words of prose
_CORE = 0.8  # least share of the prose that the core holds
_AMPLE_WORDS = 250  # with this many words of prose outside boilerplate, a page may drop boilerplate that holds more
_AMPLE = 0.8  # greatest share of the prose that such a page drops
_SOME_WORDS = 50  # with this many words of prose outside boilerplate, a page may drop comments that hold more
_HARDLY = 0.05  # share of the prose outside boilerplate; below it, names that mean content are trusted more
_FEW = 0.3  # share of the prose in the best section; below it, links have distorted the sums, and the whole page is used
_SKIPPED = 0.1  # share of the text of a page; skipped boilerplate below this share is not read again
_SUMMARY_WORDS = 20  # a summary has at least this many words
_FIGURE_BLOCKS = 50  # an image and its captions have at most this many blocks
_PARTS = frozenset(("p", "li", "td", "th", "dd"))
_TABLE_PARTS = CELLS | {"tr", "thead", "tbody", "tfoot"}
_TEXTUAL = frozenset(("p", "blockquote", "table", "pre", "dl", *HEADINGS))


def main_blocks(layout: PageLayout) -> list[bool]:
    """Return a list with an entry for each block: True if the block belongs to the main content.

    The function also changes the layout. It corrects `links` of cards and wrong boilerplate marks, and cuts credits off the end
    of captions.
    """
    blocks = layout.blocks
    teasers = unlink_cards(layout)
    sums = sums_of(layout)
    kept = _without_chrome(layout, sums)
    if prose_of(kept, sums) < min(_GALLERY_WORDS, _HARDLY * sums.prose[-1]):
        _trust_content(layout)
        kept = _without_chrome(layout, sums)
    for run in teasers:
        kept[run.start : run.stop] = [False] * len(run)
    if _is_gallery(kept, sums):
        return _gallery(layout, sums)
    prose = [0, *accumulate([b.words if keep and is_prose(b) else 0 for b, keep in zip(blocks, kept, strict=True)])]
    best = _best_section(layout, kept, sums)
    if prose[best.end] - prose[best.start] < _FEW * prose[-1]:
        best = layout.sections[0]
    chosen = _widen(layout, _core_of(layout, best, prose), kept)
    lead = [i for i in range(best.start, chosen.start) if kept[i]]
    after = [i for i in range(chosen.end, best.end) if kept[i]]
    for i in range(len(blocks)):
        kept[i] = kept[i] and chosen.start <= i < chosen.end
    _drop_links(layout, chosen, kept, sums)
    drop_teasers(layout, chosen, kept, sums)
    restore_lead(layout, kept, lead)
    restore_figures(blocks, kept, after)
    drop_furniture(layout, kept)
    return kept


def _trust_content(layout: PageLayout) -> None:
    """Clear the boilerplate mark of sections that are also named as content, as in `class="content toc-1"`."""
    for section in layout.sections:
        if section.body:
            section.chrome = 0


def may_have_skipped_content(layout: PageLayout) -> bool:
    """Return whether the skipped boilerplate is a large part of the page and may hold most of the page's prose."""
    if layout.skipped_chars < _SKIPPED * (layout.skipped_chars + sum(len(block.text or "") for block in layout.blocks)):
        return False
    prose = [block for block in layout.blocks if is_prose(block)]
    chars = sum(len(block.text or "") for block in prose)
    most = _AMPLE if sum(block.words for block in prose) >= _AMPLE_WORDS else 0.5
    return layout.skipped_long_chars * (1 - most) >= chars * most


def _is_gallery(kept: list[bool], sums: Sums) -> bool:
    """Return whether a page is a gallery or a shop page: it has at least three images and fewer than 40 words of prose."""
    if sums.images[-1] < 3:
        return False
    return prose_of(kept, sums) < _GALLERY_WORDS


def _gallery(layout: PageLayout, sums: Sums) -> list[bool]:
    """Return, for each block of a gallery, whether it is kept: False for boilerplate and for links without an image nearby."""
    kept = [True] * len(layout.blocks)
    for _, s in sums.sections:
        if s.tag == "body":
            continue
        linked = sums.linked[s.end] - sums.linked[s.start] > 0.7 * (sums.words[s.end] - sums.words[s.start])
        shows = sums.images[s.end] > sums.images[s.start]
        if s.chrome > 1 or (linked and not shows and not _beside_image(layout.sections[s.parent], sums)):
            kept[s.start : s.end] = [False] * (s.end - s.start)
    return kept


def _beside_image(parent: Section, sums: Sums) -> bool:
    """Return whether `parent` is small and shows an image, so that a link inside `parent` may be the image's title or price."""
    return parent.end - parent.start <= 12 and sums.images[parent.end] > sums.images[parent.start]


def _without_chrome(layout: PageLayout, sums: Sums) -> list[bool]:
    """Return a list with an entry for each block: False if the block is in boilerplate.

    Boilerplate that holds a large share of the prose counts as content.
    """
    kept = [True] * len(layout.blocks)
    prose = sums.prose
    total = prose[-1]
    teasers = teaser_lists(layout, sums)
    enough = teaser_share(layout) if teasers else 0.0
    outside = _prose_outside(layout, sums, teasers)
    most = _AMPLE if outside >= _AMPLE_WORDS else 0.5
    done = 0  # end of the last dropped section
    for i, s in sums.sections:
        if s.end <= done:
            continue
        if s.chrome > 1 and not _is_content(layout, s, sums):
            share = _AMPLE if s.chrome > 2 and outside >= _SOME_WORDS else most
        elif i in teasers:
            share = enough
        elif s.chrome and not _is_content(layout, s, sums):
            share = 0.25
        else:
            share = 0.3 if is_related(layout, s, sums) else 0.0
        if prose[s.end] - prose[s.start] < share * total:
            kept[s.start : s.end] = [False] * (s.end - s.start)
            done = s.end
    return kept


def _prose_outside(layout: PageLayout, sums: Sums, teasers: set[int]) -> int:
    """Return the number of words of prose outside boilerplate and lists of teasers."""
    outside = [True] * len(layout.blocks)
    for i, s in sums.sections:
        if s.chrome > 1 or i in teasers:
            outside[s.start : s.end] = [False] * (s.end - s.start)
    return prose_of(outside, sums)


def _is_content(layout: PageLayout, s: Section, sums: Sums) -> bool:
    """Return whether a section that is marked as boilerplate is an illustration, a summary, or prose between other prose."""
    words, linked = sums.words[s.end] - sums.words[s.start], sums.linked[s.end] - sums.linked[s.start]
    around = layout.sections[s.parent]
    is_followed = sums.prose[around.end] > sums.prose[s.end]
    is_surrounded = is_followed and sums.prose[s.start] > sums.prose[around.start]
    if sums.images[s.end] == sums.images[s.start]:
        if is_followed and s.chrome == 1 and s.body and words >= _SUMMARY_WORDS and linked <= 0.2 * words:
            return True  # a summary: class="teaser-text"
        return is_surrounded and s.tag in _TEXTUAL and linked <= 0.5 * words
    if s.end - s.start > _FIGURE_BLOCKS:
        return False
    images = [block for block in layout.blocks[s.start : s.end] if block.image]
    if any(is_icon(block.image) for block in images if block.image):
        return False
    if s.tag == "figure":
        return linked <= 0.5 * words or not all(b.links for b in images)
    captions = {block.image.caption for block in images if block.image and block.image.caption}
    caption_words = sum(map(count_words, captions))
    if captions:
        return (is_surrounded or s.chrome == 1) and (words == 0 or caption_words <= words - linked <= caption_words + 3)
    return is_surrounded and words == 0 and not all(b.links for b in images)


def _best_section(layout: PageLayout, kept: list[bool], totals: Sums) -> Section:
    """Return the section with the highest sum of scores. If several have this sum, return the innermost one."""
    scores = [_score(b) if keep and b.words else 0.0 for b, keep in zip(layout.blocks, kept, strict=True)]
    sums = [0.0, *accumulate(scores)]
    best, top = layout.sections[0], 0.0
    for _, s in totals.sections:
        value = sums[s.end] - sums[s.start]
        if s.body:
            value *= 1.1
        if value >= top and value > 0:
            best, top = s, value
    return best


def _core_of(layout: PageLayout, chosen: Section, prose: list[int]) -> Section:
    """Return the innermost section inside `chosen` that holds nearly all prose of `chosen`."""
    least = _CORE * (prose[chosen.end] - prose[chosen.start])
    for s in layout.sections:
        inside = chosen.start <= s.start and s.end <= chosen.end and s.tag not in _PARTS
        if inside and prose[s.end] - prose[s.start] >= least > 0:
            chosen = s
    return chosen


def _widen(layout: PageLayout, chosen: Section, kept: list[bool]) -> Section:
    """Return the outermost section around `chosen` that adds only kept images and kept texts without links."""
    blocks = layout.blocks
    while chosen.parent >= 0:
        parent = layout.sections[chosen.parent]
        added = [*range(parent.start, chosen.start), *range(chosen.end, parent.end)]
        if not all(kept[i] and (blocks[i].image or blocks[i].links < 0.5) for i in added):
            break
        chosen = parent
    return chosen


def _score(block: PageBlock) -> float:
    """Return the score of a block: its number of words outside links.

    The score is negative if the block consists of links, and 0 if the block is a heading or has fewer than four words.
    """
    if block.links > 0.7:
        return -block.words - 1.0
    if block.words < 4 or block.tag in HEADINGS:
        return 0.0
    return block.words * (1 - block.links)


def _drop_links(layout: PageLayout, chosen: Section, kept: list[bool], sums: Sums) -> None:
    """Drop links inside `chosen`: the text of sections that consist of links, and linked blocks that are not paragraphs.

    Parts of tables are not dropped.
    """
    words, linked = sums.words, sums.linked
    done = 0  # end of the last dropped section
    for _, s in sums.sections:
        if s.end <= done or not (chosen.start <= s.start and s.end <= chosen.end) or s is chosen or s.tag in _TABLE_PARTS:
            continue
        if sums.prose[s.end] - sums.prose[s.start] > 0.5 * (sums.prose[chosen.end] - sums.prose[chosen.start]):
            continue
        all_words = words[s.end] - words[s.start]
        if all_words and linked[s.end] - linked[s.start] > 0.7 * all_words:
            done = s.end
            for i in range(s.start, s.end):
                kept[i] = kept[i] and layout.blocks[i].image is not None
    for i in range(chosen.start, chosen.end):
        b = layout.blocks[i]
        if b.links > 0.8 and b.words and b.tag in BOXES:
            kept[i] = False

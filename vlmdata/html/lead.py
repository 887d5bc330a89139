"""Restores blocks that belong to the main content but are before or after its core, such as title, summary and pictures.

The core is the innermost section with nearly all prose of the main content, as `content.py` finds it.
"""

from __future__ import annotations

from vlmdata.html.cards import is_prose
from vlmdata.html.furniture import CELLS, is_dateline
from vlmdata.html.image_ref import ImageRef
from vlmdata.html.layout import HEADINGS, PageBlock, PageLayout

_LEAD_BLOCKS = 25  # at most this many blocks are between the title and the core
_ICON = 64  # an image with a side of at most this many pixels is an icon


def restore_lead(layout: PageLayout, kept: list[bool], before: list[int]) -> None:
    """Keep the title of the page, the pictures around the title, and the prose between the title and the core.

    This prose is usually a summary. `before` holds the indexes of the blocks that belong to the main content and come before
    the core. Lists and headings among these blocks are kept too, and if the page has no title, also tables.
    """
    blocks = layout.blocks
    first = next((i for i, keep in enumerate(kept) if keep), 0)
    title = next((i for i in range(first - 1, max(-1, first - _LEAD_BLOCKS), -1) if blocks[i].tag == "h1"), None)
    opening = [i for i in before if i < (first if title is None else title)]
    lead = opening if title is None else _outside_chrome(layout, title, first)
    _restore_pictures(blocks, kept, sorted({*opening, *lead}))
    in_content = set(before)
    for i in lead:
        b = blocks[i]
        listed = i in in_content and b.links < 0.7 and (b.tag == "li" or (b.tag in CELLS and title is None))
        if listed or (is_prose(b) and b.links < (0.3 if i in in_content else 0.2) and not is_dateline(b.text)):
            kept[i] = True
    for i in reversed(before):
        if blocks[i].tag in HEADINGS and not blocks[i].links and kept[i + 1] and blocks[i + 1].words:
            kept[i] = True
    if title is not None and (title in in_content or any(kept[i] for i in lead)):
        kept[title] = True


def restore_figures(blocks: list[PageBlock], kept: list[bool], after: list[int]) -> None:
    """Keep the images with captions that follow the core of the main content. Keep the blocks of their captions too.

    `after` holds the indexes of the blocks after the core. Images that are links or icons are not kept.
    """
    _restore_pictures(blocks, kept, [i for i in after if (image := blocks[i].image) is None or image.caption])


def _restore_pictures(blocks: list[PageBlock], kept: list[bool], places: list[int]) -> None:
    """Keep the images that are not links and not icons, and their captions. `places` are the indexes of blocks to look at."""
    captions: set[str | None] = set()
    for i in places:
        b = blocks[i]
        if b.image and not b.links and not is_icon(b.image):
            kept[i] = True
            captions.add(b.image.caption)
        elif b.text and b.text in captions:
            kept[i] = True


def _outside_chrome(layout: PageLayout, start: int, end: int) -> list[int]:
    """Return the indexes of the blocks from `start` to `end` that are not in a boilerplate section.

    A boilerplate section that begins before `start` does not exclude its blocks.
    """
    surely = [False] * len(layout.sections)
    for i, s in enumerate(layout.sections):
        surely[i] = s.start >= start and (s.chrome > 1 or (s.parent >= 0 and surely[s.parent]))
        if s.start >= end:
            break
    return [i for i in range(start, end) if not surely[layout.blocks[i].section]]


def is_icon(image: ImageRef) -> bool:
    """Return whether an image is an icon: the page shows it with a side of at most 64 pixels."""
    return any(side is not None and side <= _ICON for side in (image.rendered_width, image.rendered_height))

"""What stands before and behind the text proper and belongs to it: title, summary, pictures."""

from __future__ import annotations

from vlmdata.html.cards import is_prose
from vlmdata.html.furniture import CELLS, is_dateline
from vlmdata.html.image_ref import ImageRef
from vlmdata.html.layout import Block, Layout

_LEAD_BLOCKS = 25  # between the title and the text, at most
_ICON = 64  # pixels, at most


def restore_lead(layout: Layout, kept: list[bool], before: list[int]) -> None:
    """Keep the prose and images between the title of the page and its text: a summary, an opening picture.

    `before` are the blocks of the main content before the text proper, which count where no title stands before it.
    """
    blocks = layout.blocks
    first = next((i for i, keep in enumerate(kept) if keep), 0)
    title = next((i for i in range(first - 1, max(-1, first - _LEAD_BLOCKS), -1) if blocks[i].tag == "h1"), None)
    lead = _outside_chrome(layout, title, first) if title is not None else [i for i in before if i < first]
    captions: set[str | None] = set()
    for i in lead:
        b = blocks[i]
        if b.image and not b.links and not is_icon(b.image):
            kept[i] = True
            captions.add(b.image.caption)
        elif b.tag in CELLS and title is None and b.links < 0.7:
            kept[i] = True  # a table of facts
        elif (is_prose(b) and b.links < 0.2 and not is_dateline(b.text)) or (b.text and b.text in captions):
            kept[i] = True
    if title is not None and (title in before or any(kept[i] for i in lead)):
        kept[title] = True


def restore_figures(blocks: list[Block], kept: list[bool], behind: list[int]) -> None:
    """Keep images with a caption behind the text proper, and their captions."""
    captions: set[str | None] = set()
    for i in behind:
        b = blocks[i]
        if b.image and b.image.caption and not b.links and not is_icon(b.image):
            kept[i] = True
            captions.add(b.image.caption)
        elif b.text and b.text in captions:
            kept[i] = True


def _outside_chrome(layout: Layout, start: int, end: int) -> list[int]:
    """Return the blocks from `start` to `end` that stand in no boilerplate which begins among them."""
    surely = [False] * len(layout.sections)
    for i, s in enumerate(layout.sections):
        surely[i] = s.start >= start and (s.chrome > 1 or (s.parent >= 0 and surely[s.parent]))
        if s.start >= end:
            break
    return [i for i in range(start, end) if not surely[layout.blocks[i].section]]


def is_icon(image: ImageRef) -> bool:
    return any(side is not None and side <= _ICON for side in (image.rendered_width, image.rendered_height))

"""The flat layout of a page: its blocks of text and images in reading order, and the sections that hold them.

A block is one paragraph, heading, list item, cell or image, as a browser would show it. A section is a block-level element.
Its blocks are consecutive, so a sum over a section is the difference of two prefix sums.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vlmdata.html.image_ref import ImageRef

HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))


@dataclass(slots=True)
class PageBlock:
    """One block: a text or an image."""

    text: str | None  # None for an image
    image: ImageRef | None
    section: int  # index of the innermost section that holds the block
    tag: str  # tag of this section, or "img" for an image
    words: int = 0
    links: float = 0.0  # share of the characters that are inside links; 1 for an image inside a link


@dataclass(slots=True)
class Section:
    """A block-level element, and the range of its blocks."""

    tag: str
    parent: int  # index of the section around it, -1 for none
    start: int  # index of its first block
    end: int = -1  # index after its last block; -1 while the section is open
    chrome: int = 0  # whether class, id, role or tag mean boilerplate: 0 no, 1 perhaps, 2 surely, 3 other people's words
    body: bool = False  # whether class, id, role or tag mean main content
    caption: bool = False  # whether the section holds the caption of an image


@dataclass(slots=True)
class PageLayout:
    """The blocks and sections of a page, and counts of elements and text that were left out."""

    blocks: list[PageBlock] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)  # number of elements over a limit: `images`, `depth`
    skipped_long_chars: int = 0  # characters of long texts in skipped boilerplate
    skipped_chars: int = 0  # characters of all texts in skipped boilerplate

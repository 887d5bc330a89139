"""The flat layout of a page: its blocks of text and images in reading order, and the sections that hold them.

A block is what a browser would set as one paragraph, heading, list item, cell or image. A section is a block-level element;
the blocks inside it are one range of the list, so that sums over a section cost a subtraction.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vlmdata.html.image_ref import ImageRef

HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))


@dataclass(slots=True)
class PageBlock:
    text: str | None  # null for an image
    image: ImageRef | None
    section: int  # the innermost section that holds it
    tag: str  # of the section, or "img"
    words: int = 0
    links: float = 0.0  # share of the characters that stand in links; of an image 1 where it stands in one


@dataclass(slots=True)
class Section:
    tag: str
    parent: int
    start: int  # first block
    end: int = -1  # one past its last block; -1 while it is open
    chrome: int = 0  # whether class, id, role or tag say boilerplate: 0 no, 1 perhaps, 2 surely, 3 others' words
    body: bool = False  # they say main content
    caption: bool = False  # it holds the caption of an image


@dataclass(slots=True)
class PageLayout:
    blocks: list[PageBlock] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)  # what limits cut: images, depth
    passed: int = 0  # characters of long texts in boilerplate that was passed by
    passed_all: int = 0  # of all texts in it

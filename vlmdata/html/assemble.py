"""Kept blocks to the two aligned lists of a document: text joined as a reader would set it, cut only by images."""

from __future__ import annotations

from vlmdata.html.image_ref import ImageRef
from vlmdata.html.layout import PageLayout

_ITEMS = frozenset(("li", "td", "th", "dt", "dd"))
_CELLS = frozenset(("td", "th"))
_LISTS = frozenset(("ul", "ol", "dl", "menu", "dir"))


def assemble(layout: PageLayout, kept: list[bool]) -> tuple[list[str | None], list[ImageRef | None]]:
    """Return texts and images, aligned, one of the two null at each position.

    Paragraphs are parted by an empty line; items of a list and rows of a table by a line break; cells by a bar. A table
    that only arranges the page (a cell of it holds several blocks) is read as paragraphs.
    """
    items, groups = _items(layout)
    arranging = _arranging(layout, kept, items)
    texts: list[str | None] = []
    images: list[ImageRef | None] = []
    pieces: list[str] = []
    before, numbers = -1, dict[int, int]()
    for block, keep in zip(layout.blocks, kept, strict=True):
        if not keep:
            continue
        if block.image is not None:
            if pieces:
                texts.append("".join(pieces))
                images.append(None)
                pieces = []
            texts.append(None)
            images.append(block.image)
            before = -1
            continue
        item = items[block.section]
        if pieces:
            pieces.append(_joint(layout, before, item, arranging, groups))
        if item >= 0 and item != before:
            pieces.append(_mark(layout, item, numbers))
        pieces.append(block.text or "")
        before = item
    if pieces:
        texts.append("".join(pieces))
        images.append(None)
    return texts, images


def _items(layout: PageLayout) -> tuple[list[int], list[int]]:
    """Return for each section the list item or cell that it is or stands in, and what that belongs to: the table of a
    cell, the outermost list of an item; -1 for none."""
    items: list[int] = []
    groups: list[int] = []
    for i, s in enumerate(layout.sections):
        outer = groups[s.parent] if s.parent >= 0 else -1
        items.append(i if s.tag in _ITEMS else items[s.parent] if s.parent >= 0 else -1)
        in_list = outer >= 0 and layout.sections[outer].tag != "table"
        groups.append(i if s.tag == "table" or (s.tag in _LISTS and not in_list) else outer)
    return items, groups


def _arranging(layout: PageLayout, kept: list[bool], items: list[int]) -> set[int]:
    """Return the rows of tables one of whose cells holds several blocks."""
    seen: set[int] = set()
    rows: set[int] = set()
    for block, keep in zip(layout.blocks, kept, strict=True):
        item = items[block.section]
        if keep and item >= 0 and layout.sections[item].tag in _CELLS:
            if item in seen:
                rows.add(layout.sections[item].parent)
            seen.add(item)
    return rows


def _joint(layout: PageLayout, before: int, item: int, arranging: set[int], groups: list[int]) -> str:
    """Return what parts two blocks, given the items they stand in (-1 for none)."""
    if before < 0 or item < 0:
        return "\n\n"
    one, two = layout.sections[before], layout.sections[item]
    if (one.tag in _CELLS) != (two.tag in _CELLS):
        return "\n\n"
    if one.tag in _CELLS:
        if one.parent in arranging or two.parent in arranging:
            return "\n\n"
        if one.parent == two.parent:
            return " | "
    return "\n" if groups[before] == groups[item] else "\n\n"


def _mark(layout: PageLayout, item: int, numbers: dict[int, int]) -> str:
    """Return the bullet or number of a list item."""
    section = layout.sections[item]
    if section.tag != "li":
        return ""
    if layout.sections[section.parent].tag != "ol":
        return "- "
    numbers[section.parent] = numbers.get(section.parent, 0) + 1
    return f"{numbers[section.parent]}. "

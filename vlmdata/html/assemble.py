"""Makes the two aligned lists of a document from the kept blocks: text is joined, and split only by images."""

from __future__ import annotations

from vlmdata.html.image_ref import ImageRef
from vlmdata.html.layout import PageLayout

_ITEMS = frozenset(("li", "td", "th", "dt", "dd"))
_CELLS = frozenset(("td", "th"))
_LISTS = frozenset(("ul", "ol", "dl", "menu", "dir"))


def assemble(layout: PageLayout, kept: list[bool]) -> tuple[list[str | None], list[ImageRef | None]]:
    """Return texts and images, aligned; at each position one of the two is None.

    An empty line separates paragraphs, a line break list items and table rows, a bar table cells. A layout table (one of its
    cells holds several blocks) is read as paragraphs.
    """
    items, groups = _items(layout)
    layout_rows = _layout_rows(layout, kept, items)
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
            pieces.append(_separator(layout, before, item, layout_rows, groups))
        if item >= 0 and item != before:
            pieces.append(_item_mark(layout, item, numbers))
        pieces.append(block.text or "")
        before = item
    if pieces:
        texts.append("".join(pieces))
        images.append(None)
    return texts, images


def _items(layout: PageLayout) -> tuple[list[int], list[int]]:
    """Return for each section its list item or cell, and the group of that: a cell's table, an item's outermost list.

    Both are indexes of sections, -1 for none. A section that is an item or a group counts as its own.
    """
    items: list[int] = []
    groups: list[int] = []
    for i, s in enumerate(layout.sections):
        outer = groups[s.parent] if s.parent >= 0 else -1
        items.append(i if s.tag in _ITEMS else items[s.parent] if s.parent >= 0 else -1)
        in_list = outer >= 0 and layout.sections[outer].tag != "table"
        groups.append(i if s.tag == "table" or (s.tag in _LISTS and not in_list) else outer)
    return items, groups


def _layout_rows(layout: PageLayout, kept: list[bool], items: list[int]) -> set[int]:
    """Return the table rows that have a cell with several kept blocks."""
    seen: set[int] = set()
    rows: set[int] = set()
    for block, keep in zip(layout.blocks, kept, strict=True):
        item = items[block.section]
        if keep and item >= 0 and layout.sections[item].tag in _CELLS:
            if item in seen:
                rows.add(layout.sections[item].parent)
            seen.add(item)
    return rows


def _separator(layout: PageLayout, before: int, item: int, layout_rows: set[int], groups: list[int]) -> str:
    """Return the separator between two blocks, given the items that hold them (-1 for none)."""
    if before < 0 or item < 0:
        return "\n\n"
    one, two = layout.sections[before], layout.sections[item]
    if (one.tag in _CELLS) != (two.tag in _CELLS):
        return "\n\n"
    if one.tag in _CELLS:
        if one.parent in layout_rows or two.parent in layout_rows:
            return "\n\n"
        if one.parent == two.parent:
            return " | "
    return "\n" if groups[before] == groups[item] else "\n\n"


def _item_mark(layout: PageLayout, item: int, numbers: dict[int, int]) -> str:
    """Return the bullet or number of a list item, empty for a cell or term."""
    section = layout.sections[item]
    if section.tag != "li":
        return ""
    if layout.sections[section.parent].tag != "ol":
        return "- "
    numbers[section.parent] = numbers.get(section.parent, 0) + 1
    return f"{numbers[section.parent]}. "

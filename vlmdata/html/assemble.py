"""Makes the two lists of a document, texts and images, from the kept blocks. Consecutive texts are joined into one."""

from __future__ import annotations

from vlmdata.html.image_ref import ImageRef
from vlmdata.html.layout import PageLayout

_ITEMS = frozenset(("li", "td", "th", "dt", "dd"))
_CELLS = frozenset(("td", "th"))
_LISTS = frozenset(("ul", "ol", "dl", "menu", "dir"))


def assemble(layout: PageLayout, kept: list[bool]) -> tuple[list[str | None], list[ImageRef | None]]:
    """Return a list of texts and a list of images. The lists have equal length, and at each position one of the two is None.

    Paragraphs are separated by an empty line, list items and table rows by a line break, and table cells by a bar. Cells are
    separated like paragraphs if a cell in their row holds several blocks, because such a row serves the layout of the page.
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
    """Return two lists with an entry for each section: the index of its item, and the index of its group.

    An item is a list item or a table cell. A group is a table, or a list that is not inside another list of the same group. A
    section that is an item is its own item. The item of any other section is the innermost item around it. Groups are found in
    the same way. An index is a place in `layout.sections`, or -1 if there is no such item or group.
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
    """Return the section indexes of the table rows that serve the layout of the page.

    Such a row has a cell with several kept blocks. `items` is the first result of `_items`.
    """
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
    """Return the separator between two blocks.

    `before` and `item` are the section indexes of the list items or table cells that hold the first and the second block. The
    index is -1 for a block that is not in a list item or table cell.
    """
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
    """Return the bullet or number of a list item, or an empty string for a cell or term. `numbers` counts each list's items."""
    section = layout.sections[item]
    if section.tag != "li":
        return ""
    if layout.sections[section.parent].tag != "ol":
        return "- "
    numbers[section.parent] = numbers.get(section.parent, 0) + 1
    return f"{numbers[section.parent]}. "

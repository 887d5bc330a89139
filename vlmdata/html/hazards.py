"""Rejects pages that would cost a parser too much time or memory, without parsing them.

A parser takes quadratic time on deep nesting and on the attributes of one tag. It also copies every open formatting element
into each paragraph, so one kilobyte of tags can make a tree of a gigabyte. Measured with lexbor: 60,000 nested elements take
3 s, 50,000 attributes of a tag take 20 s, and 900 unclosed `<font>` in a `<div>` before 20,000 more `<div>` take 6.5 GB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmdata.html.markup import ATTRIBUTE, TAG, may_name_attributes, read_markup
from vlmdata.html.open_elements import ALIKE, FORMATTING, Tree

_OTHER_FORMATTING = b"|".join(sorted(FORMATTING - {b"a", b"nobr"})).decode()
_PLAIN = r"""(?:[ \t\n\f\r]++[a-zA-Z-]++="[^"<]*+")*+ *+>"""
_SUSPECTS = re.compile(  # matches tags of `<body>`, `<html>` and formatting elements, up to `>` if their attributes are plain
    rf"<(?=[bcefhistuBCEFHISTU])(?:(?i:body|html)|(?i:{_OTHER_FORMATTING})(?=[ \t\n\f\r/>])(?:{_PLAIN})?+)".encode()
)


def _pairs() -> Any:
    """Return a lookup table, (65536,) uint8, with an entry for each value of the two bytes after a `<`.

    An entry is 1 if the two bytes may begin the name of a formatting element, 2 if they may begin `body` or `html`, and 0
    otherwise.
    """
    table = np.zeros(1 << 16, np.uint8)
    for number, names in ((1, FORMATTING - {b"a", b"nobr"}), (2, {b"body", b"html"})):
        for name in names:
            seconds = {name[1:2].lower(), name[1:2].upper()} if len(name) > 1 else {bytes([code]) for code in b" \t\n\f\r/>"}
            for first in (name[:1], name[:1].upper()):
                for second in seconds:
                    table[first[0] << 8 | second[0]] = number
    return table


_PAIRS = _pairs()
_NAME_END = re.compile(rb"[ \t\n\f\r/>]")
_FEW = 20_000  # a page with fewer tags is harmless, however they nest
_MERGED = 8  # `<html>` and `<body>` tags that are harmless; a parser merges the attributes of all of them


@dataclass(frozen=True)
class Limits:
    """Limits on the size of one page."""

    max_bytes: int = 10_000_000
    max_tags: int = 300_000
    max_attributes: int = 5_000  # attributes of one tag
    max_depth: int = 1_000  # nested elements; Chrome nests at most 512
    max_images: int = 1_000  # the first images are kept, the others are counted
    max_data_bytes: int = 5_000_000  # bytes of one inline image


def harmless(html: bytes, limits: Limits) -> tuple[bytes, str | None]:
    """Return (page that is safe to parse, None), or (b"", reason) if the page must not be parsed.

    The reason is `too_many_tags`, `too_many_attributes` or `too_deep`. If a page has many tags, its comments, scripts, styles
    and drawings are removed, because they could hide tags from the count.
    """
    if not _may_be_large(html, limits.max_tags) and not _may_be_crowded(html, limits.max_attributes):
        return html, None
    pieces: list[bytes] = []
    tree = Tree()
    opened, wide = tree.opened, 2 * limits.max_attributes
    for name, closes, text in read_markup(html, pieces):
        if len(text) > wide and _is_crowded(text, limits.max_attributes):
            return b"", "too_many_attributes"
        tree.add(name, closes, text)
        if len(opened) > limits.max_depth:
            return b"", "too_deep"
        if tree.cost > limits.max_tags:
            return b"", "too_many_tags"
    return b"".join(pieces), None


def _may_be_large(html: bytes, most: int) -> bool:
    """Return whether a page may have many tags or many copies of formatting elements.

    Every `<` counts as the start of a tag, because a parser may see a tag at any `<`.
    """
    codes = np.frombuffer(html, np.uint8)
    marks = codes == ord("<")
    tags = int(np.count_nonzero(marks))
    if tags >= min(_FEW, most):
        return True
    starts = np.flatnonzero(marks[:-2])
    pairs = codes[starts + 1].astype(np.uint16) << 8 | codes[starts + 2]
    _, copied, merged = np.bincount(_PAIRS[pairs], minlength=3).tolist()
    if tags * (copied + 2) <= 2 * most and merged <= _MERGED:  # true for most pages
        return False
    suspects = _SUSPECTS.findall(html)
    kinds = set(suspects)
    odd = [kind for kind in kinds if kind[-1:] != b">"]
    merged = sum(suspects.count(kind) for kind in odd if kind[1:].lower() in (b"body", b"html"))
    copied = sum(map(suspects.count, odd)) - merged + ALIKE * (len(kinds) - len(odd)) + 2  # 2 for one <a> and one <nobr>
    return tags * copied > 2 * most or merged > _MERGED  # on most pages half of the tags are end tags


def _may_be_crowded(html: bytes, most: int) -> bool:
    """Return whether a page may have a tag with too many attributes, or would take too long to check.

    A fast check excludes most pages. It divides the page into stretches of `most` bytes. An attribute takes at least two bytes,
    so a tag with more than 2 * `most` attributes fills at least three consecutive stretches. The page is searched for tags only
    if three consecutive stretches may be part of one tag. A tag with too many attributes but at most 2 * `most` may be missed.
    """
    return any(_gaps(html[start:end]) > most for start, end in _long_stretches(html, most)) and _holds_crowded(html, most)


def _long_stretches(html: bytes, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each long part of a page that may lie inside one tag.

    The page is cut into stretches of `size` bytes. A long part consists of three or more consecutive stretches.
    """

    def inside(number: int) -> bool:
        return may_name_attributes(html, number * size, min((number + 1) * size, len(html)))

    count = -(-len(html) // size)
    done = 0
    for middle in range(2, count, 3):  # any three consecutive stretches include one of these
        if middle < done or not inside(middle):
            continue
        first, end = middle, middle + 1
        while first > done and inside(first - 1):
            first -= 1
        while end < count and inside(end):
            end += 1
        done = end
        if end - first >= 3:
            yield first * size, end * size


def _holds_crowded(html: bytes, most: int) -> bool:
    """Return whether a page has a tag with more than `most` attributes, or whether the search takes too long."""
    scanned = 0
    for match in TAG.finditer(html):
        start, end = match.span(1)
        scanned += end - start
        if scanned > 4 * len(html) or (end - start > 2 * most and _is_crowded(html[start - 2 : end], most)):
            return True
    return False


def _gaps(stretch: bytes) -> int:
    """Return an upper bound on the attributes in a stretch of a tag: the number of places where an attribute can begin.

    An attribute begins after a blank, after a slash, or after the value of another attribute.
    """
    return len(stretch.split()) + stretch.count(b"/") + stretch.count(b"=")


def _is_crowded(tag: bytes, most: int) -> bool:
    """Return whether a tag has more than `most` attributes with different names."""
    return len(tag) > 2 * most and len(set(_attributes(tag))) > most


def _attributes(tag: bytes) -> Iterator[bytes]:
    """Yield the names of a tag's attributes in lower case, including repeated ones."""
    name_end = _NAME_END.search(tag, 2)
    for match in ATTRIBUTE.finditer(tag, name_end.start() if name_end else len(tag)):
        yield match[1].lower()

"""Pages that would cost a parser too much, found before it sees them.

A tree builder takes quadratic time on deep nesting and on the attributes of one tag, and copies every open formatting element
into each paragraph, so that one kilobyte of tags can ask for a gigabyte of tree. Measured with lexbor: 60,000 nested elements
take 3 s, 50,000 attributes 20 s, 900 unclosed `<font>` in a `<div>` and 20,000 more `<div>` 6.5 GB.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlmdata.html.markup import ATTRIBUTE, TAG, may_name_attributes, read_markup
from vlmdata.html.names import byte_words

_FORMATTING = byte_words("a b big code em font i nobr s small strike strong tt u")
# Elements that never nest in themselves for long: empty ones, and those whose end tag is optional.
_FLAT = byte_words(
    "area base br col embed hr img input link meta param source track wbr p tr td th thead tbody tfoot colgroup html head body"
)
_OTHER_FORMATTING = b"|".join(sorted(_FORMATTING - {b"a", b"nobr"})).decode()
_PLAIN = r"""(?:[ \t\n\f\r]++[a-zA-Z-]++="[^"<]*+")*+ *+>"""
_SUSPECTS = re.compile(  # `<body>`, `<html>`, and formatting elements, whole where their attributes are plain
    rf"<(?=[bcefhistuBCEFHISTU])(?:(?i:body|html)|(?i:{_OTHER_FORMATTING})(?=[ \t\n\f\r/>])(?:{_PLAIN})?+)".encode()
)


def _pairs() -> Any:
    """Return what the two letters behind a `<` may begin, by their codes as one number: 1 a formatting element, 2 `<body>` or
    `<html>`, 0 neither."""
    table = np.zeros(1 << 16, np.uint8)
    for number, names in ((1, _FORMATTING - {b"a", b"nobr"}), (2, {b"body", b"html"})):
        for name in names:
            seconds = {name[1:2].lower(), name[1:2].upper()} if len(name) > 1 else {bytes([code]) for code in b" \t\n\f\r/>"}
            for first in (name[:1], name[:1].upper()):
                for second in seconds:
                    table[first[0] << 8 | second[0]] = number
    return table


_PAIRS = _pairs()
_NAME_END = re.compile(rb"[ \t\n\f\r/>]")
_ITEMS = {b"li": byte_words("li"), b"dd": byte_words("dd dt"), b"dt": byte_words("dd dt")}  # what each of them ends
# What an end tag does not reach through: that of a block the first, that of an inline element all three.
_BARRIERS = byte_words(
    "applet marquee object table template svg math foreignobject desc title mi mo mn ms mtext annotation-xml"
)
_BLOCKS = byte_words(
    "address article aside blockquote button center dd details dir div dl dt fieldset figcaption figure footer form h1 h2 h3 "
    "h4 h5 h6 header hgroup li listing main menu nav ol pre search section summary ul"
)
_SPECIAL = _BARRIERS | _BLOCKS | byte_words("frameset iframe keygen noembed noframes noscript select")
_STOPS = {  # of an end tag, where it is not _SPECIAL
    **dict.fromkeys((*_BLOCKS, *byte_words("table object applet marquee template")), _BARRIERS),
    b"li": _BARRIERS | {b"ul", b"ol"},
}
_FEW = 20_000  # tags of a page whose nesting cannot do harm
_MERGED = 8  # tags of `<html>` and `<body>`, whose attributes come together in one, that cannot do harm
_ALIKE = 3  # formatting elements with the same attributes that a parser keeps open
_STEPS = 64  # elements that a parser passes in the time of making one


@dataclass(frozen=True)
class Limits:
    """What one page may cost."""

    max_bytes: int = 10_000_000
    max_tags: int = 300_000
    max_attributes: int = 5_000  # of one tag
    max_depth: int = 1_000  # open elements; Chrome flattens past 512
    max_images: int = 1_000  # the first are kept, the others counted
    max_data_bytes: int = 5_000_000  # of one inline image


def harmless(html: bytes, limits: Limits) -> tuple[bytes, str | None]:
    """Return a page as it may be parsed, and why it must not be: `too_many_tags`, `too_many_attributes`, `too_deep`, or None.

    A page of many tags comes without its comments, scripts, styles and drawings, in which tags could hide from the count.
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
    """Say whether a page may have many tags, or many copies of formatting elements, wherever a parser takes tags to begin."""
    codes = np.frombuffer(html, np.uint8)
    marks = codes == ord("<")
    tags = int(np.count_nonzero(marks))
    if tags >= min(_FEW, most):
        return True
    starts = np.flatnonzero(marks[:-2])
    pairs = codes[starts + 1].astype(np.uint16) << 8 | codes[starts + 2]
    _, copied, merged = np.bincount(_PAIRS[pairs], minlength=3).tolist()
    if tags * (copied + 2) <= 2 * most and merged <= _MERGED:  # as on most pages
        return False
    suspects = _SUSPECTS.findall(html)
    kinds = set(suspects)
    odd = [kind for kind in kinds if kind[-1:] != b">"]
    merged = sum(suspects.count(kind) for kind in odd if kind[1:].lower() in (b"body", b"html"))
    copied = sum(map(suspects.count, odd)) - merged + _ALIKE * (len(kinds) - len(odd)) + 2  # one <a> and one <nobr>
    return tags * copied > 2 * most or merged > _MERGED  # half of them are end tags, on most pages


def _may_be_crowded(html: bytes, most: int) -> bool:
    """Say whether a tag may have too many attributes, wherever a parser takes tags to begin, or finding out costs too much.

    Tags of at most twice as many may pass. One with more, at two bytes an attribute, is longer than four stretches of `most`
    bytes, so it fills three of them, and most pages have no three in a row that can be part of one tag.
    """
    return any(_gaps(html[start:end]) > most for start, end in _long_stretches(html, most)) and _holds_crowded(html, most)


def _long_stretches(html: bytes, size: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of three or more stretches in a row, of `size` bytes each, that may all lie wholly within a tag."""

    def inside(number: int) -> bool:
        return may_name_attributes(html, number * size, min((number + 1) * size, len(html)))

    count = -(-len(html) // size)
    done = 0
    for middle in range(2, count, 3):  # three in a row hold one of these
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
    """Say whether a tag has more than `most` attributes, or telling takes too long."""
    looked = 0
    for match in TAG.finditer(html):
        start, end = match.span(1)
        looked += end - start
        if looked > 4 * len(html) or (end - start > 2 * most and _is_crowded(html[start - 2 : end], most)):
            return True
    return False


def _gaps(stretch: bytes) -> int:
    """Return how many attributes a stretch of a tag may name: each stands behind a blank, a slash or the value of another."""
    return len(stretch.split()) + stretch.count(b"/") + stretch.count(b"=")


def _is_crowded(tag: bytes, most: int) -> bool:
    return len(tag) > 2 * most and len(set(_attributes(tag))) > most


def _attributes(tag: bytes) -> Iterator[bytes]:
    """Yield the names of the attributes of a tag, as often as they stand in it."""
    name_end = _NAME_END.search(tag, 2)
    for match in ATTRIBUTE.finditer(tag, name_end.start() if name_end else len(tag)):
        yield match[1].lower()


@dataclass(slots=True)
class Tree:
    """What a parser has open, no less than it really has, and what it did until now. Source: WHATWG HTML, "tree construction".

    End tags that a parser ignores are ignored here: those whose element stands beyond another that they do not reach through.
    """

    opened: list[bytes] = field(default_factory=list)  # outermost first
    counts: dict[bytes, int] = field(default_factory=dict)  # of their names
    formatting: dict[bytes, list[bytes]] = field(default_factory=dict)  # tags without an end tag until now, by name
    alike: dict[bytes, int] = field(default_factory=dict)  # of these tags
    lost: Counter[bytes] = field(default_factory=Counter)  # of them, how many another end tag closed; what follows reopens them
    cost: int = 0  # tags, elements that were opened again, steps taken

    def add(self, name: bytes, closes: bool, text: bytes) -> None:
        """Take in one tag; `text` is the whole of it."""
        self.cost += 1
        if closes and name != b"br":  # which parsers take for <br>
            if self.counts.get(name):
                self._close(name)
            elif name in _FORMATTING:
                self._forget(name)
            return
        block = name in _SPECIAL
        if name in _ITEMS:
            self._end_item(_ITEMS[name])
        elif name in (b"a", b"nobr") and self.counts.get(name):
            self._close(name)
        if self.lost and not block:
            self._reopen()
        if name == b"p" and self.formatting:
            self.cost += sum(map(len, self.formatting.values()))
        if name in _FLAT and not (self.counts.get(b"math") or self.counts.get(b"svg")):  # where they nest as all others do
            return
        self._open(name)
        if block:
            if self.lost:
                self._reopen()  # by the text that follows
        elif name in _FORMATTING:
            texts = self.formatting.setdefault(name, [])
            if self.alike.get(text, 0) >= _ALIKE:
                texts.remove(text)
            else:
                self.alike[text] = self.alike.get(text, 0) + 1
            texts.append(text)

    def _end_item(self, names: frozenset[bytes]) -> None:
        """Close the list item that the next one ends."""
        for name in reversed(self.opened):
            if name in names:
                self._close(name)
            if name in _SPECIAL and name not in (b"address", b"div"):
                return

    def _reopen(self) -> None:
        for name, count in self.lost.items():
            self.cost += count
            self.opened += [name] * count
            self.counts[name] = self.counts.get(name, 0) + count
        self.lost.clear()

    def _open(self, name: bytes) -> None:
        self.opened.append(name)
        self.counts[name] = self.counts.get(name, 0) + 1

    def _close(self, name: bytes) -> None:
        """Close the innermost element of a name and what stands in it, where an end tag does."""
        if self.opened[-1] == name:
            if name in _FORMATTING:
                self._forget(name)
            self.opened.pop()
            self.counts[name] -= 1
            return
        stops = _STOPS.get(name, _SPECIAL)
        place = len(self.opened) - 1
        reached = True
        while self.opened[place] != name:
            reached = reached and self.opened[place] not in stops
            place -= 1
        self.cost += (len(self.opened) - place) // _STEPS
        if name in _FORMATTING:
            self._forget(name)
        if name == b"form" or (name in _FORMATTING and not reached):
            self._drop(place, place + 1)  # what stands in it stays open
        elif reached:
            self._drop(place, len(self.opened))

    def _drop(self, start: int, end: int) -> None:
        for place in range(start, end):
            name = self.opened[place]
            self.counts[name] -= 1
            if place > start and name in self.formatting:
                self._lose(name, 1)
        del self.opened[start:end]

    def _forget(self, name: bytes) -> None:
        """Take the last formatting element of a name from those that are opened again."""
        if texts := self.formatting.get(name):
            self.alike[texts.pop()] -= 1
            self._lose(name, 0)

    def _lose(self, name: bytes, count: int) -> None:
        if left := min(len(self.formatting[name]), self.lost[name] + count):
            self.lost[name] = left
        else:
            del self.lost[name]

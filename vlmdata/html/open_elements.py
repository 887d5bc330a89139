"""Counts the elements that a parser has open after each tag of a page, and estimates how much work the parser has done."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from vlmdata.html.names import byte_words

FORMATTING = byte_words("a b big code em font i nobr s small strike strong tt u")
# Elements that hardly ever nest in themselves, because they are empty or their end tag is optional.
_FLAT = byte_words(
    "area base br col embed hr img input link meta param source track wbr p tr td th thead tbody tfoot colgroup html head body"
)
_ITEMS = {b"li": byte_words("li"), b"dd": byte_words("dd dt"), b"dt": byte_words("dd dt")}  # item: the items it ends
# While one of these elements is open, end tags of elements around it have no effect. `_BARRIERS` stop the end tags of blocks,
# and `_SPECIAL` stop the end tags of other elements.
_BARRIERS = byte_words(
    "applet marquee object table template svg math foreignobject desc title mi mo mn ms mtext annotation-xml"
)
_BLOCKS = byte_words(
    "address article aside blockquote button center dd details dir div dl dt fieldset figcaption figure footer form h1 h2 h3 "
    "h4 h5 h6 header hgroup li listing main menu nav ol pre search section summary ul"
)
_SPECIAL = _BARRIERS | _BLOCKS | byte_words("frameset iframe keygen noembed noframes noscript select")
_STOPS = {  # name of an end tag: the elements that stop it; other end tags are stopped by `_SPECIAL`
    **dict.fromkeys((*_BLOCKS, *byte_words("table object applet marquee template")), _BARRIERS),
    b"li": _BARRIERS | {b"ul", b"ol"},
}
ALIKE = 3  # a parser keeps at most this many formatting elements with the same attributes open
_STEPS = 64  # a parser steps over this many open elements in the time in which it creates one element


@dataclass(slots=True)
class Tree:
    """Tracks the elements that a parser may have open after each tag of a page.

    `cost` counts the parser's work so far, in units of the creation of one element. As in a parser, an end tag may have no
    effect while certain elements, such as tables, are open inside the element that it would close. Source: WHATWG HTML, "tree
    construction".
    """

    opened: list[bytes] = field(default_factory=list)  # names of the open elements, outermost first
    counts: dict[bytes, int] = field(default_factory=dict)  # name: number of open elements
    formatting: dict[bytes, list[bytes]] = field(default_factory=dict)  # name: formatting tags without an end tag so far
    alike: dict[bytes, int] = field(default_factory=dict)  # text of a tag: number of its occurrences in `formatting`
    lost: Counter[bytes] = field(default_factory=Counter)  # elements closed by other end tags, which later content reopens
    cost: int = 0  # number of tags, reopened elements and steps

    def add(self, name: bytes, closes: bool, text: bytes) -> None:
        """Apply one tag. `closes` says that it is an end tag, and `text` is the whole tag."""
        self.cost += 1
        if closes and name != b"br":  # parsers read </br> as <br>
            if self.counts.get(name):
                self._close(name)
            elif name in FORMATTING:
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
        if name in _FLAT and not (self.counts.get(b"math") or self.counts.get(b"svg")):  # these names nest inside math and svg
            return
        self._open(name)
        if block:
            if self.lost:
                self._reopen()  # the text in the block reopens the lost elements
        elif name in FORMATTING:
            texts = self.formatting.setdefault(name, [])
            if self.alike.get(text, 0) >= ALIKE:
                texts.remove(text)
            else:
                self.alike[text] = self.alike.get(text, 0) + 1
            texts.append(text)

    def _end_item(self, names: frozenset[bytes]) -> None:
        """Close the open list item that a new item ends, if there is one. `names` holds the tags that the new item can end."""
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
        """Apply an end tag as a parser does: close the innermost element with this name, unless another element prevents it."""
        if self.opened[-1] == name:
            if name in FORMATTING:
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
        if name in FORMATTING:
            self._forget(name)
        if name == b"form" or (name in FORMATTING and not reached):
            self._drop(place, place + 1)  # the elements inside this one stay open
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
        """Forget the last formatting element with this name, so that it is not reopened."""
        if texts := self.formatting.get(name):
            self.alike[texts.pop()] -= 1
            self._lose(name, 0)

    def _lose(self, name: bytes, count: int) -> None:
        if left := min(len(self.formatting[name]), self.lost[name] + count):
            self.lost[name] = left
        else:
            del self.lost[name]

"""The elements that a parser has open after each tag of a page, and what the tree has cost until then."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from vlmdata.html.names import byte_words

FORMATTING = byte_words("a b big code em font i nobr s small strike strong tt u")
# Elements that never nest in themselves for long: empty ones, and those whose end tag is optional.
_FLAT = byte_words(
    "area base br col embed hr img input link meta param source track wbr p tr td th thead tbody tfoot colgroup html head body"
)
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
ALIKE = 3  # formatting elements with the same attributes that a parser keeps open
_STEPS = 64  # elements that a parser passes in the time of making one


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
        if name in _FLAT and not (self.counts.get(b"math") or self.counts.get(b"svg")):  # where they nest as all others do
            return
        self._open(name)
        if block:
            if self.lost:
                self._reopen()  # by the text that follows
        elif name in FORMATTING:
            texts = self.formatting.setdefault(name, [])
            if self.alike.get(text, 0) >= ALIKE:
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

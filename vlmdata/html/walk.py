"""Holds the state of a walk over a parsed page: the open elements and the layout so far."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from vlmdata.html.image_ref import ImageRef, image_ref, merged
from vlmdata.html.layout import HEADINGS, PageBlock, PageLayout, Section
from vlmdata.html.names import KNOWN, NAMELESS, NO_MEANING, classify_names
from vlmdata.text.words import count_words, is_plain

TEXTUAL = frozenset(("p", "blockquote", "table", "pre", "dl", *HEADINGS))

Prune = Literal["nothing", "menus", "boilerplate"]

_GAPS = re.compile(r"[ \t\n\r\f\u200b]+")  # white space of HTML, and the zero width space that some editors leave
_PICTURES = frozenset(("img", "amp-img", "noscript"))
_UNSEEN = frozenset(("script", "style", "noscript", "iframe", "select"))  # elements whose text a browser does not show
_FEW_UNSEEN = 32  # the text of only this many unseen elements of a section is subtracted; with more, a second walk may follow
# Elements to search for in boilerplate. A section with one of them that is not a picture or an unseen element is not skipped.
_SEARCHED = "h1,article,img,noscript,amp-img,figure,figcaption,[class*=aption],script,style,iframe,select"
_LONG = 60  # a text that may be prose has at least this many characters
_FEW_PIECES = 16  # with more pieces of text and line breaks between them, two images are not merged
_READ_IMAGES = 10  # a page may have this many times more images than are kept; further images are not read
_CAPTION_BLOCKS = 50  # a caption has at most this many blocks
_FIGURE_DEPTH = 16  # at most this many elements are between a figure and its caption
_SOURCES = 50  # only this many `<source>`s of one `<picture>` are read
_REFUSALS = 8  # nested sections that are marked as boilerplate but hold content; deeper ones are not searched
_TAGS = {  # meaning of a tag alone: boilerplate, main content, caption
    **dict.fromkeys(("nav", "footer", "aside", "menu"), (2, False, False)),
    "form": (2, False, False),
    **dict.fromkeys(("article", "main"), (0, True, False)),
    "figcaption": (0, False, True),
}


@dataclass(slots=True)
class Walk:
    """The state of one walk over a tree. `base` resolves relative addresses."""

    base: str
    max_images: int
    max_depth: int
    max_data_bytes: int
    prune: Prune
    layout: PageLayout = field(default_factory=PageLayout)
    blocks: list[PageBlock] = field(init=False)  # the lists of the layout
    sections: list[Section] = field(init=False)
    current: int = -1  # index of the innermost open section
    pieces: list[str] = field(default_factory=list)  # text since the last block ended; \x01 means <br>
    links: int = 0  # number of open <a> elements
    link_chars: int = 0  # characters of `pieces` inside links
    pre: int = 0  # number of open <pre> elements
    images: int = 0
    seen: set[str] = field(default_factory=set)  # addresses of the images
    pictures: set[int] = field(default_factory=set)  # <picture> elements whose sources were read
    images_read: int = 0  # number of images, including images that were left out
    noscripts: int = 0  # number of open <noscript> elements
    repeating: bool = False  # whether the last image is in a <noscript>
    refused: list[Section] = field(default_factory=list)  # open sections that are marked as boilerplate but hold content

    def __post_init__(self) -> None:
        self.blocks, self.sections = self.layout.blocks, self.layout.sections

    def flush(self) -> None:
        """Append the collected text to the layout as one block, or as several if it has empty lines."""
        if not self.pieces:
            return
        text = "".join(self.pieces) if len(self.pieces) > 1 else self.pieces[0]
        self.pieces.clear()
        if "\xad" in text:
            text = text.replace("\xad", "")  # soft hyphens, at which a browser may break a word
        chars, self.link_chars = self.link_chars, 0
        tag = self.sections[self.current].tag
        if not self.pre and "\x01" not in text:
            text, words = _collapsed(text)
            if words or (text and not text.isspace()):
                density = min(1.0, chars / len(text)) if chars else 0.0
                self.blocks.append(PageBlock(text, None, self.current, tag, words, density))
            return
        parts = [text.replace("\x01", "\n").strip("\n")] if self.pre else _broken(text)
        density = min(1.0, chars / max(1, sum(map(len, parts)))) if chars else 0.0
        for part in parts:
            if part and not part.isspace():
                self.blocks.append(PageBlock(part, None, self.current, tag, count_words(part), density))

    def enter(self, tag: str, attributes: dict[str, str | None]) -> int:
        """Open a section and return the index of the section around it. Pass this index to `leave` to close the new section."""
        if self.pieces:
            self.flush()
        parent = self.current
        chrome, body, caption = _TAGS.get(tag, NO_MEANING)
        if attributes:
            get = attributes.get
            names = (get("class"), get("id"), get("role"), get("itemprop"))
            if names != NAMELESS:
                meaning = KNOWN.get(names) or classify_names(names)
                if meaning is not NO_MEANING:
                    chrome, body, caption = max(chrome, meaning[0]), body or meaning[1], caption or meaning[2]
        self.current = len(self.sections)
        self.sections.append(Section(tag, parent, len(self.blocks), -1, chrome, body, caption))
        return parent

    def leave(self, parent: int) -> None:
        """Close the current section. `parent` becomes the current section again."""
        if self.pieces:
            self.flush()
        section = self.sections[self.current]
        section.end = len(self.blocks)
        if section.caption and 0 < section.end - section.start <= _CAPTION_BLOCKS:
            self.caption(section)
        self.current = parent

    def skip_boilerplate(self, node: Any, tag: str) -> bool:
        """Return whether the current section, which is marked as boilerplate, can be skipped.

        For a section that can be skipped, one block without words is added.
        """
        section = self.sections[self.current]
        if section.body:
            return False
        while self.refused and self.refused[-1].end >= 0:
            self.refused.pop()
        if len(self.refused) >= _REFUSALS:
            return False
        chars = _boilerplate_chars(node, tag)
        if chars is None:
            self.refused.append(section)
            return False
        self.layout.skipped_long_chars += chars[0]
        self.layout.skipped_chars += chars[1]
        self.blocks.append(PageBlock("", None, self.current, tag, 0, 1.0))
        return True

    def caption(self, section: Section) -> None:
        """Set the text of a section as the caption of the images in the figure around the section.

        If no figure is around the section, the text becomes the caption of the image before it.
        """
        caption_blocks = self.blocks[section.start : section.end]
        words = "\n".join(block.text for block in caption_blocks if block.text)
        if not words or any(block.image for block in caption_blocks):
            return
        figure, steps = section.parent, 0
        while figure >= 0 and self.sections[figure].tag != "figure":
            figure, steps = (self.sections[figure].parent if steps < _FIGURE_DEPTH else -1), steps + 1
        if figure >= 0:
            nearby = self.blocks[max(self.sections[figure].start, len(self.blocks) - 100) :]
        else:
            nearby = self.blocks[max(self.sections[section.parent].start, section.start - 2) : section.start][::-1]
        for block in nearby:
            if block.image and not block.image.caption:
                block.image.caption = words
                if figure < 0:
                    return

    def image(self, node: Any, *, again: bool = False) -> None:
        """Add the image of an `<img>`. If `again`, the `<img>` is in a `<noscript>` and may repeat the lazy image before it."""
        self.images_read += 1
        if self.images >= self.max_images or self.images_read > _READ_IMAGES * self.max_images:
            self.layout.left_out["images"] = self.layout.left_out.get("images", 0) + 1
            return
        ref = image_ref(node.attributes, self._sources(node.parent), self.base, self.max_data_bytes)
        if ref is None or self._is_same(ref, again) or (again and ref.url in self.seen):
            return
        self.flush()
        self.images += 1
        self.seen.add(ref.url)
        self.repeating = again
        self.blocks.append(PageBlock(None, ref, self.current, "img", 0, float(self.links > 0)))

    def _sources(self, parent: Any) -> list[dict[str, str | None]]:
        """Return the attributes of the `<source>`s of a `<picture>`, or an empty list if an earlier image used them."""
        if parent is None or parent.tag != "picture" or parent.mem_id in self.pictures:
            return []
        self.pictures.add(parent.mem_id)
        sources: list[dict[str, str | None]] = []
        node = parent.first_child
        while node is not None and len(sources) < _SOURCES:
            if node.tag == "source":
                sources.append(node.attributes)
            node = node.next
        return sources

    def _is_same(self, ref: ImageRef, again: bool) -> bool:
        """Return whether `ref` shows the same image as the last block. If so, merge `ref` into the image of the last block."""
        last = self.blocks[-1] if self.blocks else None
        if last is None or last.image is None or len(self.pieces) > _FEW_PIECES:
            return False
        if not all(piece.isspace() or piece == "\x01" for piece in self.pieces):
            return False
        one = merged(last.image, ref, repeats=again or self.repeating, near=self._near())
        if one is None:
            return False
        last.image = one
        self.seen.add(one.url)
        return True

    def _near(self) -> bool:
        """Return whether the last block is directly in the current section, or begins this section or one that contains it."""
        place, around = len(self.blocks) - 1, self.current
        if self.blocks[-1].section == around:
            return True
        while around > 0 and self.sections[around].start > place:
            around = self.sections[around].parent
        return around > 0 and self.sections[around].start == place


def _collapsed(text: str) -> tuple[str, int]:
    """Return the text with white space collapsed as a browser does, and the number of words."""
    fixed = "\xa0" in text
    if fixed:
        text = text.replace("\xa0", "\x01")  # no-break spaces separate words and do not collapse
    if is_plain(text):
        words = text.split()
        text = " ".join(words)
        if not fixed:
            return text, len(words)
        text = text.replace("\x01", "\xa0").strip()
        return text, len(text.split())
    text = _GAPS.sub(" ", text.replace("\x01", "\xa0")).strip()  # split() would also collapse other spaces
    return text, count_words(text)


def _broken(text: str) -> list[str]:
    """Split text into paragraphs at two or more `<br>`. A single `<br>` becomes a line break."""
    paragraphs: list[list[str]] = [[]]
    for line in text.split("\x01"):
        line = _collapsed(line)[0]
        if line:
            paragraphs[-1].append(line)
        elif paragraphs[-1]:
            paragraphs.append([])
    return ["\n".join(lines) for lines in paragraphs if lines]


def _boilerplate_chars(section: Any, tag: str) -> tuple[int, int] | None:
    """Return the number of characters in the long texts, and in all texts, of a section that is marked as boilerplate.

    Return None if the section may be content: it is a text element or a figure, or it holds a figure, an article, a main
    heading, a caption, or images without text.
    """
    if tag in TEXTUAL or tag == "figure":
        return None
    nodes = section.css(_SEARCHED)
    found = {node.tag for node in nodes}
    if not found <= _PICTURES | _UNSEEN:
        return None
    texts = [len(text) for text in section.text(separator="\x00", strip=True).split("\x00")]
    if not (any(texts) or found.isdisjoint(_PICTURES)):
        return None
    first = [node for node in nodes if node.tag in _UNSEEN][:_FEW_UNSEEN]
    unseen = [(node.tag, len(node.text(strip=True))) for node in first]
    long = sum(chars for chars in texts if chars >= _LONG)
    long -= sum(chars for name, chars in unseen if chars >= _LONG and name != "select")  # a select has many short texts
    return long, sum(texts) - sum(chars for _, chars in unseen)

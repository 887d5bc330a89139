"""Reads a page as OBELICS's released code does, flaws included, for comparison with that dataset.

The rules and their order are taken from the released code (huggingface/OBELICS) of Laurençon et al. 2023, appendix A.1. The
flaws of that code are kept: images in figures, pictures, lists, tables and `<noscript>` are lost, relative addresses start at
the host, and `<base>` and srcsets are not supported. There is one difference: widths in per cent are ignored here, but the
released code scales them by the size of the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from vlmdata.html.cut import cut_out
from vlmdata.html.image_ref import ImageRef
from vlmdata.html.names import word_set

END_OF_DOCUMENT = "END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED"
_BREAK = "#BR_TAG#"

UNWRAPPED = word_set(  # tags that are removed; their content is kept
    "a abbr acronym b bdi bdo big cite code data dfn em font i ins kbd mark q s samp shadow small span strike strong sub sup "
    "time tt u var wbr"
)
_SEPARATORS = {
    **dict.fromkeys(word_set("blockquote dl h1 h2 h3 h4 h5 h6 ol p ul"), "\n\n"),
    **dict.fromkeys(
        word_set("address article aside center dd dt div figcaption hgroup legend main marquee section summary"), "\n"
    ),
    **dict.fromkeys(word_set("blink body caption h html title"), ""),
}
KEPT = frozenset((*_SEPARATORS, "br"))  # tags that are kept; all others except media are removed with their content
SPECIAL = frozenset(("footer", "header", "navigation", "nav", "navbar", "menu"))
_SOURCES = (
    "src", "data-src", "data-src-fg", "data-scroll-image", "srcset", "data-lateloadsrc", "data-img-src", "data-original",
    "data-gt-lazy-src", "data-lazy", "data-lazy-src", "src2",
)  # fmt: skip

_NEWLINES = re.compile(r"\n{2,}")
_SPACES = re.compile(r" {2,}")
_BR = re.compile(r"<br\s*/?>|</br>", re.IGNORECASE)  # the released code's parser turns every plain <BR> into <br/>
_VALID = re.compile(
    r"^(?:http|ftp)s?://(?:(?:[A-Z0-9](?:[A-Z0-9-]{0,61}[A-Z0-9])?\.)+(?:[A-Z]{2,6}\.?|[A-Z0-9-]{2,}\.?))(?:/?|[/?]\S+)$",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"\d+")
_DOTS = re.compile(r"\.+/")


class _Entry(NamedTuple):
    """The start or end of an element, a text, or an image, in the flat list of a page's content."""

    kind: str  # open, close, text, image
    value: Any  # tag, text or ImageRef; None for `close`, and for media without a valid address


def prepared(html: str) -> str:
    """Return a decoded page in the form in which the released code passes it to its parser."""
    html = _SPACES.sub(" ", _NEWLINES.sub("\n", html))
    return _BR.sub(_BREAK, cut_out(html, "<!--", "-->"))


def extract_obelics(html: bytes, url: str) -> tuple[list[str | None], list[ImageRef | None]]:
    """Return the texts and the images of a page as two lists.

    The lists have equal length, and at each position one of the two holds None. `html` is the result of `prepared`, encoded in
    UTF-8. `url` is the address of the page.
    """
    from selectolax.lexbor import LexborHTMLParser  # imported here, because only the extra `pages` installs it

    tree = LexborHTMLParser(html)
    texts: list[str | None] = []
    images: list[ImageRef | None] = []
    if tree.root is None:
        return texts, images
    for text, image in _join(_simplify(tree.root, url)):
        texts.append(text)
        images.append(image)
    return texts, images


@dataclass(slots=True)
class _Open:
    """An open element that is kept."""

    place: int  # index of the element's entry
    is_date: bool  # whether the text directly inside the element is dropped
    is_filled: bool = False  # whether the element holds text or media


class _Kept:
    """Collects the kept entries of a page in order, and tracks the open elements."""

    def __init__(self) -> None:
        self.entries = [_Entry("open", "html")]
        self.opened = [_Open(0, False)]

    def open(self, tag: str, *, is_date: bool) -> None:
        """Open an element. If `is_date`, the text directly inside the element will be dropped."""
        self.opened.append(_Open(len(self.entries), is_date))
        self.entries.append(_Entry("open", tag))

    def close(self) -> None:
        """Close the innermost element, and remove it if it is empty."""
        closed = self.opened.pop()
        if closed.is_filled:
            self.entries.append(_Entry("close", None))
            self.opened[-1].is_filled = True
        else:
            del self.entries[closed.place :]

    def text(self, text: str) -> None:
        """Add a text to the innermost open element, or drop the text if the element is a date."""
        if not self.opened[-1].is_date:
            self.entries.append(_Entry("text", text))
            self.opened[-1].is_filled |= not text.isspace()

    def media(self, image: ImageRef | None) -> None:
        """Add an image to the innermost open element. None means media without a valid address."""
        self.entries.append(_Entry("image", image))
        self.opened[-1].is_filled = True


def _simplify(root: Any, url: str) -> list[_Entry]:
    """Apply the rules on tags, classes and empty elements, and return the remaining entries in order."""
    kept = _Kept()
    frames: list[tuple[Any, bool]] = []  # next node, and whether an element closes before the node
    node = root.first_child
    while node is not None or frames:
        if node is None:
            node, closes = frames.pop()
            if closes:
                kept.close()
            continue
        tag, following = node.tag, node.next
        if tag == "-text":
            kept.text(node.text_content or "")
        elif tag is not None and tag[0] not in "-!":  # not a processing instruction, comment or doctype
            attributes = node.attributes
            rule = _rule(tag, attributes)
            if rule in ("unwrap", "keep"):
                frames.append((following, rule == "keep"))
                following = node.first_child
            if rule == "keep":
                kept.open(tag, is_date=tag == "div" and "date" in (attributes.get("class") or ""))
            elif rule == "end":
                kept.text(f"\n\n{END_OF_DOCUMENT}\n\n")
            elif rule == "media":
                kept.media(_image(attributes, url) if tag == "img" else None)
        node = following
    return kept.entries


def _rule(tag: str, attributes: dict[str, str | None]) -> str:
    """Return the rule for an element: "unwrap", "keep", "media", "remove", or "end" if the element marks a document's end."""
    classes = attributes.get("class") or ""
    if classes:
        words = classes.split()
        if "footer" in words or "site-info" in words:
            return "remove"
        if "more-link" in words:
            return "end"
    if tag in UNWRAPPED:
        return "unwrap"
    if tag == "img":
        return "media" if _source(attributes) else "remove"
    if tag in ("video", "audio"):
        return "media" if attributes.get("src") else "remove"
    if _DIGITS.sub("", tag) not in KEPT:
        return "remove"
    if tag == "div" and (attributes.get("id") in SPECIAL or classes in SPECIAL or attributes.get("title") in SPECIAL):
        return "remove"
    return "keep"


def _source(attributes: dict[str, str | None]) -> str | None:
    for name in _SOURCES:
        text = attributes.get(name)
        if text and "," not in text and " " not in text:
            return text
    return None


def _image(attributes: dict[str, str | None], url: str) -> ImageRef | None:
    source = _source(attributes) or ""
    if not source.startswith("http"):
        source = _absolute(source, url)
    if not _VALID.match(source):
        return None
    return ImageRef(source, attributes.get("alt") or None, None, _size(attributes, "width"), _size(attributes, "height"))


def _absolute(address: str, url: str) -> str:
    if address.startswith("//"):
        return "http:" + address
    if "./" in address:
        address = _DOTS.sub("", address)
    try:
        host = urlsplit(url).netloc
    except ValueError:  # an unclosed bracket in the host
        return ""
    return f"https://{host}{'' if address.startswith('/') else '/'}{address}"


def _size(attributes: dict[str, str | None], name: str) -> int | None:
    """Return a width or height in pixels, or None if it is not a number or does not fit into 32 bits."""
    size = _number(re.sub('[”"<>]', "", attributes.get(name) or ""))
    return size if size is not None and abs(size) < 1 << 31 else None


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        if "px" in text:
            return int(re.sub("[px;]", "", text))
        return int(float(text)) if "." in text and "%" not in text else None
    except (ValueError, OverflowError):
        return None


def _join(entries: list[_Entry]) -> list[tuple[str | None, ImageRef | None]]:
    """Return pairs (text, None) and (None, image). Texts are joined by the strongest separator and split at images."""
    nodes: list[tuple[str | None, ImageRef | None]] = []
    run = _TextRun()
    stack: list[str] = []
    for place, entry in enumerate(entries):
        if entry.kind == "open":
            stack.append(entry.value)
        elif entry.kind == "close":
            run.leave(len(stack) - 1, stack.pop())
        elif entry.kind == "text":
            if place and entries[place - 1].kind == "text":
                continue  # joined with the previous text, because the released code parses its own output again
            end = place
            while end < len(entries) and entries[end].kind == "text":
                end += 1
            run.add(_format("".join(e.value for e in entries[place:end])), stack)
        elif entry.value is not None:
            nodes.extend(run.end())
            nodes.append((None, entry.value))
    return [*nodes, *run.end()]


class _TextRun:
    """Joins the texts between two images."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.tail: str | None = None  # None before the first text
        self.depth = 0  # depth of the innermost element that holds both the last text and the current position
        self.separators: set[str] = set()

    def leave(self, depth: int, tag: str) -> None:
        """Close an element with this tag, which may separate the last text from the next text.

        `depth` is the number of elements that are still open.
        """
        if self.tail is not None and depth < self.depth:
            self.depth = depth
            self.separators.add(_SEPARATORS.get(tag, ""))

    def add(self, text: str, stack: list[str]) -> None:
        """Append a separator and a text. `stack` holds the tags of the open elements.

        The separator is an empty line, a line break, a space or nothing. It is the strongest separator that a tag closed or
        opened since the last text demands, or that one of the two texts has at the joint.
        """
        if not text:
            return
        if self.tail is None:
            self.tail = text
        else:
            found = self.separators | {_SEPARATORS.get(tag, "") for tag in stack[self.depth :]}
            for mark in ("\n\n", "\n", " "):
                if self.tail.endswith(mark):
                    found.add(mark)
                    self.tail = self.tail[: -len(mark)]
                if text.startswith(mark):
                    found.add(mark)
                    text = text[len(mark) :]
            self.tail += next((mark for mark in ("\n\n", "\n", " ") if mark in found), "") + text
            if len(self.tail) > 8192:
                self.done.append(self.tail[:-256])
                self.tail = self.tail[-256:]
        self.depth = len(stack)
        self.separators = set()

    def end(self) -> list[tuple[str | None, ImageRef | None]]:
        """Return the joined text as [(text, None)], or an empty list if there is no text, and start a new text."""
        text = ("".join(self.done) + (self.tail or "")).strip()
        self.__init__()  # type: ignore[misc]
        return [(text, None)] if text else []


def _format(text: str) -> str:
    text = _SPACES.sub(" ", text.replace("\n", " ").replace("\t", " "))
    before, after = text[:1] == " ", text[-1:] == " " and len(text) > 1
    text = "\n".join(line.strip() for line in text.split(_BREAK)) if _BREAK in text else text.strip()
    return " " * before + text + " " * after

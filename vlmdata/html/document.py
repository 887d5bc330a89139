"""Extracts an interleaved document from the bytes of a page: text and images in reading order, without boilerplate."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from vlmdata.html.assemble import assemble
from vlmdata.html.charset import decode
from vlmdata.html.content import main_blocks, may_have_skipped_content
from vlmdata.html.hazards import Limits, harmless
from vlmdata.html.image_ref import ImageRef
from vlmdata.html.lay_out import lay_out
from vlmdata.html.obelics import extract_obelics, prepared
from vlmdata.html.page_addresses import absolute

_DEFAULT = Limits()
_BASE = re.compile(b"<[bB][aA][sS][eE]")


@dataclass(slots=True)
class PageDocument:
    """The content of a page. `texts` and `images` are aligned; at each position one of the two is None."""

    texts: list[str | None] = field(default_factory=list)  # paragraphs separated by an empty line
    images: list[ImageRef | None] = field(default_factory=list)
    title: str | None = None
    language: str | None = None  # as the page declares it: `en-US`
    robots: tuple[str, ...] = ()  # directives for robots in the head, lower case: noindex, noai, noimageai, tdm-reservation ...
    encoding: str = ""  # Python's name of the charset used to decode it
    replaced: int = 0  # number of byte sequences that are invalid in that charset
    left_out: dict[str, int] = field(default_factory=dict)  # number of elements over a limit: `images`, `depth`
    refused: str | None = None  # why the page was not parsed: too_large, too_deep, too_many_tags, too_many_attributes


def extract(
    html: bytes,
    url: str,
    *,
    charset_hint: str | None = None,
    mode: Literal["default", "obelics"] = "default",
    whole_page: bool = False,
    limits: Limits = _DEFAULT,
) -> PageDocument:
    """Return the document of one page. Broken and hostile pages do not raise errors.

    `url` is the address of the page, to resolve relative addresses. `charset_hint` is the charset in the Content-Type
    header. `mode="obelics"` extracts exactly as OBELICS's released code does, flaws included. `whole_page` keeps boilerplate.
    """
    if len(html) > limits.max_bytes:
        return PageDocument(refused="too_large")
    decoded = decode(html, charset_hint)
    document = PageDocument(encoding=decoded.encoding, replaced=decoded.replaced)
    utf8 = decoded.encoding == "utf-8" and not decoded.replaced and decoded.source != "bom"
    page, document.refused = harmless(html if utf8 else decoded.text.encode(), limits)
    if document.refused:
        return document
    from selectolax.lexbor import LexborHTMLParser  # imported here, because only the extra `pages` installs it

    tree = LexborHTMLParser(page)
    base = _read_head(tree, page, url, document)
    if mode == "obelics":
        page, document.refused = harmless(prepared(decoded.text).encode(), limits)
        if not document.refused:
            document.texts, document.images = extract_obelics(page, url)
        return document
    if tree.body is not None:
        sizes = {"max_images": limits.max_images, "max_depth": limits.max_depth, "max_data_bytes": limits.max_data_bytes}
        layout = lay_out(tree.body, base, **sizes, prune="nothing" if whole_page else "boilerplate")
        if not whole_page and may_have_skipped_content(layout):
            layout = lay_out(tree.body, base, **sizes, prune="menus")  # the boilerplate may be the content
        document.left_out = layout.left_out
        kept = [True] * len(layout.blocks) if whole_page else main_blocks(layout)
        document.texts, document.images = assemble(layout, kept)
    return document


def _read_head(tree: Any, page: bytes, url: str, document: PageDocument) -> str:
    """Set the document's title, language and robots from the head of the page. Return the base for relative addresses."""
    if tree.root is not None:
        attributes = tree.root.attributes
        document.language = (attributes.get("lang") or attributes.get("xml:lang") or "").strip() or None
    base = None
    node = tree.head.first_child if tree.head is not None else None
    while node is not None:
        tag = node.tag
        if tag == "title" and document.title is None:
            document.title = " ".join((node.text() or "").split()) or None
        elif tag == "meta":
            _read_meta(node.attributes, document)
        elif tag == "base" and base is None:
            base = node.attributes.get("href")
        node = node.next
    if base is None and _BASE.search(page):
        found = tree.css_first("base[href]")
        base = found.attributes.get("href") if found is not None else None
    return (absolute(base, url) if base else None) or url


def _read_meta(attributes: dict[str, str | None], document: PageDocument) -> None:
    name = (attributes.get("name") or "").strip().lower()
    if name not in ("robots", "tdm-reservation") and "http-equiv" not in attributes:
        return
    content = (attributes.get("content") or "").strip().lower()
    if name == "robots":
        document.robots += tuple(word for word in content.replace(",", " ").split() if word not in document.robots)
    elif name == "tdm-reservation" and content == "1":
        document.robots += ("tdm-reservation",)
    elif (attributes.get("http-equiv") or "").lower() == "content-language" and not document.language:
        document.language = content or None

"""A parsed page to its layout, in one walk over the tree."""

from __future__ import annotations

import re
from typing import Any

from vlmdata.html.layout import PageLayout
from vlmdata.html.names import names_menu, word_set
from vlmdata.html.walk import Prune, Walk

SKIPPED = word_set(
    "script style template svg canvas iframe frame frameset noframes object embed applet audio video source track select "
    "option optgroup textarea input datalist map area progress meter param link meta title base rp rt rtc dialog "
    "annotation annotation-xml"
)
INLINE = word_set(
    "abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark nobr q rb ruby s samp small span "
    "strike strong sub sup time tt u var wbr slot math mi mo mn ms mtext mrow msup msub mfrac msqrt semantics"
)
PRE = frozenset(("pre", "listing", "xmp", "plaintext"))

_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_HIDING = frozenset(("hidden", "aria-hidden", "style"))
_CARD_CHARS = 60  # and more: about ten words
_NOSCRIPT_CHARS = 1000  # and more: asking for scripts takes fewer
_MENUS = frozenset(("nav", "ul", "ol"))

_INLINE, _LINK, _SKIP, _BREAK, _IMAGE, _NOSCRIPT, _RULE, _PRE, _SECTION = range(9)
_HOLDERS = frozenset((_INLINE, _SECTION))  # kinds of elements that hold a text and nothing else, most of them
_KINDS: dict[str | None, int] = {
    **dict.fromkeys(INLINE, _INLINE), "picture": _INLINE, "a": _LINK, "button": _LINK, **dict.fromkeys(SKIPPED, _SKIP),
    "br": _BREAK, "img": _IMAGE, "amp-img": _IMAGE, "noscript": _NOSCRIPT, "hr": _RULE, **dict.fromkeys(PRE, _PRE),
    "-comment": _SKIP, "-doctype": _SKIP, "!doctype": _SKIP, "-cdata": _SKIP,
    None: _SKIP,  # a processing instruction
}  # fmt: skip


def lay_out(
    root: Any, base: str, *, max_images: int, max_depth: int, max_data_bytes: int, prune: Prune = "boilerplate"
) -> PageLayout:
    """Walk a lexbor tree once, without recursion; elements deeper than `max_depth` are left out and counted.

    `prune` says what is passed by: menus, which are half of all elements on many pages and content on none, and with
    `boilerplate` also what calls itself that and shows no figure; `passed` counts its text.
    """
    walk = Walk(base, max_images, max_depth, max_data_bytes, prune)
    walk.enter("body", {})
    pieces, kind_of = walk.pieces, _KINDS.get
    frames: list[tuple[Any, int, int]] = []  # where to go on, the kind of what to close, the section around it (or 1: a link)
    node = root.first_child
    while True:
        if node is None:
            if not frames:
                break
            node, kind, outer = frames.pop()
            if kind >= _NOSCRIPT:
                walk.leave(outer)
                walk.pre -= kind == _PRE
                walk.noscripts -= kind == _NOSCRIPT
            elif kind == _LINK:
                walk.links -= outer
            continue
        tag = node.tag
        if tag == "-text":
            text = node.text_content or ""
            if pieces or walk.pre or not text.isspace():
                pieces.append(text)
                if walk.links:
                    walk.link_chars += len(text.strip())
            node = node.next
            continue
        kind = kind_of(tag, _SECTION)
        if kind == _SKIP:
            node = node.next
            continue
        child, outer = _element(walk, node, tag, kind) if kind else (node.first_child, 0)
        if child is None:
            node = node.next
        elif kind in _HOLDERS and child.tag == "-text" and child.next is None:
            text = child.text_content or ""
            pieces.append(text)
            if walk.links:
                walk.link_chars += len(text.strip())
            if kind == _SECTION:
                walk.leave(outer)
            node = node.next
        elif len(frames) < max_depth:
            frames.append((node.next, kind, outer))
            node = child
        else:
            walk.layout.left_out["depth"] = walk.layout.left_out.get("depth", 0) + 1
            frames.append((node.next, kind, outer))
            node = None
    walk.leave(-1)
    return walk.layout


def _element(walk: Walk, node: Any, tag: str, kind: int) -> tuple[Any, int]:
    """Take one element in; return its first child to go into, None to pass it by, and the section around it or
    1 for a link that leads away."""
    if kind >= _PRE:
        child = node.first_child
        if child is None:
            if walk.pieces:
                walk.flush()
            return None, 0
        attributes = node.attributes
        if attributes and not _HIDING.isdisjoint(attributes) and _hidden(attributes):
            return None, 0
        if walk.prune != "nothing" and tag in _MENUS and _is_menu(tag, attributes):
            if walk.pieces:
                walk.flush()
            return None, 0
        walk.pre += kind == _PRE
        outer = walk.enter(tag, attributes)
        if walk.sections[-1].chrome > 1 and walk.prune == "boilerplate" and walk.pass_by(node, tag):
            walk.leave(outer)
            return None, 0
        return child, outer
    if kind == _LINK:
        child = node.first_child
        if tag == "button" and (child is None or not _is_card(node)):
            return None, 0
        href = (node.attributes.get("href") or "#") if child is not None else "#"
        away = href[0] != "#" or tag == "button"  # not a place in this page: of a heading, a footnote, a term
        walk.links += away
        return child, int(away)
    if kind == _BREAK:
        walk.pieces.append("\x01")
    elif kind == _IMAGE:
        walk.image(node)
    elif kind == _NOSCRIPT:
        if walk.noscripts or _holds_page(node):
            walk.noscripts += 1
            return node.first_child, walk.enter(tag, {})
        for image in node.css("img"):
            walk.image(image, again=True)
    elif kind == _RULE:
        walk.flush()
    return None, 0


def _hidden(attributes: dict[str, str | None]) -> bool:
    if "hidden" in attributes or attributes.get("aria-hidden") == "true":
        return True
    style = attributes.get("style")
    return bool(style and _HIDDEN_STYLE.search(style))


def _is_menu(tag: str, attributes: dict[str, str | None]) -> bool:
    """Say whether a <nav>, or a list that calls itself a menu, is one."""
    if tag == "nav" or attributes.get("role") in ("navigation", "menubar", "menu"):
        return True
    return bool(attributes) and names_menu((attributes.get("class"), attributes.get("id")))


def _holds_page(noscript: Any) -> bool:
    """Say whether a `<noscript>` holds the page's text, not a word on scripts or an image."""
    return noscript.css_first("p") is not None and len(noscript.text()) >= _NOSCRIPT_CHARS


def _is_card(button: Any) -> bool:
    """Say whether a `<button>` shows a picture and a sentence: of 3,404 on 687 real pages none, all others are controls."""
    return len(button.text()) >= _CARD_CHARS and button.css_first("img") is not None

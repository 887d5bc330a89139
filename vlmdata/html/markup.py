"""The tags of a page, read as the tokenizer of HTML reads them, and the page without what holds no markup.

A parser must not be asked for a tree before somebody has counted what it will build, and counting needs to know what is a
tag. Comments, scripts and the like are where a counter and a parser can disagree, so they are taken out, and the parser
reads what was counted. Source: WHATWG HTML, "tokenization".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from vlmdata.html.names import word_set

_BLANK = r"[ \t\n\f\r]*+"
_QUOTED = r""""[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z)"""
_VALUE = rf"""(?:{_QUOTED}|[^ \t\n\f\r>"'][^ \t\n\f\r>]*+)?+"""
_NAME = r"[^ \t\n\f\r/>][^ \t\n\f\r/>=]*+"  # of an attribute
_ATTRIBUTES = rf"(?:[ \t\n\f\r/]*+{_NAME}(?:{_BLANK}={_BLANK}{_VALUE})?+)*+[ \t\n\f\r/]*+"
_TAG_NAME = r"[a-zA-Z][^ \t\n\f\r/>]*+"

ATTRIBUTE = re.compile(rf"[ \t\n\f\r/]*+({_NAME})(?:{_BLANK}={_BLANK}{_VALUE})?+")
_FEW_PLAIN = r"""[a-zA-Z0-9]*+(?:[ \t\n\f\r]++[a-zA-Z-]++="[^"<]*+"){0,60}+[ \t\n\f\r]*+/?>"""
TAG = re.compile(rf"<[a-zA-Z](?!{_FEW_PLAIN})(?=([^ \t\n\f\r/>]*+{_ATTRIBUTES}))")
"""What may be a tag wherever a parser begins to read, also inside of comments, scripts and other tags, but for those of few
plain attributes. Group 1 is the tag from its second letter on."""
_REST = re.compile(_ATTRIBUTES)
_TOKEN = re.compile(rf"<(?:(/?)({_TAG_NAME}){_ATTRIBUTES}>?|!--|!\[CDATA\[|[!?/][^>]*+>?)")
_COMMENT_END = re.compile("--!?>")
_RAW = word_set("script style iframe noembed noframes textarea")
_LITERAL = word_set("title xmp plaintext")
_CHOICES = word_set("option optgroup")  # the tree takes quadratic time on those of one <select>, which no reader looks into
_MERGED = word_set("html body")  # so too on the attributes of these, which it gathers in the first one
_ODD = _RAW | _LITERAL | _CHOICES | _MERGED | {"svg"}
_SVG = re.compile(r"<(/?)svg(?=[ \t\n\f\r/>])", re.IGNORECASE)
_NO_SVG = re.compile(r"<(?:p|div|img|table|[uod]l|h[1-6]|pre|blockquote|br|hr)(?=[ \t\n\f\r/>])", re.IGNORECASE)
_NOTHING = "</>"  # what a parser passes over; it keeps what stands around it apart


def read_markup(html: str, pieces: list[str]) -> Iterator[tuple[str, bool, str]]:
    """Yield the tags of a page: name in lower case, whether it ends an element, text of the whole tag.

    `pieces`, joined once all tags are read, are the page without comments, scripts, styles, drawings and what no browser
    shows; a browser shows it alike. Linear in the page.
    """
    kept = place = 0  # where the page goes on that is not among the pieces yet, and where that is looked through
    merged: set[str] = set()
    while place >= 0:
        tokens, place = _TOKEN.finditer(html, place), -1
        for match in tokens:
            slash, name = match.groups()
            if name is not None and ((name := name.lower()) not in _ODD or (slash and name not in _CHOICES)):
                yield name, slash == "/", match[0]
                continue
            if name in _MERGED and name not in merged:
                merged.add(name)
                yield name, False, match[0]
                continue
            start, end = match.span()
            instead, after = _NOTHING, end
            if name is None:
                if match[0] not in ("<!--", "<![CDATA["):
                    continue
                after = _comment_end(html, start)
            elif name in _RAW:
                after = _closed(html, name, end)[1]
            elif name in _LITERAL:
                inner, after = _closed(html, name, end)
                name, instead = _literal(name, match[0], html[end:inner])
                yield name, False, match[0]
                yield name, True, ""
            elif name == "svg":
                after = _drawing_end(html, end)
                if not after:
                    yield name, False, match[0]
                    continue
            pieces += html[kept:start], instead
            kept = after
            if after > end:
                place = after
                break
    pieces.append(html[kept:])


def _comment_end(html: str, start: int) -> int:
    if html.startswith("<![", start):
        end = html.find("]]>", start)
        return end + 3 if end >= 0 else len(html)
    for empty in ("<!-->", "<!--->"):
        if html.startswith(empty, start):
            return start + len(empty)
    match = _COMMENT_END.search(html, start + 4)
    return match.end() if match else len(html)


def _closed(html: str, name: str, start: int) -> tuple[int, int]:
    """Return where the content of an element that holds no markup ends, and where its closing tag does."""
    match = None if name == "plaintext" else _closing(name).search(html, start)
    return match.span() if match else (len(html), len(html))


def _closing(name: str) -> re.Pattern[str]:
    return re.compile(rf"</{name}(?=[ \t\n\f\r/>]){_ATTRIBUTES}>?", re.IGNORECASE)


def _literal(name: str, tag: str, content: str) -> tuple[str, str]:
    """Return the name and the text of an element whose content is text whatever it looks like, in words that mean the same
    everywhere."""
    content = content.replace("<", "&lt;")
    return ("title", f"{tag}{content}</title>") if name == "title" else ("pre", f"<pre>{content}</pre>")


def _drawing_end(html: str, start: int) -> int:
    """Return where an `<svg>` ends, or 0 where another stands in it or what ends it, as a paragraph does."""
    match = _SVG.search(html, start)
    if match is None or not match[1] or _NO_SVG.search(html, start, match.start()):
        return 0
    return html.find(">", match.end()) + 1


def may_name_attributes(html: str, start: int, end: int) -> bool:
    """Say whether a stretch of a page may lie wholly within a tag and name attributes of it, whatever stands before it."""
    start = html.find(">", start, end) + 1
    if not start:
        return True
    for quote in ('"', "'"):  # amid a tag, the first `>` stands in a value between these
        place = html.find(quote, start, end) + 1
        if not place:
            continue  # so does all that follows
        close = html.find(">", place, end)
        quoted = html.find('"', place, close) >= 0 or html.find("'", place, close) >= 0
        if close < 0 or (quoted and _REST.match(html, place, end).end() == end):  # type: ignore[union-attr]
            return True
    return False

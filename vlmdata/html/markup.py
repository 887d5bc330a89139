"""Reads the tags of a page as an HTML tokenizer does, and removes the parts without markup.

`hazards.py` counts the tags before the page is parsed. A counter and a parser can disagree about comments, scripts and similar
elements, so these are removed. The parser then reads exactly the page that was counted. Pages are in UTF-8. Source: WHATWG
HTML, "tokenization".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from vlmdata.html.names import byte_words

_BLANK = r"[ \t\n\f\r]*+"
_QUOTED = r""""[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z)"""
_VALUE = rf"""(?:{_QUOTED}|[^ \t\n\f\r>"'][^ \t\n\f\r>]*+)?+"""
_NAME = r"[^ \t\n\f\r/>][^ \t\n\f\r/>=]*+"  # name of an attribute
_ATTRIBUTES = rf"(?:[ \t\n\f\r/]*+{_NAME}(?:{_BLANK}={_BLANK}{_VALUE})?+)*+[ \t\n\f\r/]*+"
_TAG_NAME = r"[a-zA-Z][^ \t\n\f\r/>]*+"

_FEW_PLAIN = r"""[a-zA-Z0-9]*+(?:[ \t\n\f\r]++[a-zA-Z-]++="[^"<]*+"){0,60}+[ \t\n\f\r]*+/?>"""


def _compiled(pattern: str, flags: int = 0) -> re.Pattern[bytes]:
    return re.compile(pattern.encode(), flags)


ATTRIBUTE = _compiled(rf"[ \t\n\f\r/]*+({_NAME})(?:{_BLANK}={_BLANK}{_VALUE})?+")
TAG = _compiled(rf"<[a-zA-Z](?!{_FEW_PLAIN})(?=([^ \t\n\f\r/>]*+{_ATTRIBUTES}))")
"""Matches every possible tag, also inside comments, scripts and other tags, except tags with few and plain attributes.

Group 1 is the tag without its first two characters.
"""
_REST = _compiled(_ATTRIBUTES)
_TOKEN = _compiled(rf"<(?:(/?)({_TAG_NAME}){_ATTRIBUTES}>?|!--|!\[CDATA\[|[!?/][^>]*+>?)")
_COMMENT_END = _compiled("--!?>")
_RAW = byte_words("script style iframe noembed noframes textarea")
_LITERAL = byte_words("title xmp plaintext")
_CHOICES = byte_words("option optgroup")  # dropped, because a parser takes quadratic time on the options of one <select>
_MERGED = byte_words("html body")  # a parser merges the attributes of later tags into the first tag, in quadratic time
_ODD = _RAW | _LITERAL | _CHOICES | _MERGED | {b"svg"}
_SVG = _compiled(r"<(/?)svg(?=[ \t\n\f\r/>])", re.IGNORECASE)
_NO_SVG = _compiled(r"<(?:p|div|img|table|[uod]l|h[1-6]|pre|blockquote|br|hr)(?=[ \t\n\f\r/>])", re.IGNORECASE)
_NOTHING = b"</>"  # separates the texts around a removed part; a parser ignores it


def read_markup(html: bytes, pieces: list[bytes]) -> Iterator[tuple[bytes, bool, bytes]]:
    """Yield (name in lower case, True for an end tag, text of the whole tag) for each tag of a page, in linear time.

    Pieces of the page are appended to `pieces`. After the last tag, `pieces` joined is the page without its comments, scripts,
    styles, drawings and other parts without content.
    """
    kept = place = 0  # end of the part that is in `pieces`, and start of the next search
    merged: set[bytes] = set()
    while place >= 0:
        tokens, place = _TOKEN.finditer(html, place), -1
        for match in tokens:
            slash, name = match.groups()
            if name is not None and ((name := name.lower()) not in _ODD or (slash and name not in _CHOICES)):
                yield name, slash == b"/", match[0]
                continue
            if name in _MERGED and name not in merged:
                merged.add(name)
                yield name, False, match[0]
                continue
            start, end = match.span()
            instead, after = _NOTHING, end
            if name is None:
                if match[0] not in (b"<!--", b"<![CDATA["):
                    continue
                after = _comment_end(html, start)
            elif name in _RAW:
                after = _closed(html, name, end)[1]
            elif name in _LITERAL:
                inner, after = _closed(html, name, end)
                name, instead = _literal(name, match[0], html[end:inner])
                yield name, False, match[0]
                yield name, True, b""
            elif name == b"svg":
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


def _comment_end(html: bytes, start: int) -> int:
    """Return the offset after the comment or CDATA section that begins at `start`."""
    if html.startswith(b"<![", start):
        end = html.find(b"]]>", start)
        return end + 3 if end >= 0 else len(html)
    for empty in (b"<!-->", b"<!--->"):
        if html.startswith(empty, start):
            return start + len(empty)
    match = _COMMENT_END.search(html, start + 4)
    return match.end() if match else len(html)


def _closed(html: bytes, name: bytes, start: int) -> tuple[int, int]:
    """Return (end of the content, end of the end tag) of an element that holds only text. The content begins at `start`."""
    match = None if name == b"plaintext" else _closing(name).search(html, start)
    return match.span() if match else (len(html), len(html))


def _closing(name: bytes) -> re.Pattern[bytes]:
    """Return a pattern that matches the end tag of an element."""
    return _compiled(rf"</{name.decode()}(?=[ \t\n\f\r/>]){_ATTRIBUTES}>?", re.IGNORECASE)


def _literal(name: bytes, tag: bytes, content: bytes) -> tuple[bytes, bytes]:
    """Return the name and markup of an equivalent element with escaped content, which all parsers read in the same way."""
    content = content.replace(b"<", b"&lt;")
    return (b"title", b"%b%b</title>" % (tag, content)) if name == b"title" else (b"pre", b"<pre>%b</pre>" % content)


def _drawing_end(html: bytes, start: int) -> int:
    """Return the offset at which an `<svg>` ends, or 0 if the `<svg>` cannot be removed. Its content begins at `start`.

    An `<svg>` is not removed if it is never closed, if it holds another `<svg>`, or if it holds an HTML element such as `<p>`.
    A parser closes an `<svg>` before such an element, so the element belongs to the page and not to the drawing.
    """
    match = _SVG.search(html, start)
    if match is None or not match[1] or _NO_SVG.search(html, start, match.start()):
        return 0
    return html.find(b">", match.end()) + 1


def may_name_attributes(html: bytes, start: int, end: int) -> bool:
    """Return whether the bytes from `start` to `end` may be part of one tag and contain names of its attributes.

    The tag may begin before `start`. The bytes before `start` are not read.
    """
    start = html.find(b">", start, end) + 1
    if not start:
        return True
    for quote in (b'"', b"'"):  # inside a tag, the first `>` is in a quoted value
        place = html.find(quote, start, end) + 1
        if not place:
            continue  # the value extends beyond `end`, so no attribute is named
        close = html.find(b">", place, end)
        quoted = html.find(b'"', place, close) >= 0 or html.find(b"'", place, close) >= 0
        if close < 0 or (quoted and _REST.match(html, place, end).end() == end):  # type: ignore[union-attr]
            return True
    return False

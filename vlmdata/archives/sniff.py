"""Detects the type of a body from its first bytes if its Content-Type is wrong, too general or missing.

Source: WHATWG, MIME Sniffing. Unlike a browser, this also checks bodies that are sent as HTML, because servers use that type
for unknown files.
"""

from __future__ import annotations

import re

from vlmdata.images.facts import ImageError
from vlmdata.images.header import sniff

HTML = frozenset(("text/html", "application/xhtml+xml"))
START = 4096  # bytes of a body that are checked
_SORTS = frozenset(("application", "audio", "font", "image", "text", "video"))
_TYPE = re.compile(r"[\w.+!#$&^-]+/[\w.+!#$&^-]+", re.ASCII)
_MEANINGLESS = frozenset(("application/unknown", "content/unknown", "unknown/unknown"))
_PACKED = (b"PK\x03\x04", b"\x1f\x8b\x08", b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
_BINARIES = (b"%PDF-", b"%!PS", b"\xd0\xcf\x11\xe0", b"\x7fELF", b"\0asm", b"\xca\xfe\xba\xbe", b"SQLite format 3\0")
_FLASH = (b"CWS", b"FWS", b"ZWS")
_MARKS = {
    "application": (*_PACKED, *_BINARIES, *_FLASH),
    "audio": (b"ID3", b"OggS", b"fLaC", b"MThd", b"#!AMR", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"),
    "video": (b"\x1a\x45\xdf\xa3", b"FLV\x01", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"\x30\x26\xb2\x75"),
    "font": (b"OTTO", b"ttcf", b"wOFF", b"wOF2", b"\0\x01\0\0"),
}
_RIFF = {b"WAVE": "audio", b"AVI ": "video"}
_BINARY_START = 1445  # bytes that are searched for binary data; source: WHATWG
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_TAG = re.compile(
    rb"<(?:!doctype|html|head|body|title|meta|script|style|table|div|font|center|frameset|h\d|br|p)[\s/>]", re.IGNORECASE
)
_PAGE = re.compile(
    rb"<(?:!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p|meta)[\s/>]|<!--", re.IGNORECASE
)
_OUTER = re.compile(rb"^[^\S\n]*<(?:!doctype|html|head|body)\b", re.IGNORECASE | re.MULTILINE)
_JSON = re.compile(rb"(?:\)\]\}'?,?\s*)?(?:\{\s*(?:\"[^\"]*\"\s*:|\})|\[\s*(?:[\[{\"\d]|\]|-\d|true\b|false\b|null\b))")
_FEEDS = (b"feed", b"gpx", b"kml", b"opml", b"rdf:rdf", b"rss", b"sitemapindex", b"urlset")
_NO_PAGES = {b"svg": "image", **dict.fromkeys(_FEEDS, "application")}  # by the name of the first element
_ROOT = re.compile(rb"<([a-z][\w:.-]*)", re.IGNORECASE)
_CODE = re.compile(
    rb"""["']use\ strict["'] | [!;+(]*\(?(?:async\s+)?function\b\s*\w*\s*\([\w\s,$]*\)\s*\{
    | (?:var|let|const)\s+[\w$]+\s*[=;,] | (?:var|let|const)\s*[\[{][\w\s,:$]*[\]}]\s*=
    | (?:window|document|self|module|exports|jQuery|\$)(?:\.[\w$]+)*(?:\s*=[^=]|\(|\[)
    | import\s+[\w{*][^;<>\n]*\sfrom\s*["'] | import\s*["'] | export\s+(?:default|const|let|function|class|\{)
    | if\s*\((?:!|typeof|window|document) | try\s*\{ | [\w$.]+\(\s*[\[{] | [\w$.]+\s*=\s*(?:[\[{]|function\b|new\b)
    | @(?:charset|import|media|font-face|namespace)\b | [.\#*:\w\[][^{}<;]{0,300}\{\s*(?:[\w-]+\s*:|\})""",
    re.VERBOSE,
)


def is_image(start: bytes) -> bool:
    """Return whether a body begins like an image, even if vlmdata cannot decode its format."""
    try:
        sniff(start)
    except ImageError as error:
        return error.reason == "unsupported_format" or _root(start) == b"svg"
    return True


def sort_of(declared: str, body: bytes) -> str:
    """Return what a body is: page, image, audio, video, font, text or application, or other if this is unknown.

    `declared` is its media type. A body is an image if its type or its bytes say so. A body sent as HTML is a page unless its
    bytes show another format. If the type is missing or meaningless, the bytes decide. Any other type is trusted.
    """
    sort = declared.partition("/")[0]
    start = body[:START]
    if sort == "image":
        return sort
    if declared in HTML:
        return "page" if _is_fragment(body) else _other_than_page(body) or "page"
    if is_image(start):
        return "image"
    if not is_known_type(declared):
        text = _text(start)
        return _by_first_bytes(start) or ("page" if _PAGE.match(text) or _root(text) == b"html" else "other")
    return sort if sort in _SORTS else "other"


def is_known_type(declared: str) -> bool:
    """Return whether a media type is well-formed and says what the body is, unlike `application/unknown`."""
    return bool(_TYPE.fullmatch(declared)) and declared not in _MEANINGLESS


def _is_fragment(body: bytes) -> bool:
    """Return whether a body begins with an SVG drawing and has more content after it, as a part of an HTML page may."""
    return _root(body[:START]) == b"svg" and not body[-START:].rstrip().endswith(b"</svg>")


def _other_than_page(body: bytes) -> str | None:
    start = body[:START]
    text = _text(start)
    if text.startswith((b"%PDF-", b"%!PS")):
        return "application"
    if _root(text) in _NO_PAGES:
        return _NO_PAGES[_root(text)]
    if _BINARY.search(start[:_BINARY_START]):
        shown = start.replace(b"\0", b"")  # a page in UTF-16 or with padding looks like text once its zero bytes are removed
        if sort := "image" if is_image(start) else _by_first_bytes(start):
            return sort
        if _BINARY.search(shown[:_BINARY_START]) and not _TAG.search(shown):
            return "application"
    if text[:1] == b"<" or _OUTER.search(body[: 16 * START]):
        return None
    if _JSON.match(text) and body.rstrip()[-1:] in b"]}":
        return "application"
    return "text" if _CODE.match(_past_comments(text)) else None


def _by_first_bytes(start: bytes) -> str | None:
    if start[4:8] == b"ftyp":
        return "video"
    if start.startswith(b"RIFF") and start[8:12] in _RIFF:
        return _RIFF[start[8:12]]
    return next((sort for sort, marks in _MARKS.items() if start.startswith(marks)), None)


def _text(start: bytes) -> bytes:
    return start.removeprefix(b"\xef\xbb\xbf").lstrip()


def _root(start: bytes) -> bytes:
    """Return the name of the first element, in lower case, or no bytes if text comes first. Skips declarations and comments."""
    text = _text(start)
    while text.startswith((b"<?", b"<!")):
        end = b"-->" if text.startswith(b"<!--") else b">"
        text = text.partition(end)[2].lstrip(b" \t\r\n]>")  # `]` and `>` end declarations inside a doctype
    found = _ROOT.match(text)
    return found[1].lower() if found else b""


def _past_comments(text: bytes) -> bytes:
    while text.startswith((b"/*", b"//")):
        text = text.partition(b"*/" if text.startswith(b"/*") else b"\n")[2].lstrip()
    return text

"""Decodes the bytes of a page with the charset that a browser would choose.

Order: byte order mark, HTTP header, `<meta>` or XML declaration in the first 1,024 bytes, a later `<meta>` (browsers restart
when they find one), then valid UTF-8, then windows-1252. Source: WHATWG HTML, "determining the character encoding"; its step
of free detection is limited to UTF-8.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from resiliparse.parse.encoding import map_encoding_to_html5

from vlmdata.html.cut import cut_out

_PRESCAN = 1024  # bytes, WHATWG
_LATE = 65536  # bytes of the page searched for a `<meta>` after the prescan
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xfe\xff", "utf-16-be"), (b"\xff\xfe", "utf-16-le"))
_META = re.compile(rb"<meta[\s/][^>]*>", re.IGNORECASE)
_CHARSET = re.compile(rb"charset\s*=\s*[\"']?\s*([^\s\"'/>;]+)", re.IGNORECASE)
_XML = re.compile(rb"^<\?xml[^>]*\sencoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"']")
_REPLACEMENT = "\ufffd"
# WHATWG decodes these labels as supersets.
_WIDER = {"gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "big5hkscs"}

# Python leaves five bytes of windows-1252 undefined; browsers read them as C1 controls.
_CP1252 = {byte: bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(0x80, 0xA0)}


class DecodedText(NamedTuple):
    """A decoded page, and how it was decoded."""

    text: str
    encoding: str  # Python's name
    source: str  # of the encoding: bom, http, meta, late_meta, utf8 or fallback
    replaced: int  # sequences that are invalid in the charset, now U+FFFD


def decode(html: bytes, http_charset: str | None = None) -> DecodedText:
    """Decode a page. Bytes that are invalid in the charset are replaced and counted, never an error."""
    encoding, source = _choose(html, http_charset)
    if source == "bom":
        html = html[3 if encoding == "utf-8" else 2 :]
    try:
        return DecodedText(html.decode(encoding), encoding, source, 0)
    except UnicodeDecodeError:
        if encoding == "cp1252":
            return DecodedText(html.decode("latin-1").translate(_CP1252), encoding, source, 0)
        text = html.decode(encoding, "replace")
    honest = html.count(b"\xef\xbf\xbd") if encoding == "utf-8" else 0
    return DecodedText(text, encoding, source, text.count(_REPLACEMENT) - honest)


def codec(label: str) -> str | None:
    """Return Python's codec for a WHATWG label (`latin1` means windows-1252), or None for an unknown one."""
    label = label.strip().lower()
    if label == "x-mac-cyrillic":
        return "mac-cyrillic"
    if label == "x-user-defined":
        return "cp1252"
    name: str | None = map_encoding_to_html5(label, False)
    return _WIDER.get(name.lower(), name.lower()) if name else None


def _choose(html: bytes, http_charset: str | None) -> tuple[str, str]:
    for mark, encoding in _BOMS:
        if html.startswith(mark):
            return encoding, "bom"
    if http_charset and (found := codec(http_charset)):
        return found, "http"
    if found := _declared(html[:_PRESCAN]):
        return found, "meta"
    if found := _declared(html[:_LATE]):
        return found, "late_meta"
    try:
        html.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252", "fallback"
    return "utf-8", "utf8"


def _declared(head: bytes) -> str | None:
    """Return the codec that a `<meta>` or an XML declaration names. UTF-16 declared in ASCII is false and means UTF-8."""
    head = cut_out(head, b"<!--", b"-->")
    labels = [match[1] for meta in _META.finditer(head) if (match := _CHARSET.search(meta[0]))]
    if xml := _XML.match(head):
        labels.append(xml[1])
    for label in labels:
        if found := codec(label.decode("latin-1")):
            return "utf-8" if found.startswith("utf-16") else found
    return None

"""Decodes the bytes of a page with the charset that a browser would choose.

The charset is stated by the byte order mark, by the HTTP header, by a `<meta>` or XML declaration in the first 1,024 bytes, or
by a later `<meta>`, after which a browser decodes the page again. The first statement in this order decides. A page without
such a statement is read as UTF-8 if it is valid UTF-8, and as windows-1252 otherwise. Source: WHATWG HTML, "determining the
character encoding". The standard also allows a browser to guess the charset from the text, which this module does not do.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from vlmdata.html.cut import cut_out

_PRESCAN = 1024  # bytes that are searched for a `<meta>` first, as WHATWG defines it
_LATE = 65536  # bytes of the page that are searched for a `<meta>` if the prescan finds none
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xfe\xff", "utf-16-be"), (b"\xff\xfe", "utf-16-le"))
_META = re.compile(rb"<meta[\s/][^>]*>", re.IGNORECASE)
_CHARSET = re.compile(rb"charset\s*=\s*[\"']?\s*([^\s\"'/>;]+)", re.IGNORECASE)
_XML = re.compile(rb"^<\?xml[^>]*\sencoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"']")
_REPLACEMENT = "\ufffd"
# For these labels, WHATWG uses a superset of the named charset.
_WIDER = {"gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "big5hkscs"}

# Python leaves five bytes of windows-1252 undefined; browsers read them as C1 controls.
_CP1252 = {byte: bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(0x80, 0xA0)}


class DecodedText(NamedTuple):
    """The text of a decoded page, and the charset that was used."""

    text: str
    encoding: str  # Python's name of the charset
    source: str  # where the charset was found: bom, http, meta, late_meta, utf8 or fallback
    replaced: int  # number of invalid byte sequences, which became U+FFFD


def decode(html: bytes, http_charset: str | None = None) -> DecodedText:
    """Decode a page. Bytes that are invalid in the charset are replaced and counted, and raise no error.

    `http_charset` is the charset in the Content-Type header.
    """
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
    """Return the name of Python's codec for a WHATWG label (`latin1` means windows-1252), or None if the label is unknown."""
    label = label.strip().lower()
    if label == "x-mac-cyrillic":
        return "mac-cyrillic"
    if label == "x-user-defined":
        return "cp1252"
    from resiliparse.parse.encoding import map_encoding_to_html5  # imported here, because only the extra `pages` installs it

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
    """Return the codec that a `<meta>` or an XML declaration names, or None if there is no such declaration.

    A declaration that can be read as ASCII cannot be part of a UTF-16 page, so `utf-16` means UTF-8 here.
    """
    head = cut_out(head, b"<!--", b"-->")
    labels = [match[1] for meta in _META.finditer(head) if (match := _CHARSET.search(meta[0]))]
    if xml := _XML.match(head):
        labels.append(xml[1])
    for label in labels:
        if found := codec(label.decode("latin-1")):
            return "utf-8" if found.startswith("utf-16") else found
    return None

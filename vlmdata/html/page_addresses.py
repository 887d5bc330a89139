"""Resolves the addresses in a page as a browser does, and decodes `data:` addresses."""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes, urljoin

_STRIP = "".join(map(chr, range(33)))  # C0 controls and space, stripped from both ends
_INNER = re.compile(r"[\t\n\r]")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
_WEB = re.compile(r"https?://[^/?#:]", re.IGNORECASE)  # an http(s) address with a host
_ORIGIN = re.compile(r"https?://[a-zA-Z0-9.-]+(?::\d+)?(?=[/?#]|\Z)")
_HOST = re.compile(r"\A(https?://)([^/?\\@:]+)(?=[/?\\:]|\Z)", re.IGNORECASE)
_UNSAFE = re.compile(r"[^\x21-\x7e]")
_DATA = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),", re.IGNORECASE)
_SPACE = re.compile(rb"\s+")


@lru_cache(maxsize=4)
def _origin(base: str) -> str:
    """Return the scheme, host and port of an http(s) address with an ASCII host, or an empty string for any other address."""
    match = _ORIGIN.match(base)
    return match[0] if match else ""


def absolute(address: str, base: str) -> str | None:
    """Return the http(s) address that a browser would request for `address` on a page with the base address `base`.

    The fragment is removed. Return None if `address` is empty, only a fragment, malformed, or not http(s).
    """
    address = address.strip(_STRIP)
    if "\n" in address or "\t" in address or "\r" in address:
        address = _INNER.sub("", address)
    if not address or address[0] == "#":
        return None
    if address[0] == "/" and address[1:2] != "/" and "/." not in address and "\\" not in address and (origin := _origin(base)):
        address = origin + address
    elif not _WEB.match(address):
        if _SCHEME.match(address) and not address.lower().startswith(("http:", "https:")):
            return None
        head, mark, query = address.partition("?")
        address = head.replace("\\", "/") + mark + query
        try:
            address = urljoin(base, address)
        except ValueError:  # an unclosed bracket in the host
            return None
        if not _WEB.match(address):
            return None
    address = address.partition("#")[0]
    if address.isascii() and address.isprintable() and " " not in address:
        return address
    return _UNSAFE.sub(lambda match: quote(match[0], errors="replace"), _HOST.sub(_ascii_host, address))


def _ascii_host(match: re.Match[str]) -> str:
    import idna  # imported here, because only the extra `pages` installs it

    try:
        return match[0] if match[2].isascii() else match[1] + idna.encode(match[2], uts46=True).decode("ascii")
    except idna.IDNAError:
        return match[0]


def data_bytes(address: str, max_bytes: int) -> tuple[str, bytes] | None:
    """Return (media type, bytes) of a `data:` address, or None if it is broken, empty or larger than `max_bytes`."""
    match = _DATA.match(address)
    if match is None or len(address) - match.end() > 4 * max_bytes // 3 + 8:
        return None
    body = unquote_to_bytes(address[match.end() :])
    if match[2].lower().rstrip().endswith(";base64"):
        body = _SPACE.sub(b"", body)
        try:
            body = base64.b64decode(body + b"=" * (-len(body) % 4))
        except (binascii.Error, ValueError):
            return None
    return (match[1].strip().lower() or "text/plain", body) if 0 < len(body) <= max_bytes else None

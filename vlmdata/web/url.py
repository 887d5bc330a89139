"""Canonical addresses, which make the client send exactly what it has checked.

Two parsers can find different hosts in one odd address, and a guard is useless if it parses differently from the socket.
Therefore an address is parsed once and rebuilt from its parts. Only the rebuilt form is checked, compared and passed to
libcurl.
"""

import re
import socket
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from urllib.parse import quote, urljoin, urlsplit

from vlmdata.web.host_names import ascii_host

MAX_LENGTH = 8_192  # characters; servers commonly refuse more than 8 KB
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
_SAFE = "/%:@!$&'()*+,;=-._~?[]|"  # unchanged in path and query; everything else is percent-encoded
_DOTS = re.compile(r"(?i)%2e")
_BLANK = "".join(map(chr, range(33)))  # characters that browsers strip around an address: control characters and the space
_INNER = re.compile("[\t\n\r]")
_BYTE = re.compile("[\udc80-\udcff]")  # a byte that is not UTF-8
_END = re.compile(r"\s+\Z")
_QUERY = re.compile(r"(?s)([^?#]*)([?#]?)(.*)")
_SLASHES = re.compile(r"(?i)^(https?:)?//+")


@dataclass(frozen=True, slots=True)
class Url:
    """A canonical address. `text` is the whole address without its fragment.

    `path` starts with / and includes the query. `host` is in lower-case ASCII; an IPv6 address has no brackets.
    """

    text: str
    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """Scheme, host and port, which are the scope of one robots.txt."""
        return f"{self.scheme}://{bracketed(self.host)}:{self.port}"


def parse_url(text: str) -> Url | None:
    """Return the canonical form of an address, or None if http(s) cannot fetch it."""
    text = _INNER.sub("", text.strip())
    if len(text) > MAX_LENGTH:
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # an open bracket, or a port that is not a number
        return None
    # refuse credentials: they are private, and a@b is an old way to hide a host
    if parts.scheme not in _PORTS or parts.hostname is None or "@" in parts.netloc or port == 0:
        return None
    host = _canonical_host(parts.hostname)
    if host is None:
        return None
    try:
        path = _canonical_path(parts.path, parts.query)
    except UnicodeEncodeError:  # half of a surrogate pair
        return None
    port = port or _PORTS[parts.scheme]
    where = bracketed(host) if port == _PORTS[parts.scheme] else f"{bracketed(host)}:{port}"
    return Url(f"{parts.scheme}://{where}{path}", parts.scheme, host, port, path)


def join_url(base: Url, location: str) -> Url | None:
    """Return the target of a redirect, or None if it is invalid. `location` has one character per byte of the header."""
    try:
        return parse_url(urljoin(base.text, location_text(location)))
    except ValueError:
        return None


def location_text(location: str) -> str:
    """Return the address that browsers read in a Location header. `location` has one character per byte of the header.

    Servers send unescaped paths in UTF-8 or Latin-1. UTF-8 is decoded, and any other byte above 127 is percent-encoded, so that
    the next request sends back the same bytes. Before the query, a backslash means a slash, and extra slashes before the host
    are ignored. Source: WHATWG URL, "basic URL parser"; Chromium, HttpResponseHeaders::IsRedirect.
    """
    text = _INNER.sub("", location.strip(_BLANK)).encode("latin-1").decode("utf-8", "surrogateescape")
    text = _BYTE.sub(lambda found: f"%{ord(found.group()) - 0xDC00:02X}", text)
    text = _END.sub(lambda found: quote(found.group()), text)  # otherwise `parse_url` would strip a wide space at the end
    path, mark, rest = _QUERY.match(text).groups()  # type: ignore[union-attr]  # it matches every string
    return _SLASHES.sub(r"\1//", path.replace("\\", "/")) + mark + rest


def bracketed(host: str) -> str:
    """Return a host in the form that it has in an address: an IPv6 address gets brackets."""
    return f"[{host}]" if ":" in host else host


def is_literal(host: str) -> bool:
    """Return whether a canonical host is an IP address, not a name."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def _canonical_host(host: str) -> str | None:
    if ":" in host:
        try:
            return str(IPv6Address(host)) if "%" not in host else None
        except AddressValueError:
            return None
    if not host.isascii():
        found = ascii_host(host)
        if found is None:
            return None
        host = found
    host = host.lower().removesuffix(".")
    if len(host) > 253 or not _HOST.fullmatch(host):
        return None
    if _NUMBER.fullmatch(host.rpartition(".")[2]):  # C libraries accept 127.1, 0x7f000001 and 2130706433 as addresses
        try:
            return socket.inet_ntoa(socket.inet_aton(host))
        except OSError:
            return None
    return host


def _canonical_path(path: str, query: str) -> str:
    if "." in path or "%2" in path:
        path = _without_dots(path)
    path = quote(path or "/", safe=_SAFE)
    return f"{path}?{quote(query, safe=_SAFE)}" if query else path


def _without_dots(path: str) -> str:
    """Remove the segments . and .. as in RFC 3986, 5.2.4, also if they are written with %2e, which servers decode."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for place, segment in enumerate(segments):
        plain = _DOTS.sub(".", segment) if "%" in segment else segment
        if plain == "..":
            if kept:
                kept.pop()
        elif plain != ".":
            kept.append(segment)
            continue
        if place == len(segments) - 1:
            kept.append("")
    return "/" + "/".join(kept)

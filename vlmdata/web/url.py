"""An address as the client asks for it: one form, in which what is checked is what is sent.

Two readers of one odd address can see two hosts, and a guard that reads otherwise than the socket is no guard. So an
address is taken apart once, rebuilt from its parts, and only the rebuilt form is checked, compared and given to libcurl.
"""

import re
import socket
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from urllib.parse import quote, urljoin, urlsplit

import idna

MAX_LENGTH = 8_192  # characters; servers refuse more, commonly at 8 KB
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
_SAFE = "/%:@!$&'()*+,;=-._~?[]|"  # left as they are in path and query; everything else is percent-encoded
_DOTS = re.compile(r"(?i)%2e")


@dataclass(frozen=True, slots=True)
class Url:
    """`text` is the whole address without its fragment; `path` begins with / and holds the query; `host` is lower case
    ASCII, an IPv6 address without brackets."""

    text: str
    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """Scheme, host and port: what one robots.txt speaks for."""
        return f"{self.scheme}://{bracketed(self.host)}:{self.port}"


def parse_url(text: str) -> Url | None:
    """Take an address apart and rebuild it, or return None for what cannot be fetched by http(s)."""
    text = text.strip().replace("\t", "").replace("\n", "").replace("\r", "")
    if len(text) > MAX_LENGTH:
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # brackets that do not close, a port that is no number
        return None
    # credentials are refused: they are nobody's to use, and a@b is the oldest way to hide a host
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
    """Resolve a redirect's target, which may be relative."""
    try:
        return parse_url(urljoin(base.text, location.strip()))
    except ValueError:
        return None


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def is_literal(host: str) -> bool:
    """Tell whether a canonical host is an address rather than a name."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def _canonical_host(host: str) -> str | None:
    if ":" in host:
        try:
            return str(IPv6Address(host)) if "%" not in host else None
        except AddressValueError:
            return None
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError:
            return None
    host = host.lower().removesuffix(".")
    if len(host) > 253 or not _HOST.fullmatch(host):
        return None
    if _NUMBER.fullmatch(host.rpartition(".")[2]):  # 127.1, 0x7f000001 and 2130706433 are all addresses to a C library
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
    """Remove . and .. segments as RFC 3986 5.2.4 does, also those written %2e, which servers read as dots."""
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

"""A reusable libcurl handle and the answer that it receives. This module enforces every limit on an answer."""

import itertools
import socket
import time
from collections.abc import Callable
from importlib.metadata import version

import pycurl

from vlmdata.web.authorities import authorities
from vlmdata.web.fetch import Fetch
from vlmdata.web.options import WebOptions
from vlmdata.web.optout import tag_refusal, tdm_reservation
from vlmdata.web.robots import MAX_BYTES as MAX_POLICY_BYTES
from vlmdata.web.url import bracketed

_VERSION = version("vlmdata")  # read once, because `version` reads a file
KEPT_HEADERS = frozenset({"x-robots-tag", "tdm-reservation", "tdm-policy"})
_READ_HEADERS = KEPT_HEADERS | {"location", "retry-after", "date", "content-type", "content-length"}
_READ = {name.encode(): name for name in _READ_HEADERS}
IDLE_BYTES = 65_536  # maximum bytes of an error page that are read and discarded to keep the connection alive
_SUPPRESS_CONNECT_HEADERS = 265  # CURLOPT_SUPPRESS_CONNECT_HEADERS, for which pycurl has no name
SUCCESSES = frozenset({200, 203})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

# libcurl's error code -> failure of the row; see also `_failure_of` for 7, 23, 35 and 56
_CURL_FAILURES = {
    1: "bad_response", 3: "bad_url", 5: "proxy_failed", 6: "dns_failed", 7: "connect_failed", 8: "bad_response",
    16: "reset", 18: "truncated_body", 27: "closed", 28: "connect_timeout", 35: "tls_failed", 43: "bad_url",
    47: "too_many_redirects", 51: "tls_failed", 52: "reset", 53: "tls_failed", 54: "tls_failed", 55: "reset",
    56: "reset", 58: "tls_failed", 59: "tls_failed", 60: "tls_failed", 61: "bad_encoding", 64: "tls_failed",
    66: "tls_failed", 77: "tls_failed", 80: "reset", 83: "tls_failed", 90: "tls_failed", 91: "tls_failed",
    92: "reset", 95: "reset", 96: "reset", 97: "proxy_failed", 98: "tls_failed", 100: "headers_too_large",
}  # fmt: skip


class _Socket(socket.socket):
    """A socket with a fast `repr`, which pycurl calls often. The `repr` of a plain socket takes 14 us and two system calls."""

    def __repr__(self) -> str:
        return "socket"


class Budget:
    """Counts the bytes of the response bodies that a worker is receiving or that its caller still holds.

    Only the client's thread may use it.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.held = 0  # the part of `used` that the caller holds
        self.paused = 0  # transfers that wait for free bytes
        self.numbers = itertools.count(1)  # one for each transfer, in the order in which their bodies begin


class Transfer:
    """A libcurl handle that makes one transfer at a time.

    libcurl calls the callbacks, so they must not raise. A callback stops the transfer by returning a size that differs from
    the size that it got.
    """

    def __init__(self, options: WebOptions, budget: Budget, may_pause: Callable[["Transfer"], bool]) -> None:
        self.curl = pycurl.Curl()
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.failure: str | None = None
        self.chunks: list[bytes] = []
        self.received = 0  # bytes of the body, after decompression
        self.counted = 0  # the part of `received` that counts as in flight; bytes that go to a file do not
        self.is_enough = False  # whether the transfer was stopped because no more of the body is needed
        self._in_headers = True
        self.header_bytes = 0
        self.refused_address = ""  # an address that the guard refused
        self.fetch: Fetch
        self.started_at = 0.0
        self.paused_at = 0.0  # 0 while not paused
        self.paused_s = 0.0
        self.number = 0  # 0 until the body begins; a transfer whose body began earlier has a smaller number
        self._options = options
        self._budget = budget
        self._may_pause = may_pause
        self._set_constant_options()

    def begin(self, fetch: Fetch, addresses: tuple[str, ...], now: float) -> None:
        """Prepare the handle for `CurlLoop.add`.

        `addresses` holds the IP addresses of the host. It is empty if the host is an IP address itself or a proxy is used.
        """
        self.fetch, self.number, self.started_at = fetch, 0, now
        self.paused_at = self.paused_s = 0.0
        self._forget_answer()
        self.header_bytes = 0
        self.refused_address = ""
        url = fetch.url
        self.curl.setopt(pycurl.URL, url.text)
        # the + makes libcurl forget the entry after a while; without the +, the entry stays until the process ends
        known = [f"+{url.host}:{url.port}:{','.join(map(bracketed, addresses))}"] if addresses else []
        self.curl.setopt(pycurl.RESOLVE, known)

    def end(self) -> None:
        """Free the bytes of the answer. The caller must have taken the body before."""
        self._budget.used -= self.counted
        self.received = self.counted = 0
        self.chunks = []  # without this, the body stays in memory until the handle is used again
        if self.paused_at:
            self.paused_at = 0.0
            self._budget.paused -= 1

    def resume(self, now: float) -> None:
        """Continue a paused transfer."""
        self.paused_s += now - self.paused_at
        self.paused_at = 0.0
        self._budget.paused -= 1
        self.curl.pause(pycurl.PAUSE_CONT)  # delivers the buffered bytes, which may pause the transfer again

    def active_s(self, now: float) -> float:
        """Return the seconds since this transfer began, without the time in which it was paused."""
        waiting = now - self.paused_at if self.paused_at else 0.0
        return now - self.started_at - self.paused_s - waiting

    def header(self, name: str) -> str:
        """Return the value of the first header with this lower-case name, or an empty string."""
        return next((value for key, value in self.headers if key == name), "")

    def outcome(self, code: int, message: str) -> tuple[str | None, bytes | None]:
        """Return (failure, body) for libcurl's result. One of the two is None, and both are None for a redirect."""
        failure = self._failure_of(code, message)
        if failure is not None:
            return failure, None
        if self.status in SUCCESSES:
            body = b"".join(self.chunks)
            return (None, body) if self.received else ("empty_body", None)
        if self.status in _REDIRECTS and self.header("location"):
            return None, None
        return f"http_{self.status}" if self.status else "bad_response", None

    def _failure_of(self, code: int, message: str) -> str | None:
        """Return the reason why the transfer has no usable answer, or None if it has one.

        `code` and `message` are libcurl's result.
        """
        if self.failure is not None:
            return self.failure
        if code == 0 or self.is_enough:
            return None
        if code == 7 and self.refused_address:
            return "private_address"
        if self._options.proxy and code in (7, 56) and not self.status:
            return "proxy_failed"  # the proxy is unreachable, or refuses the tunnel
        if code == 35 and ("reset" in message.lower() or "syscall" in message.lower()):
            return "reset"  # the connection was cut during the handshake, so the certificate is not the cause
        return _CURL_FAILURES.get(code, "bad_response")

    def _set_constant_options(self) -> None:
        options, curl = self._options, self.curl
        contact = f" (+{options.contact})" if options.contact else ""
        curl.setopt(pycurl.USERAGENT, f"{options.agent}/{_VERSION}{contact}")
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)  # the client checks each hop
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.PATH_AS_IS, 1)  # robots.txt was checked for exactly this path
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
        # PIPEWAIT is not set, because a transfer that waits to share a connection wakes seconds late if the connection is
        # HTTP/1.1 (libcurl 8.23)
        curl.setopt(pycurl.ENCODING, "")  # all encodings that this libcurl decodes
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(options.connect_timeout_s * 1000))
        curl.setopt(pycurl.BUFFERSIZE, 131_072)
        curl.setopt(pycurl.CAINFO, options.ca_file or authorities())
        curl.setopt(pycurl.PROXY, options.proxy)  # set even if empty, because otherwise libcurl reads the environment
        curl.setopt(pycurl.NOPROXY, "")
        curl.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
        curl.setopt(_SUPPRESS_CONNECT_HEADERS, 1)
        curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        curl.setopt(pycurl.HEADERFUNCTION, self._take_header)
        curl.setopt(pycurl.WRITEFUNCTION, self._take_body)

    def _forget_answer(self) -> None:
        self.status = self.received = 0
        if self.fetch.sink is not None:
            self.fetch.sink.seek(0)
            self.fetch.sink.truncate()
        self.headers, self.chunks = [], []
        self.failure = None
        self.is_enough = False
        self._in_headers = True

    def _open_socket(self, purpose: int, address: tuple[int, int, int, tuple[str, int]]) -> socket.socket | int:
        """Open a socket, or refuse an address that is not public. libcurl calls this with the address of every connection."""
        family, kind, protocol, place = address
        url = self.fetch.url
        if family not in (socket.AF_INET, socket.AF_INET6):
            return pycurl.SOCKET_BAD
        if not self._options.proxy and not self._options.reaches(url.host, url.port, place[0]):
            self.refused_address = place[0]
            return pycurl.SOCKET_BAD
        try:
            return _Socket(family, kind, protocol)
        except OSError:  # no descriptors left, or no IPv6
            return pycurl.SOCKET_BAD

    def _take_header(self, line: bytes) -> int | None:
        self.header_bytes += len(line)
        if self.header_bytes > self._options.max_header_bytes:
            self.failure = "headers_too_large"
            return -1
        if self._in_headers is False and line.startswith(b"HTTP/") and not self.received:
            self._forget_answer()  # the earlier header was 100 Continue or 103 Early Hints
        if self.status == 0:
            status = line.split(None, 2)[1:2]
            self.status = int(status[0]) if status and status[0].isdigit() else 0
            return None
        if not self._in_headers:
            return None  # ignore trailers
        if line in (b"\r\n", b"\n"):
            self._in_headers = False
            return self._check_headers() if self.status >= 200 else None
        name, colon, value = line.partition(b":")
        kept = _READ.get(name.strip().lower())
        if kept is not None and colon:
            self.headers.append((kept, value.strip().decode("latin-1")))
        return None

    def _check_headers(self) -> int | None:
        """Return -1, which stops the transfer, if the headers show that the body is too long, refused or not needed.

        Otherwise, return None.
        """
        length = self.header("content-length")
        announced = int(length) if length.isdecimal() and len(length) < 20 else 0
        if self.status not in SUCCESSES:
            self.is_enough = announced > IDLE_BYTES
        elif self.fetch.is_policy:
            return None
        elif (refusal := self._refusal()) is not None:
            self.failure = refusal
        elif announced > self._options.max_bytes:
            self.failure = "too_large"
        return -1 if self.failure or self.is_enough else None

    def _refusal(self) -> str | None:
        if self._options.tdm and tdm_reservation(self.headers):
            return "tdm_reserved"
        return tag_refusal(self.headers, self._options.agent, self._options.opt_out)

    def _take_body(self, chunk: bytes) -> int | None:
        size = len(chunk)
        self.number = self.number or next(self._budget.numbers)
        if self.status not in SUCCESSES:
            self._count(size)
            self.is_enough = self.received > IDLE_BYTES
            return -1 if self.is_enough else None
        if self.fetch.sink is not None:
            self.received += size
            self.fetch.sink.write(chunk)
        elif self._budget.used + size > self._budget.limit and self._may_pause(self):
            self.paused_at = time.monotonic()
            self._budget.paused += 1
            return pycurl.WRITEFUNC_PAUSE
        else:
            self._count(size)
            self.chunks.append(chunk)
        limit = MAX_POLICY_BYTES if self.fetch.is_policy else self._options.max_bytes
        if self.received > limit:
            self.is_enough = self.fetch.is_policy  # RFC 9309, 2.5: the rest of a long robots.txt may be ignored
            self.failure = None if self.is_enough else "too_large"
            return -1
        return None

    def _count(self, size: int) -> None:
        self.received += size
        self.counted += size
        self._budget.used += size

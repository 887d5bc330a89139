"""One libcurl handle, used again and again, and the answer that it is receiving: where every limit on an answer holds."""

import socket
import time
from collections.abc import Callable
from importlib.metadata import version

import certifi
import pycurl

from vlmdata.web.fetch import Fetch
from vlmdata.web.options import WebOptions
from vlmdata.web.optout import tag_refusal, tdm_reservation
from vlmdata.web.robots import MAX_BYTES as MAX_POLICY_BYTES
from vlmdata.web.url import bracketed

_VERSION = version("vlmdata")  # reads a file: once is enough
KEPT_HEADERS = frozenset({"x-robots-tag", "tdm-reservation", "tdm-policy"})
_READ_HEADERS = KEPT_HEADERS | {"location", "retry-after", "date", "content-type", "content-length"}
_READ = {name.encode(): name for name in _READ_HEADERS}
IDLE_BYTES = 65_536  # of an error page are read, and thrown away, to keep its connection alive
_SUPPRESS_CONNECT_HEADERS = 265  # CURLOPT_SUPPRESS_CONNECT_HEADERS, which pycurl has no name for
SUCCESSES = frozenset({200, 203})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

# libcurl's errors by what they mean for a row; 23 (we ended it) and 7 (see failure_of) are told apart below
_CURL_FAILURES = {
    1: "bad_response", 3: "bad_url", 5: "proxy_failed", 6: "dns_failed", 7: "connect_failed", 8: "bad_response",
    16: "reset", 18: "truncated_body", 27: "closed", 28: "connect_timeout", 35: "tls_failed", 43: "bad_url",
    47: "too_many_redirects", 51: "tls_failed", 52: "reset", 53: "tls_failed", 54: "tls_failed", 55: "reset",
    56: "reset", 58: "tls_failed", 59: "tls_failed", 60: "tls_failed", 61: "bad_encoding", 64: "tls_failed",
    66: "tls_failed", 77: "tls_failed", 80: "reset", 83: "tls_failed", 90: "tls_failed", 91: "tls_failed",
    92: "reset", 95: "reset", 96: "reset", 97: "proxy_failed", 98: "tls_failed", 100: "headers_too_large",
}  # fmt: skip


class _Socket(socket.socket):
    """pycurl writes each socket out as text, which for a plain one takes 14 us and two system calls."""

    def __repr__(self) -> str:
        return "socket"


class Budget:
    """Bytes of bodies in the worker, in transfers and in the caller's hands. Changed on the client's thread only."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.held = 0  # of those, in the caller's hands
        self.paused = 0  # transfers that wait for room


class Transfer:
    """Callbacks run inside libcurl: they must not raise, and say stop by returning another number than they were given."""

    def __init__(self, options: WebOptions, budget: Budget, may_pause: Callable[["Transfer"], bool]) -> None:
        self.curl = pycurl.Curl()
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.failure: str | None = None
        self.chunks: list[bytes] = []
        self.received = 0  # bytes of the body, after decompression
        self.is_enough = False  # ended by us because nothing more is wanted
        self._in_headers = True
        self.header_bytes = 0
        self.guarded = ""  # an address that the guard refused
        self.fetch: Fetch
        self.started_at = 0.0
        self.paused_at = 0.0  # 0 while not paused
        self.paused_s = 0.0
        self.number = 0
        self._options = options
        self._budget = budget
        self._may_pause = may_pause
        self._set_constant_options()

    def begin(self, fetch: Fetch, addresses: tuple[str, ...], number: int, now: float) -> None:
        """Make ready for `add_handle`. `addresses` are what the host's name stands for; empty if libcurl needs none."""
        self.fetch, self.number, self.started_at = fetch, number, now
        self.paused_at = self.paused_s = 0.0
        self._forget_answer()
        self.header_bytes = 0
        self.guarded = ""
        url = fetch.url
        self.curl.setopt(pycurl.URL, url.text)
        # + lets libcurl forget the entry after a while; a name would else stay for the life of the process
        known = [f"+{url.host}:{url.port}:{','.join(map(bracketed, addresses))}"] if addresses else []
        self.curl.setopt(pycurl.RESOLVE, known)

    def end(self) -> None:
        """Give back what the answer took; the body, if it is wanted, was taken before."""
        self._budget.used -= self.received
        self.received = 0
        self.chunks = []  # not kept until the handle is next used
        if self.paused_at:
            self.paused_at = 0.0
            self._budget.paused -= 1

    def resume(self, now: float) -> None:
        self.paused_s += now - self.paused_at
        self.paused_at = 0.0
        self._budget.paused -= 1
        self.curl.pause(pycurl.PAUSE_CONT)  # hands over what it kept, and may have to pause again

    def active_s(self, now: float) -> float:
        """Seconds this transfer has taken, without those in which it was us who held it up."""
        waiting = now - self.paused_at if self.paused_at else 0.0
        return now - self.started_at - self.paused_s - waiting

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")

    def outcome(self, code: int, message: str) -> tuple[str | None, bytes | None]:
        """Return the failure and the body that libcurl's result comes to; neither, if the answer is a redirect."""
        failure = self._failure_of(code, message)
        if failure is not None:
            return failure, None
        if self.status in SUCCESSES:
            body = b"".join(self.chunks)
            return (None, body) if body else ("empty_body", None)
        if self.status in _REDIRECTS and self.header("location"):
            return None, None
        return f"http_{self.status}" if self.status else "bad_response", None

    def _failure_of(self, code: int, message: str) -> str | None:
        """Return why there is no answer to look at; None if there is one."""
        if self.failure is not None:
            return self.failure
        if code == 0 or self.is_enough:
            return None
        if code == 7 and self.guarded:
            return "private_address"
        if self._options.proxy and code in (7, 56) and not self.status:
            return "proxy_failed"  # not there, or it refuses the tunnel
        if code == 35 and ("reset" in message.lower() or "syscall" in message.lower()):
            return "reset"  # the handshake was cut, which says nothing about certificates
        return _CURL_FAILURES.get(code, "bad_response")

    def _set_constant_options(self) -> None:
        options, curl = self._options, self.curl
        contact = f" (+{options.contact})" if options.contact else ""
        curl.setopt(pycurl.USERAGENT, f"{options.agent}/{_VERSION}{contact}")
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)  # each hop is checked as the first was
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.PATH_AS_IS, 1)  # what robots.txt was asked about is what is sent
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
        # no PIPEWAIT: a row that waits to share a connection which then speaks HTTP/1.1 is woken seconds too late (8.23)
        curl.setopt(pycurl.ENCODING, "")  # all that this libcurl can decode
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(options.connect_timeout_s * 1000))
        curl.setopt(pycurl.BUFFERSIZE, 131_072)
        curl.setopt(pycurl.CAINFO, options.ca_file or certifi.where())
        curl.setopt(pycurl.PROXY, options.proxy)  # also when empty: else libcurl takes one from the environment
        curl.setopt(pycurl.NOPROXY, "")
        curl.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
        curl.setopt(_SUPPRESS_CONNECT_HEADERS, 1)
        curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        curl.setopt(pycurl.HEADERFUNCTION, self._take_header)
        curl.setopt(pycurl.WRITEFUNCTION, self._take_body)

    def _forget_answer(self) -> None:
        self.status = self.received = 0
        self.headers, self.chunks = [], []
        self.failure = None
        self.is_enough = False
        self._in_headers = True

    def _open_socket(self, purpose: int, address: tuple[int, int, int, tuple[str, int]]) -> socket.socket | int:
        """The guard: the one place through which every connection goes, with the address that is really connected to."""
        family, kind, protocol, place = address
        url = self.fetch.url
        if family not in (socket.AF_INET, socket.AF_INET6):
            return pycurl.SOCKET_BAD
        if not self._options.proxy and not self._options.reaches(url.host, url.port, place[0]):
            self.guarded = place[0]
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
            self._forget_answer()  # what came before was 100 Continue or 103 Early Hints
        if self.status == 0:
            status = line.split(None, 2)[1:2]
            self.status = int(status[0]) if status and status[0].isdigit() else 0
            return None
        if not self._in_headers:
            return None  # trailers
        if line in (b"\r\n", b"\n"):
            self._in_headers = False
            return self._judge_headers() if self.status >= 200 else None
        name, colon, value = line.partition(b":")
        kept = _READ.get(name.strip().lower())
        if kept is not None and colon:
            self.headers.append((kept, value.strip().decode("latin-1")))
        return None

    def _judge_headers(self) -> int | None:
        """End what need not be read: a body too long by its own word, or one whose site does not want it used."""
        length = self.header("content-length")
        promised = int(length) if length.isdecimal() and len(length) < 20 else 0
        if self.status not in SUCCESSES:
            self.is_enough = promised > IDLE_BYTES
        elif self.fetch.is_policy:
            return None
        elif (refusal := self._refusal()) is not None:
            self.failure = refusal
        elif promised > self._options.max_bytes:
            self.failure = "too_large"
        return -1 if self.failure or self.is_enough else None

    def _refusal(self) -> str | None:
        if self._options.tdm and tdm_reservation(self.headers):
            return "tdm_reserved"
        return tag_refusal(self.headers, self._options.agent, self._options.opt_out)

    def _take_body(self, chunk: bytes) -> int | None:
        size = len(chunk)
        if self.status not in SUCCESSES:
            self.received += size
            self._budget.used += size
            self.is_enough = self.received > IDLE_BYTES
            return -1 if self.is_enough else None
        if self._budget.used + size > self._budget.limit and self._may_pause(self):
            self.paused_at = time.monotonic()
            self._budget.paused += 1
            return pycurl.WRITEFUNC_PAUSE
        self.received += size
        self._budget.used += size
        self.chunks.append(chunk)
        limit = MAX_POLICY_BYTES if self.fetch.is_policy else self._options.max_bytes
        if self.received > limit:
            self.is_enough = self.fetch.is_policy  # the rest of a long robots.txt may be ignored
            self.failure = None if self.is_enough else "too_large"
            return -1
        return None

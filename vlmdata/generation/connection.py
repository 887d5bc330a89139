"""A connection to an endpoint: one libcurl handle, which one thread uses. This module enforces every limit on an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import pycurl

from vlmdata.web.authorities import authorities

CONNECT_S = 15.0
MOST_BYTES = 16 << 20  # of an answer after decompression; 256 tokens take about 2 kB
_VERSION = version("vlmdata")
_READ = frozenset({"retry-after", "date"})  # headers that are kept
_FAILURES = {  # libcurl's error code: failure of the prompt; all others are "connection"
    1: "malformed", 8: "malformed", 18: "cut", 28: "timeout", 61: "malformed", 100: "too_large",
    35: "tls", 51: "tls", 53: "tls", 54: "tls", 58: "tls", 59: "tls", 60: "tls", 77: "tls", 83: "tls", 90: "tls", 91: "tls",
}  # fmt: skip
_UNREACHABLE = frozenset({6, 7, 51, 58, 59, 60, 77, 83, 90, 91})  # no such host, nothing listens there, or it is not trusted


@dataclass
class Reply:
    """What a request led to: a status with a body, or the reason why there is none (`failure`) with libcurl's `words`.

    `is_unreachable`: the host or the server does not exist, or its certificate is not trusted.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    failure: str | None = None
    words: str = ""
    is_unreachable: bool = False
    seconds: float = 0.0


class Connection:
    """Sends requests to one address. It follows no redirect, uses no proxy, and checks certificates.

    A request is given up when `is_closed` returns True, which libcurl asks at least once a second.
    """

    def __init__(self, url: str, headers: Sequence[str], *, timeout_s: float, ca_file: str, is_closed: Callable[[], bool]):
        self._curl = curl = pycurl.Curl()
        self._is_closed = is_closed
        self._reply = Reply()
        self._chunks: list[bytes] = []
        self._received = 0
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.HTTPHEADER, ["Content-Type: application/json", "Accept: application/json", "Expect:", *headers])
        curl.setopt(pycurl.USERAGENT, f"vlmdata/{_VERSION}")
        curl.setopt(pycurl.POST, 1)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.ENCODING, "gzip")  # _take_body counts the bytes after decompression
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(1000 * min(CONNECT_S, timeout_s)))
        curl.setopt(pycurl.TIMEOUT_MS, int(1000 * timeout_s))  # of the whole request, however slowly bytes arrive
        curl.setopt(pycurl.PROXY, "")  # set even if empty, because otherwise libcurl reads the environment
        curl.setopt(pycurl.NOPROXY, "")
        curl.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
        if url.startswith("https:"):
            curl.setopt(pycurl.CAINFO, ca_file or authorities())
        curl.setopt(pycurl.HEADERFUNCTION, self._take_header)
        curl.setopt(pycurl.WRITEFUNCTION, self._take_body)
        curl.setopt(pycurl.NOPROGRESS, 0)
        curl.setopt(pycurl.XFERINFOFUNCTION, self._look)

    def post(self, body: bytes) -> Reply:
        """Send a body and return what came back. Raises nothing for what the network or the server does."""
        self._reply, self._chunks, self._received = Reply(), [], 0
        self._curl.setopt(pycurl.POSTFIELDS, body)
        reply = self._reply
        try:
            self._curl.perform()
        except pycurl.error as error:
            code, reply.words = error.args[0], str(error.args[1])
            if reply.failure is None:
                is_cut = code == pycurl.E_RECV_ERROR and reply.status  # reset within the body
                reply.failure = "cut" if is_cut else _FAILURES.get(code, "connection")
            reply.is_unreachable = code in _UNREACHABLE
        reply.seconds = self._curl.getinfo(pycurl.TOTAL_TIME)
        reply.body, self._chunks = b"".join(self._chunks), []
        self._curl.setopt(pycurl.POSTFIELDS, b"")  # the handle would keep the images
        return reply

    def _take_header(self, line: bytes) -> None:
        reply = self._reply
        if line.startswith(b"HTTP/") and not self._received:  # the first line, or the one after 100 Continue
            status = line.split(None, 2)[1:2]
            reply.status = int(status[0]) if status and status[0].isdigit() else 0
            reply.headers.clear()
            return
        name, _, value = line.partition(b":")
        if (known := name.strip().lower().decode("latin-1")) in _READ:
            reply.headers.setdefault(known, value.strip().decode("latin-1"))

    def _take_body(self, data: bytes) -> int | None:
        self._received += len(data)
        if self._received > MOST_BYTES:
            self._reply.failure = "too_large"
            self._chunks.clear()
            return -1  # stops the transfer
        self._chunks.append(data)
        return None

    def _look(self, *counts: int) -> int:
        return int(self._is_closed())

"""Downloads with img2dataset's own code, to get exactly the same bytes. A recipe selects it: `download: {engine: img2dataset}`.

img2dataset's function `download_image_with_retry` uses urllib. This module adds three safeguards, which do not change a body.
Addresses are first compared with the block lists. At every hop, urllib's opener connects only to public addresses. A download
ends after `timeout_s` per attempt, because otherwise a server that sends a byte now and then would block img2dataset for ever.
"""

import contextlib
import http.client
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from threading import Semaphore, Timer, local
from typing import Any

from vlmdata.images.img2dataset_resize import disable_update_check
from vlmdata.web.blocked_hosts import BlockedHosts
from vlmdata.web.img2dataset_errors import reason_of
from vlmdata.web.options import WebOptions
from vlmdata.web.url import bracketed, parse_url

PRIVATE = "refused: private address"
OPTED_OUT = "Use of image disallowed by X-Robots-Tag directive"  # img2dataset's message
_OUTCOMES = {
    PRIVATE: "private_address",
    OPTED_OUT: "opted_out",
    "temporary failure in name resolution": "dns_temporary",
    "incompleteread": "truncated_body",
    "infinite loop": "too_many_redirects",
    "is not allowed": "bad_redirect",
}
_OUTCOME_OF_REASON = {
    "no_such_host": "dns_failed",
    "tls": "tls_failed",
    "connection_refused": "connect_failed",
    "connection_reset": "reset",
    "not_http": "bad_redirect",
    "timeout": "timeout",
}


def outcome_of(message: str) -> str:
    """Return the outcome that an error message of img2dataset means, or `bad_response` if the message is unknown."""
    for sign, outcome in _OUTCOMES.items():
        if sign.lower() in message.lower():
            return outcome
    word = reason_of("failed_to_download", message)
    return word if word.startswith("http_") else _OUTCOME_OF_REASON.get(word, "bad_response")


class Deadline:
    """The time limit for one address. When it is over, the address's connections are shut down, which ends a blocked read."""

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._sockets: list[socket.socket] = []
        self._timer = Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, connection: socket.socket) -> None:
        """Shut down this connection when the time is over, or at once if it is over already."""
        self._sockets.append(connection)
        if self.is_over:
            self._end()

    def cancel(self) -> None:
        """Stop the timer. Call this when the address is done."""
        self._timer.cancel()

    def _end(self) -> None:
        self.is_over = True
        for connection in self._sockets:
            with contextlib.suppress(OSError, ValueError):  # closed already, or replaced by its TLS socket
                connection.shutdown(socket.SHUT_RDWR)


_THREAD = local()  # `deadline` of the address that this thread fetches


class Fetcher:
    """Downloads addresses on threads that all partitions of a worker share.

    Make only one per process, because the constructor installs urllib's opener.
    """

    def __init__(self, options: WebOptions) -> None:
        disable_update_check()
        from img2dataset.downloader import download_image_with_retry

        self._download = download_image_with_retry
        self._options = options
        self._blocks = BlockedHosts(options)
        self._pool = ThreadPool(options.connections)
        urllib.request.install_opener(guarded_opener(options))

    def fetch(self, addresses: dict[int, str]) -> Iterator[tuple[int, bytes | None, str | None]]:
        """Download `addresses` (position -> address), and yield (position, body, failure) in the order of completion.

        Either the body or the failure is None. At most two bodies per connection wait for the caller.
        """
        room = Semaphore(2 * self._options.connections)

        def admitted() -> Iterator[tuple[int, str]]:
            for entry in addresses.items():
                room.acquire()
                yield entry

        try:
            for answer in self._pool.imap_unordered(self._fetch_one, admitted()):
                yield answer
                room.release()
        finally:  # if the caller stops early, the pool's feeder thread must not wait for it
            room.release(len(addresses) or 1)

    def _fetch_one(self, entry: tuple[int, str]) -> tuple[int, bytes | None, str | None]:
        position, address = entry
        url = parse_url(address)
        if url is None:
            return position, None, "bad_url"
        if self._blocks.blocks(url):
            return position, None, "blocked"
        options = self._options
        directives = {word.lower() for word in options.opt_out}
        _THREAD.deadline = deadline = Deadline(options.timeout_s * (1 + options.retries))
        _, stream, error = self._download(entry, options.connect_timeout_s, options.retries, options.agent.lower(), directives)
        deadline.cancel()
        if deadline.is_over:
            return position, None, "timeout"
        if stream is None:
            return position, None, outcome_of(error or "")
        body = stream.getvalue()
        return position, body or None, None if body else "empty_body"

    def close(self) -> None:
        """Stop the threads."""
        self._pool.terminate()


def guarded_opener(options: WebOptions) -> urllib.request.OpenerDirector:
    """Return an opener like urllib's that opens only http(s) and connects only to addresses that `options` allow.

    It does not use proxies from the environment.
    """

    def connect_public(place: tuple[str, int], timeout: Any, source: Any = None) -> socket.socket:
        error: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(*place, 0, socket.SOCK_STREAM):
            if not options.reaches(place[0].lower(), place[1], str(address[0])):
                error = OSError(PRIVATE)
                continue
            try:
                opened = socket.socket(family, kind, protocol)
                opened.settimeout(timeout)
                opened.connect(address)
                _THREAD.deadline.watch(opened)
                return opened
            except OSError as failed:
                opened.close()
                error = failed
        raise error or OSError(f"no address for {bracketed(place[0])}")

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = connect_public((self.host, self.port), self.timeout)

    context = ssl.create_default_context(cafile=options.ca_file or None)

    class Secured(http.client.HTTPSConnection):
        def connect(self) -> None:
            plain = connect_public((self.host, self.port), self.timeout)
            self.sock = context.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)
            _THREAD.deadline.watch(self.sock)
            self.sock.do_handshake()

    class OverPlain(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, req)

    class OverTls(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Secured, req)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.UnknownHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        OverPlain,
        OverTls,
    ):
        opener.add_handler(handler())
    return opener

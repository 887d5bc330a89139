"""A real web server on the loopback address that misbehaves as a test asks. It sends real bytes and is not a mock.

    with LoopbackServer({"/a.jpg": reply(b"...")}) as server:
        fetch(server.url("/a.jpg"))
        assert [request.path for request in server.requests] == ["/robots.txt", "/a.jpg"]

A path without a route is answered with 404. A route is a function of the request and of the connection on which to answer.
It returns whether the connection may serve another request.
"""

import contextlib
import functools
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO

from bench.inputs.certificate import Certificate

REASONS = {200: "OK", 301: "Moved", 302: "Found", 404: "Not Found", 429: "Too Many Requests", 503: "Unavailable"}


@dataclass(frozen=True, eq=False)
class Request:
    """A received request. `headers` have lower-case names, `connection` counts from 0 per server, `at` is in monotonic
    seconds."""

    method: str
    path: str
    headers: dict[str, str]
    connection: int
    at: float


class Wire:
    """A connection that can send what no correct server would. `body` is what the client sent after its headers."""

    def __init__(self, connection: socket.socket, answering: Callable[[], None], body: bytes = b"") -> None:
        self.socket = connection
        self.body = body
        self._answering = answering

    def send(self, data: bytes) -> None:
        # counted first, because the other side may get the answer and send a request before this thread continues
        self._answering()
        self.socket.sendall(data)

    def reset(self) -> None:
        """End the connection with RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


Route = Callable[[Request, Wire], bool]


def head(status: int, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def reply(body: bytes = b"", status: int = 200, headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> Route:
    """Return a route that answers correctly and keeps the connection."""
    pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)

    def route(request: Request, wire: Wire) -> bool:
        wire.send(head(status, [("Content-Length", str(len(body))), *pairs]) + body)
        return True

    return route


def redirect(location: str, status: int = 302) -> Route:
    return reply(status=status, headers={"Location": location})


def raw(data: bytes) -> Route:
    """Return a route that sends bytes unchanged and closes the connection."""

    def route(request: Request, wire: Wire) -> bool:
        wire.send(data)
        return False

    return route


def in_turn(*routes: Route) -> Route:
    """Return a route that answers each request by the next route, and all further requests by the last."""
    lock, left = threading.Lock(), list(routes)

    def route(request: Request, wire: Wire) -> bool:
        with lock:
            chosen = left.pop(0) if len(left) > 1 else left[0]
        return chosen(request, wire)

    return route


def after(delay_s: float, route: Route) -> Route:
    def waiting(request: Request, wire: Wire) -> bool:
        time.sleep(delay_s)
        return route(request, wire)

    return waiting


def drip(body: bytes, *, size: int = 1, every_s: float = 0.05, headers: Mapping[str, str] | None = None) -> Route:
    """Return a route that sends a body slowly in small pieces, with the correct length announced."""

    def route(request: Request, wire: Wire) -> bool:
        wire.send(head(200, [("Content-Length", str(len(body))), *(headers or {}).items()]))
        for start in range(0, len(body), size):
            wire.send(body[start : start + size])
            time.sleep(every_s)
        return True

    return route


def endless(piece: bytes = b"x" * 65_536, *, before: bytes = head(200)) -> Route:
    """Return a route that sends the same bytes until the other side closes the connection."""

    def route(request: Request, wire: Wire) -> bool:
        wire.send(before)
        while True:
            wire.send(piece)

    return route


def hang(request: Request, wire: Wire) -> bool:
    """Read the request and never answer."""
    with contextlib.suppress(OSError):
        wire.socket.recv(1)  # returns when the other side closes
    return False


def reset(request: Request, wire: Wire) -> bool:
    wire.reset()
    return False


@dataclass
class LoopbackServer:
    """A server that runs inside `with`, with a thread per connection. `most_at_once` is the largest number of requests that
    waited for the first byte of their answer at the same time."""

    routes: dict[str, Route] = field(default_factory=dict)
    host: str = "127.0.0.1"
    tls: Certificate | None = None
    default: Route = field(default_factory=lambda: reply(b"nothing here", 404))

    def __post_init__(self) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.most_at_once = 0
        self._unanswered: set[Request] = set()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closing = False

    def url(self, path: str, host: str | None = None) -> str:
        return f"{'https' if self.tls else 'http'}://{host or self.host}:{self.port}{path}"

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    @property
    def open_connections(self) -> int:
        """Return the number of connections that neither side has closed, as far as the server knows."""
        return len(self._open)

    def __enter__(self) -> "LoopbackServer":
        self._listener = socket.create_server((self.host, 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # close alone would leave the thread in accept
        self._accepting.join(timeout=10)
        # Closed only after the thread ends. Another socket may reuse the descriptor, and the thread would accept from it.
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=10)

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True)
            with self._lock:
                self.connections += 1
                self._open.add(connection)
                self._threads = [other for other in self._threads if other.is_alive()] + [thread]
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        secured = connection
        try:
            if self.tls:
                secured = self.tls.server_context().wrap_socket(connection, server_side=True)
            self._talk(secured, number)
        except (OSError, ssl.SSLError):
            pass  # the client closed the connection, as it does in many tests
        finally:
            secured.close()
            connection.close()
            with self._lock:
                self._open.discard(connection)

    def _talk(self, connection: socket.socket, number: int) -> None:
        if not self.tls and connection.recv(1, socket.MSG_PEEK) == b"\x16":  # a TLS handshake where the server offers none
            connection.sendall(head(400))
            return
        stream = connection.makefile("rb")
        while True:
            line = stream.readline(65_536).decode("latin-1").split()
            if len(line) < 2:
                return
            headers = {}
            while (header := stream.readline(65_536).decode("latin-1").strip()) != "":
                name, _, value = header.partition(":")
                headers[name.lower()] = value.strip()
            if headers.get("expect", "").lower() == "100-continue":
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = read_body(stream, headers)
            if body is None:
                return
            with self._lock:  # the time is taken under the lock too, so that the list is in order of time
                request = Request(line[0], line[1], headers, number, time.monotonic())
                self.requests.append(request)
                self._unanswered.add(request)
                self.most_at_once = max(self.most_at_once, len(self._unanswered))
            answered = functools.partial(self._unanswered.discard, request)
            try:
                if not self.routes.get(request.path, self.default)(request, Wire(connection, answered, body)):
                    return
            finally:
                answered()


def read_body(stream: BinaryIO, headers: Mapping[str, str]) -> bytes | None:
    """Return the body of a request, or None if the client closed the connection before its end."""
    if headers.get("transfer-encoding", "").lower() != "chunked":
        body = stream.read(length := int(headers.get("content-length", "0")))
        return body if len(body) == length else None
    pieces = []
    while size := int(stream.readline(65_536).split(b";")[0].strip() or b"0", 16):
        pieces.append(stream.read(size))
        stream.readline(65_536)
    return b"".join(pieces) if stream.readline(65_536) else None


@contextlib.contextmanager
def nobody(host: str = "127.0.0.1") -> Iterator[str]:
    """Yield the start of an address that refuses connections. Its port is reserved, so that no other process gets it."""
    with socket.socket() as taken:
        taken.bind((host, 0))
        yield f"http://{host}:{taken.getsockname()[1]}"

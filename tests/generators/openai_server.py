"""A real server on the loopback address that answers as an OpenAI-compatible endpoint does, and misbehaves as a test asks.

    with OpenAIServer(answer=lambda request: "a red cube", faults=by_attempt({0: status(503)})) as server:
        ask(server.url)  # http://127.0.0.1:PORT/v1
        assert server.requests == 2 and server.most_at_once == 1

It serves POST /v1/chat/completions, POST /v1/images/generations and GET /v1/models. The faults are in `faults.py`. All counts
are of this process; clients may be other processes. Processes that were forked while a connection was open hold it too, and
`reset` then has no effect before they end.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from tests.generators.chat import BadRequest, ChatRequest, Reply, completion, default_answer, default_picture, pictures
from tests.servers import LoopbackServer, Request, Wire, head

Answer = Callable[[ChatRequest], "str | Reply"]
Fault = Callable[["Exchange"], bool]  # answers a request, and returns whether the connection may serve another one
Faults = Callable[[ChatRequest], "Fault | None"]


@dataclass
class Seen:
    """What the server noted of a request. Times are monotonic seconds, None as long as no byte of an answer was sent.

    `not_before` is the time at which the Retry-After of the answer is over; `status` is 0 if no head was sent.
    """

    number: int
    content: str
    attempt: int
    path: str
    headers: dict[str, str]
    model: str
    received_bytes: int
    at: float
    status: int = 0
    sent_bytes: int = 0
    answered_at: float | None = None
    not_before: float | None = None


class Gone(OSError):
    """The client, or the end of the server, closed the connection."""


class OpenAIServer:
    """The server, which runs inside `with`. All counts are exact at any time and may be read from any thread.

    `requests` counts the POST requests that were read to their end, `answered` those whose answer began or whose connection
    was closed, `at_once` those between, `most_at_once` the highest number of them. `by_content` counts requests by
    `ChatRequest.content`, `by_path` all requests, GET too. `gone` counts clients that closed the connection before they had
    the whole answer. `seen` has one entry for each POST request, in order. Immediate answers rarely overlap: a test of
    `most_at_once` holds them with `late(until=event)`.

    With `models`, another model is answered with 404. With `key`, a request without it is answered with 401. With
    `concurrency`, a request that comes while as many others are at work is answered with 429.
    """

    def __init__(
        self,
        answer: Answer = default_answer,
        faults: Faults | Mapping[int, Fault] | None = None,
        *,
        models: Sequence[str] | None = None,
        key: str | None = None,
        concurrency: int | None = None,
        picture: Callable[[ChatRequest], bytes] = default_picture,
        models_fault: Fault | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.answer, self.picture, self.models, self.key, self.concurrency = answer, picture, models, key, concurrency
        self.models_fault = models_fault
        self._faults: Faults
        if faults is None or isinstance(faults, Mapping):
            numbered = dict(faults or {})
            self._faults = lambda request: numbered.get(request.number)
        else:
            self._faults = faults
        self.requests = self.answered = self.at_once = self.most_at_once = 0
        self.received_bytes = self.sent_bytes = self.gone = 0
        self.by_content: Counter[str] = Counter()
        self.by_path: Counter[str] = Counter()
        self.seen: list[Seen] = []
        self.errors: list[BaseException] = []  # that `answer` or a fault raised; leaving the block raises the first
        self._changed = threading.Condition(threading.RLock())
        self._waits: set[threading.Event] = set()
        self._closing = False
        self._server = LoopbackServer(default=self._route, host=host)

    @property
    def url(self) -> str:
        """Return the base address, without a slash at its end."""
        return self._server.url("/v1")

    @property
    def connections(self) -> int:
        return self._server.connections

    def wait_for(self, is_reached: Callable[[OpenAIServer], object], timeout_s: float = 60.0) -> None:
        """Wait until the counts of the server satisfy a condition. Raise TimeoutError if they do not in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: is_reached(self), timeout_s):
                counts = f"requests={self.requests}, answered={self.answered}, at_once={self.at_once}"
                raise TimeoutError(f"the server did not reach the state that the test waits for; it has {counts}")

    def asked_early(self, *, by_any: bool = False, slack_s: float = 0.0) -> list[Seen]:
        """Return the requests that repeat a request before its Retry-After was over; `by_any`, also requests of other content.

        A request that was under way when the answer was sent counts for `by_any` only if it came `slack_s` later.
        """
        with self._changed:
            waits = [one for one in self.seen if one.not_before is not None and one.answered_at is not None]
            return [
                later
                for later in self.seen
                if any(
                    (by_any or later.content == one.content)
                    and later.number != one.number
                    and (one.answered_at or 0) + slack_s < later.at < (one.not_before or 0)
                    for one in waits
                )
            ]

    def pause(self, event: threading.Event, timeout_s: float | None = None) -> None:
        """Wait for an event, at most for a time. The end of the server sets the event."""
        with self._changed:
            if self._closing:
                return
            self._waits.add(event)
        event.wait(timeout_s)
        with self._changed:
            self._waits.discard(event)

    def __enter__(self) -> OpenAIServer:
        self._server.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._changed:
            self._closing = True
            for event in self._waits:
                event.set()
            self._changed.notify_all()
        self._server.__exit__(kind, error, trace)
        if self.errors and error is None:
            raise self.errors[0]

    def _route(self, request: Request, wire: Wire) -> bool:
        path = request.path.partition("?")[0]
        with self._changed:
            self.by_path[path] += 1
            self._changed.notify_all()
        exchange = Exchange(self, wire)
        try:
            if request.method == "GET" and path == "/v1/models":
                return self.models_fault(exchange) if self.models_fault else exchange.send(self._listed())
            if request.method != "POST" or path not in ("/v1/chat/completions", "/v1/images/generations"):
                return exchange.fail(404, f"Unknown request URL: {request.method} {path}")
            return self._posted(request, path, exchange)
        except Gone:
            with self._changed:
                self.gone += 1
                self._changed.notify_all()
            raise
        except BaseException as error:  # a mistake in the test's own functions must fail the test, not only this request
            with self._changed:
                self.errors.append(error)
            exchange.fail(500, f"the test's own function failed: {type(error).__name__}: {error}")
            return False
        finally:
            exchange.end()

    def _listed(self) -> dict[str, Any]:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "tests"} for name in self.models or ["tester"]]
        return {"object": "list", "data": data}

    def _posted(self, request: Request, path: str, exchange: Exchange) -> bool:
        body = exchange.wire.body
        parsed, mistake = ChatRequest.read(path, request.headers, body)
        with self._changed:
            number, attempt = self.requests, self.by_content[parsed.content]
            parsed = replace(parsed, number=number, attempt=attempt)
            at = time.monotonic()
            seen = Seen(number, parsed.content, attempt, path, request.headers, parsed.model, len(body), at)
            exchange.begin(parsed, seen)
            self.seen.append(seen)
            self.requests += 1
            self.received_bytes += len(body)
            self.by_content[parsed.content] += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            is_too_much = self.concurrency is not None and self.at_once > self.concurrency
            self._changed.notify_all()
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return exchange.fail(401, "Incorrect API key provided.", code="invalid_api_key")
        if mistake:
            return exchange.fail(400, mistake)
        if self.models is not None and parsed.model not in self.models:
            return exchange.fail(404, f"The model `{parsed.model}` does not exist.", code="model_not_found")
        if is_too_much:
            return exchange.fail(429, "Too many requests at once.", code="rate_limit_exceeded")
        fault = self._faults(parsed)
        return fault(exchange) if fault else exchange.answer()

    def note_answer(self, seen: Seen | None, sent_bytes: int, status: int | None, is_first: bool) -> None:
        """Count bytes of an answer before they are sent."""
        with self._changed:
            self.sent_bytes += sent_bytes
            if seen is not None:
                seen.sent_bytes += sent_bytes
                seen.status = status or seen.status
                if is_first:
                    seen.answered_at = time.monotonic()
                    self.answered += 1
                    self.at_once -= 1
            self._changed.notify_all()


class Exchange:
    """One request and the ways to answer it. A fault calls these methods, and returns what they return."""

    def __init__(self, server: OpenAIServer, wire: Wire) -> None:
        self.server, self.wire = server, wire
        self._request: ChatRequest | None = None
        self.seen: Seen | None = None
        self._is_answered = False

    @property
    def request(self) -> ChatRequest:
        assert self._request is not None, "a request for the list of models has no content"
        return self._request

    def begin(self, request: ChatRequest, seen: Seen) -> None:
        self._request, self.seen = request, seen

    def end(self) -> None:
        """Count a request as answered if it was not: its connection ends without an answer."""
        self.write(b"")

    def value(self) -> dict[str, Any]:
        """Return the correct answer as it is written in JSON."""
        if self.request.path == "/v1/images/generations":
            return pictures(self.request, self.server.picture)
        return completion(self.request, self.server.answer)

    def answer(self) -> bool:
        """Answer correctly."""
        try:
            return self.send(self.value())
        except BadRequest as error:
            return self.fail(400, str(error))

    def send(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> bool:
        """Send JSON, or bytes as they are."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.write(head(status, self.head_lines(len(body), headers)) + body, status)
        return True

    def fail(self, status: int, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None) -> bool:
        """Send an error in the form of the protocol."""
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return self.send({"error": {"message": message, "type": kind, "param": None, "code": code}}, status, headers)

    def head_lines(self, length: int | None, headers: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
        """Return the headers of an answer in JSON; the given ones replace those of the same name."""
        lines = {"Content-Type": "application/json", **({} if length is None else {"Content-Length": str(length)})}
        return list({**lines, **(headers or {})}.items())

    def write(self, data: bytes, status: int | None = None) -> None:
        """Send bytes unchanged. The first call ends the time in which the request counts in `at_once`."""
        is_first, self._is_answered = not self._is_answered, True
        if data or is_first:
            self.server.note_answer(self.seen, len(data), status, is_first)
        if data:
            try:
                self.wire.send(data)
            except OSError as error:
                raise Gone(str(error)) from None

    def close(self, *, with_reset: bool = False) -> bool:
        """End the connection where it is. Without reset, this also holds if a forked process shares the connection."""
        self.end()
        if with_reset:
            self.wire.reset()
        else:
            with contextlib.suppress(OSError):
                self.wire.socket.shutdown(socket.SHUT_RDWR)
        return False

    def pause(self, event: threading.Event, timeout_s: float | None = None) -> None:
        self.server.pause(event, timeout_s)

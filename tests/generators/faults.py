"""What the test server does to chosen requests, and the choice of requests.

OpenAIServer(faults={0: cut(), 3: status(500)})                   # by number, from 0
OpenAIServer(faults=by_attempt({0: too_many(1)}))                 # the first request of each content
OpenAIServer(faults=first_of(by_share(0.1, reset), by_share(0.2, status(503), seed=1)))
OpenAIServer(faults=lambda request: late(until=event) if "cat" in request.text else None)
"""

from __future__ import annotations

import functools
import json
import math
import struct
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any

from tests.generators.chat import ChatRequest, share_of
from tests.generators.openai_server import Exchange, Fault, Faults
from tests.servers import head

PIECE = 65_536  # bytes that are sent at once


def always(fault: Fault) -> Faults:
    return lambda request: fault


def by_attempt(faults: Mapping[int, Fault]) -> Faults:
    """Choose by how often the same content was asked before: 0 is the first time."""
    return lambda request: faults.get(request.attempt)


def by_share(share: float, fault: Fault, *, seed: int = 0, attempts: int | None = None) -> Faults:
    """Choose a share of the requests by a hash of content, attempt and seed; with `attempts`, only the first attempts."""

    def chosen(request: ChatRequest) -> Fault | None:
        if attempts is not None and request.attempt >= attempts:
            return None
        return fault if share_of("fault", seed, request.content, request.attempt) < share else None

    return chosen


def first_of(*choices: Faults) -> Faults:
    """Choose the fault of the first that chooses one."""
    return lambda request: next((fault for choice in choices if (fault := choice(request))), None)


def late(seconds: float | None = None, *, until: threading.Event | None = None, then: Fault = Exchange.answer) -> Fault:
    """Answer after a time or after an event. The end of the server sets the event."""

    def fault(exchange: Exchange) -> bool:
        exchange.pause(until or threading.Event(), seconds)
        return then(exchange)

    return fault


def status(code: int, message: str = "the server fails", **headers: str) -> Fault:
    """Answer with an error. `Retry_After="3"` sends Retry-After: 3."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda exchange: exchange.fail(code, message, headers=named)


def too_many(seconds: float, *, is_date: bool = False, code: int = 429) -> Fault:
    """Answer 429, or another status, with Retry-After: in seconds, or as an HTTP date that is at least `seconds` away.

    `Seen.not_before` notes until when nobody should ask.
    """

    def fault(exchange: Exchange) -> bool:
        now, clock = time.time(), time.monotonic()
        wait = math.ceil(now + seconds) - now if is_date else seconds
        if exchange.seen:
            exchange.seen.not_before = clock + wait
        value = formatdate(now + wait, usegmt=True) if is_date else f"{seconds:g}"
        return exchange.fail(code, "Rate limit reached.", code="rate_limit_exceeded", headers={"Retry-After": value})

    return fault


def redirect(location: str, code: int = 307) -> Fault:
    """Send the client to another address."""
    return lambda exchange: exchange.send(b"", code, {"Location": location})


def reset(exchange: Exchange) -> bool:
    """End the connection with RST before an answer."""
    return exchange.close(with_reset=True)


def close(exchange: Exchange) -> bool:
    """End the connection correctly, before an answer."""
    return exchange.close()


def cut(share: float = 0.5) -> Fault:
    """End the connection inside the body, after this share of it."""

    def fault(exchange: Exchange) -> bool:
        body = json.dumps(exchange.value()).encode()
        exchange.write(head(200, exchange.head_lines(len(body))) + body[: int(len(body) * share)], 200)
        return exchange.close()

    return fault


def _with(change: Callable[[dict[str, Any], str], Any]) -> Fault:
    """Change the correct answer; `change` gets it and the name of its list, "choices" or "data"."""

    def fault(exchange: Exchange) -> bool:
        value = exchange.value()
        return exchange.send(change(value, "choices" if "choices" in value else "data"))

    return fault


def _with_first(change: Callable[[dict[str, Any]], Any]) -> Fault:
    """Replace the first choice, or the first picture."""
    return _with(lambda value, name: {**value, name: [change(value[name][0]), *value[name][1:]]})


def _content(value: Any) -> Fault:
    def change(first: dict[str, Any]) -> dict[str, Any]:
        return (
            {**first, "message": {**first["message"], "content": value}} if "message" in first else {**first, "b64_json": value}
        )

    return _with_first(change)


MALFORMED: dict[str, Fault] = {
    "not_json": _with(lambda value, name: b"<html>Bad Gateway</html>"),
    "half_json": _with(lambda value, name: json.dumps(value).encode()[:-10]),
    "not_utf8": _with(lambda value, name: b'{"id": "\xff\xfe"}'),
    "empty": _with(lambda value, name: b""),
    "null": _with(lambda value, name: b"null"),
    "a_list": _with(lambda value, name: [value]),
    "deep": _with(lambda value, name: b"[" * 100_000 + b"]" * 100_000),
    "an_error_with_200": _with(lambda value, name: {"error": {"message": "CUDA out of memory", "code": 500}}),
    "no_choices": _with(lambda value, name: {key: one for key, one in value.items() if key != name}),
    "choices_empty": _with(lambda value, name: {**value, name: []}),
    "choices_null": _with(lambda value, name: {**value, name: None}),
    "choices_a_text": _with(lambda value, name: {**value, name: "none"}),
    "choice_null": _with_first(lambda first: None),
    "choice_empty": _with_first(lambda first: {}),
    "message_a_text": _with_first(lambda first: {**first, "message": "hello", "b64_json": {"a": 1}}),
    "content_null": _content(None),
    "content_empty": _content(""),
    "content_a_number": _content(7),
    "content_a_list": _content(["a", "b"]),
    "content_a_lone_surrogate": _content("a \ud800 b"),
    "usage_missing": _with(lambda value, name: {key: one for key, one in value.items() if key != "usage"}),
    "usage_null": _with(lambda value, name: {**value, "usage": None}),
    "usage_wrong_types": _with(lambda value, name: {**value, "usage": {"prompt_tokens": "many", "completion_tokens": -1.5}}),
    "finish_reason_null": _with_first(lambda first: {**first, "finish_reason": None}),
    "finish_reason_a_number": _with_first(lambda first: {**first, "finish_reason": 3}),
}


def malformed(name: str) -> Fault:
    """Answer 200 with a body of this name in MALFORMED."""
    return MALFORMED[name]


def refusing(text: str = "I can't help with that.") -> Fault:
    """Refuse as OpenAI's models do: `refusal` is set and the content is null."""
    return _with_first(lambda first: {**first, "message": {"role": "assistant", "content": None, "refusal": text}})


def filtered(text: str | None = None) -> Fault:
    """Answer with the finish reason of a content filter, and with the text before it, or null."""
    return _with_first(
        lambda first: {**first, "finish_reason": "content_filter", "message": {**first["message"], "content": text}}
    )


def length(words: int = 2) -> Fault:
    """Answer with the first words only and the finish reason `length`."""

    def change(first: dict[str, Any]) -> dict[str, Any]:
        text = " ".join(first["message"]["content"].split()[:words])
        return {**first, "finish_reason": "length", "message": {**first["message"], "content": text}}

    return _with_first(change)


def endless(*, every_s: float = 0.0) -> Fault:
    """Send a chunked body that never ends: 64 KB pieces as fast as the client reads, or one byte each `every_s` seconds."""

    def fault(exchange: Exchange) -> bool:
        start = b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "'
        piece = b"x" * (1 if every_s else PIECE)
        exchange.write(head(200, exchange.head_lines(None, {"Transfer-Encoding": "chunked"})) + chunk(start), 200)
        while True:  # until the client or the server closes the connection
            exchange.write(chunk(piece))
            if every_s:
                exchange.pause(threading.Event(), every_s)

    return fault


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _around_content(exchange: Exchange) -> tuple[bytes, bytes]:
    """Return the correct answer before and after its content."""
    value, mark = exchange.value(), "content of the test"
    first = (value.get("choices") or value["data"])[0]
    first.update({"message": {**first["message"], "content": mark}} if "message" in first else {"b64_json": mark})
    before, _, after = json.dumps(value).encode().partition(mark.encode())
    return before, after


def huge(size: int = 256 << 20) -> Fault:
    """Send a correct answer whose content has `size` bytes, with its length announced."""

    def fault(exchange: Exchange) -> bool:
        before, after = _around_content(exchange)
        exchange.write(head(200, exchange.head_lines(len(before) + size + len(after))) + before, 200)
        for start in range(0, size, PIECE):
            exchange.write(b"x" * min(PIECE, size - start))
        exchange.write(after)
        return True

    return fault


def gzip_bomb(size: int = 1 << 30) -> Fault:
    """Send a correct answer whose content has `size` bytes, and about a thousandth of them when compressed."""

    def fault(exchange: Exchange) -> bool:
        return exchange.send(compressed(*_around_content(exchange), size), 200, {"Content-Encoding": "gzip"})

    return fault


@functools.lru_cache(maxsize=4)
def compressed(before: bytes, after: bytes, size: int) -> bytes:
    """Return gzip of `before`, `size` times x, and `after`. One MB is compressed once and repeated, for speed."""
    whole, rest = divmod(size, 1 << 20)
    block = b"x" * (1 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
    middle = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)  # refers to nothing before it, so it may be repeated
    end = packer.compress(block[:rest] + after) + packer.flush()
    crc = zlib.crc32(before)
    for _ in range(whole):
        crc = zlib.crc32(block, crc)
    crc = zlib.crc32(block[:rest] + after, crc)
    total = (len(before) + size + len(after)) % (1 << 32)
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + start + middle * whole + end + struct.pack("<II", crc, total)

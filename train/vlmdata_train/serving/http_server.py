"""The HTTP server: its addresses, its limits, and the form of its answers."""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from vlmdata.redact import redacted
from vlmdata.untrusted import Failed, errors_as, one_line
from vlmdata_train.serving.engine import Engine
from vlmdata_train.serving.generation import Answer, Asked
from vlmdata_train.serving.logprobs import logprobs_document
from vlmdata_train.serving.prompting import Prompting
from vlmdata_train.serving.refused import Refused
from vlmdata_train.serving.request import read_question

MAX_BODY = 64_000_000  # bytes
MAX_DRAINED = 256_000_000  # bytes of a refused body that are read, so that the client can read the answer
MAX_CONNECTIONS = 128  # at once; more clients wait until one of them ends
READERS = 2  # bodies that are parsed at once, because their images take memory
IDLE_S = 60  # after this time without a byte from the client, the connection is closed
DRAIN_S = 10
WEIGHTS_HEADER = "Vlmdata-Weights"
METHODS = {"/health": "GET", "/v1/models": "GET", "/v1/chat/completions": "POST"}


class ClientLeft(ConnectionError):
    """The client has closed its connection before the answer."""


@dataclass
class Model:
    """The model that is served."""

    name: str
    weights: str  # a hash that identifies the checkpoint
    created: int  # time of the checkpoint, in seconds since 1970
    prompting: Prompting
    engine: Engine
    readers: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(READERS))

    def listed(self) -> dict[str, Any]:
        """Return the answer of /v1/models."""
        entry = {
            "id": self.name, "object": "model", "created": self.created, "owned_by": "vlmdata", "weights": self.weights,
            "max_model_len": self.prompting.context,
        }  # fmt: skip
        return {"object": "list", "data": [entry]}

    def read(self, body: bytes) -> Asked:
        """Return the prompt of a request for a chat completion. Raises Refused if it cannot be answered."""
        try:
            with self.readers:
                return self.prompting.asked(read_question(body, self.name))
        except RecursionError:
            raise Refused("the body is nested too deeply", code="invalid_json") from None

    def completion(self, asked: Asked, answer: Answer) -> dict[str, Any]:
        """Return the answer of /v1/chat/completions."""
        prompt = len(asked.prompt.input_ids)
        tokenizer = self.prompting.prompter.tokenizer
        logprobs = None if answer.scored is None else logprobs_document(answer.scored, tokenizer)
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.name,
            "system_fingerprint": self.weights,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": answer.text},
                    "logprobs": logprobs,
                    "finish_reason": answer.finish_reason,
                }
            ],
            "usage": {"prompt_tokens": prompt, "completion_tokens": answer.tokens, "total_tokens": prompt + answer.tokens},
        }


class Server(ThreadingHTTPServer):
    """A server at a socket that is bound and listens. Each connection has a thread; their number has a limit."""

    daemon_threads = True

    def __init__(self, bound: socket.socket, model: Model) -> None:
        super().__init__(bound.getsockname(), _Connection, bind_and_activate=False)
        self.socket.close()  # the one that the base class has made
        self.socket, self.model = bound, model
        self._room = threading.Semaphore(MAX_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the thread of a connection as soon as there is room for it."""
        self._room.acquire()
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system refuses another thread
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer the requests of a connection until it ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what ended a connection, but not that a client has disconnected."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError | TimeoutError):
            _report(error)


class _Connection(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server: Server
    protocol_version = "HTTP/1.1"  # with keep-alive
    timeout = IDLE_S
    disable_nagle_algorithm = True  # the body of an answer would wait for the client's acknowledgement of its header

    def answer(self) -> None:
        """Answer one request, of any method."""
        self._is_body_read = not self.headers.get("Content-Length", "0").strip("0") and "Transfer-Encoding" not in self.headers
        headers = {}
        try:
            with errors_as(Failed, passes=(Refused, ConnectionError, TimeoutError)):
                status, document = 200, self._document()
        except Refused as refused:
            status, document = refused.status, refused.document()
            if status == 405:
                headers["Allow"] = METHODS[self._place]
        except Failed as failed:
            _report(failed.args[0])
            status, document = 500, Refused("the server failed", status=500, code="server_failed").document()
        self._send(status, document, **headers)
        if not self._is_body_read:
            self._drain()

    do_GET = do_POST = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    @property
    def _place(self) -> str:
        return self.path.partition("?")[0]

    def _document(self) -> dict[str, Any]:
        if self._place not in METHODS:
            raise Refused(
                f"there is no {self._place[:200]!a} here. There is {', '.join(METHODS)}", status=404, code="not_found"
            )
        if self.command != METHODS[self._place]:
            message = f"{self._place} takes only {METHODS[self._place]}, not {self.command}"
            raise Refused(message, status=405, code="method_not_allowed")
        model = self.server.model
        if self._place == "/health":
            return {"status": "ok"}
        if self._place == "/v1/models":
            return model.listed()
        if "Origin" in self.headers:  # any page that the user of this machine reads could send requests
            raise Refused("requests of web pages, which have an Origin header, are refused", code="web_page")
        asked = model.read(self._body())
        answer = model.engine.ask(asked, self._is_connected)
        if answer is None:
            raise ClientLeft
        return model.completion(asked, answer)

    def _body(self) -> bytes:
        stated = self.headers.get_all("Content-Length") or []
        if "Transfer-Encoding" in self.headers or len(stated) != 1 or not re.fullmatch("[0-9]{1,18}", stated[0], re.ASCII):
            raise Refused("a request needs one Content-Length, and no Transfer-Encoding", code="no_length")
        length = int(stated[0])
        if length > MAX_BODY:
            raise Refused(
                f"the body has {length:,} bytes, more than the limit of {MAX_BODY:,}", status=413, code="body_too_large"
            )
        body = self.rfile.read(length)
        self._is_body_read = True
        if len(body) < length:
            raise ClientLeft
        return body

    def _is_connected(self) -> bool:
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        if not poll.poll(0):
            return True
        try:
            return bool(self.connection.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _send(self, status: int, document: dict[str, Any], **headers: str) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header(WEIGHTS_HEADER, self.server.model.weights)
        if not self._is_body_read:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _drain(self) -> None:
        """Read what the client still sends. If a connection is closed with unread bytes, the client may lose the answer."""
        with contextlib.suppress(OSError):
            self.connection.settimeout(DRAIN_S)
            self.connection.shutdown(socket.SHUT_WR)
            left = MAX_DRAINED
            while left > 0 and (data := self.rfile.read1(1 << 16)):
                left -= len(data)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that is not HTTP, or that has an unknown method."""
        status, said = (405, "method_not_allowed") if code == 501 else (400, "bad_request")
        self.close_connection, self._is_body_read = True, False
        self._send(status, Refused(message or "this is not a request", status=status, code=said).document())

    def version_string(self) -> str:
        """Return the name of the server, without the versions of its software."""
        return "vlmdata"

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing about single requests."""


def _report(error: BaseException) -> None:
    line = f"vlmdata train: a request failed: {type(error).__name__}: {one_line(error)[:300]}"
    print(redacted(line), file=sys.stderr, flush=True)

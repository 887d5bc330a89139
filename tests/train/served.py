"""A server of `vlmdata train serve` as a process, and requests to it."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

COMMAND = [sys.executable, "-m", "vlmdata_train", "serve"]
CHAT = "/v1/chat/completions"


def data_url(image: bytes) -> str:
    """Return an encoded image as an address."""
    return "data:image/jpeg;base64," + base64.b64encode(image).decode()


def shown(image: bytes) -> dict[str, Any]:
    """Return an encoded image as a part of a message."""
    return {"type": "image_url", "image_url": {"url": data_url(image)}}


def asks(text: str, *images: bytes) -> list[dict[str, Any]]:
    """Return the messages of a question about images."""
    return [{"role": "user", "content": [*map(shown, images), {"type": "text", "text": text}]}]


@contextmanager
def running(*words: str, command: list[str] = COMMAND) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a server, and yield its process and its port when it is ready. It ends with the block."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"serving .+ at http://127\.0\.0\.1:(\d+)/v1\n", line)
        assert found, line
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


class Client:
    """One connection to a server."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port)

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Return the status, the document and the headers of the answer."""
        self.connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = self.connection.getresponse()
        return response.status, json.loads(response.read() or "null"), dict(response.headers)

    def ask(self, messages: list[dict[str, Any]], **settings: Any) -> Any:
        """Return the document of an answer."""
        status, document, _ = self.request("POST", CHAT, json.dumps({"messages": messages, **settings}).encode())
        assert status == 200, document
        return document

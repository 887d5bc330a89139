"""A plain client of the test server, on http.client, for the tests of the server itself."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

CHAT = "/chat/completions"
PICTURES = "/images/generations"


def body_of(text: str = "What is it?", *images: bytes, model: str = "tester", **values: Any) -> dict[str, Any]:
    """Return the body of a request with one message of the user."""
    content: Any = text
    if images:
        urls = [f"data:image/png;base64,{base64.b64encode(one).decode()}" for one in images]
        content = [*({"type": "image_url", "image_url": {"url": url}} for url in urls), {"type": "text", "text": text}]
    return {"model": model, "messages": [{"role": "user", "content": content}], **values}


def send(
    url: str, body: Any, path: str = CHAT, headers: Mapping[str, str] | None = None
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """Send a request and return the connection and the answer, whose body is not read. The caller closes both."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request("GET" if body is None else "POST", parts.path + path, data, dict(headers or {}))
    return connection, connection.getresponse()


def ask_raw(
    url: str, body: Any, path: str = CHAT, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers with lower-case names and body of an answer. A body of None sends a GET."""
    connection, answer = send(url, body, path, headers)
    with connection.sock if connection.sock else answer, answer:
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def ask(url: str, body: Any, path: str = CHAT, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """Return the status and the parsed body of an answer."""
    status, _, data = ask_raw(url, body, path, headers)
    return status, json.loads(data)


def say(url: str, text: str = "What is it?", *images: bytes, **values: Any) -> str:
    """Return the content of a correct answer."""
    status, value = ask(url, body_of(text, *images, **values))
    assert status == 200, value
    return value["choices"][0]["message"]["content"]

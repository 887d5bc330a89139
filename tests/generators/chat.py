"""Requests and answers of the OpenAI protocol, as the test server reads and writes them.

Source of the names: the API reference of OpenAI for chat completions and images, and the server of vLLM.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

VOLATILE = ("user", "metadata", "safety_identifier", "prompt_cache_key", "store", "service_tier")  # do not change the answer
IMAGE_TOKENS = 85  # of the usage, for each image; OpenAI's price of an image in low detail


class BadRequest(Exception):
    """The request asks for what the server does not have."""


def digest(*parts: object) -> str:
    """Return 16 hexadecimal digits that depend on the texts of all parts."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def share_of(*parts: object) -> float:
    """Return a number in [0, 1) that depends on the texts of all parts, and on nothing else."""
    return int(digest(*parts), 16) / 2**64


@dataclass(frozen=True)
class ChatRequest:
    """A request that was read. `content` is a hash of its body without VOLATILE and without the order of its keys.

    `number` counts the requests of the server from 0, `attempt` those with this content. `images` are the bytes of the data:
    addresses of all messages, in order; `text` is all texts of the messages, or the prompt of a picture, joined by lines.
    `choice` is the number of the answer, from 0, if `n` answers are asked for.
    """

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    content: str
    text: str = ""
    images: tuple[bytes, ...] = ()
    number: int = -1
    attempt: int = -1
    choice: int = 0

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.body.get("messages") or []

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))

    @property
    def seed(self) -> int | None:
        return self.body.get("seed")

    @property
    def temperature(self) -> float | None:
        return self.body.get("temperature")

    @property
    def max_tokens(self) -> int | None:
        return self.body.get("max_completion_tokens", self.body.get("max_tokens"))

    @property
    def system(self) -> str:
        """The texts of the system messages."""
        return "\n".join(text for one in self.messages if one["role"] in ("system", "developer") for text in texts(one))

    @property
    def question(self) -> str:
        """The texts of the last message of the user."""
        asked = [one for one in self.messages if one["role"] == "user"]
        return "\n".join(texts(asked[-1])) if asked else self.text

    @classmethod
    def read(cls, path: str, headers: Mapping[str, str], data: bytes) -> tuple[ChatRequest, str | None]:
        """Return a request, and what is wrong with it or None."""
        try:
            body = json.loads(data)
        except ValueError as error:
            return cls(path, headers, {}, digest(path, data)), f"the body is no JSON: {error}"
        if not isinstance(body, dict):
            return cls(path, headers, {}, digest(path, data)), "the body is no JSON object"
        kept = {name: value for name, value in body.items() if name not in VOLATILE}
        found = cls(path, headers, body, digest(path, json.dumps(kept, sort_keys=True)))
        try:
            if path == "/v1/images/generations":
                return replace(found, text=_checked_prompt(body)), None
            check(body)
            text = "\n".join(text for one in body["messages"] for text in texts(one))
            return replace(found, text=text, images=tuple(data for one in body["messages"] for data in images(one))), None
        except BadRequest as error:
            return found, str(error)


def _checked_prompt(body: Mapping[str, Any]) -> str:
    if not isinstance(body.get("prompt"), str) or not body["prompt"]:
        raise BadRequest("prompt must be a text that is not empty")
    return body["prompt"]


def check(body: Mapping[str, Any]) -> None:
    """Raise BadRequest for what a server of this protocol refuses."""
    messages = body.get("messages")
    if not isinstance(body.get("model"), str):
        raise BadRequest("model must be a text")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list that is not empty")
    for one in messages:
        if not isinstance(one, dict) or one.get("role") not in ("system", "developer", "user", "assistant", "tool"):
            raise BadRequest(f"a message without a known role: {str(one)[:100]}")
        if not isinstance(one.get("content"), (str, list)) and one["role"] != "assistant":
            raise BadRequest("the content of a message must be a text or a list")
    if body.get("stream"):
        raise BadRequest("this server does not stream")
    for name, kind in (
        ("temperature", (int, float)),
        ("seed", int),
        ("max_tokens", int),
        ("max_completion_tokens", int),
        ("n", int),
    ):
        if body.get(name) is not None and (not isinstance(body[name], kind) or isinstance(body[name], bool)):
            raise BadRequest(f"{name} must be a number")


def parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the content of a message as a list of parts."""
    content = message.get("content") or []
    found = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for one in found:
        if not isinstance(one, dict) or one.get("type") not in ("text", "image_url"):
            raise BadRequest(f"a part of a message must be a text or an image_url: {str(one)[:100]}")
        if one["type"] == "text" and not isinstance(one.get("text"), str):
            raise BadRequest("the text of a part must be a text")
    return found


def texts(message: Mapping[str, Any]) -> list[str]:
    return [one["text"] for one in parts(message) if one["type"] == "text"]


def images(message: Mapping[str, Any]) -> list[bytes]:
    """Return the bytes of the images of a message. Only data: addresses are read."""
    return [_decoded(one.get("image_url")) for one in parts(message) if one["type"] == "image_url"]


def _decoded(image_url: Any) -> bytes:
    url = image_url.get("url") if isinstance(image_url, dict) else None
    kind, comma, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not (kind.startswith("data:image/") and kind.endswith(";base64") and comma):
        raise BadRequest("an image must be {'url': 'data:image/TYPE;base64,...'}")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise BadRequest(f"the data of an image is no base64: {error}") from None


@dataclass(frozen=True)
class Reply:
    """An answer. `message` adds or replaces fields of the message, as `{"reasoning_content": "..."}`.

    `first_token` has the log probabilities of the first token's alternatives, which are sent if the request asks for logprobs.
    """

    text: str | None
    finish_reason: str = "stop"
    refusal: str | None = None
    message: Mapping[str, Any] = field(default_factory=dict)
    first_token: Mapping[str, float] | None = None


def default_answer(request: ChatRequest) -> str:
    """Return a sentence that is a function of the request's content and of the number of the answer."""
    chosen = random.Random(f"{request.content} {request.choice}")
    colour, thing = chosen.choice(["red", "green", "blue", "grey"]), chosen.choice(["cube", "ball", "cone", "ring"])
    place = chosen.choice(["left", "right", "middle", "top"])
    return f"A {colour} {thing} at the {place}, answer {request.content}-{request.choice}."


def completion(request: ChatRequest, answer: Callable[[ChatRequest], str | Reply]) -> dict[str, Any]:
    """Return the JSON of a correct answer. An answer with more words than max_tokens is cut there."""
    replies = [answer(replace(request, choice=number)) for number in range(request.body.get("n") or 1)]
    choices = [_choice(number, reply, request) for number, reply in enumerate(replies)]
    asked = len(request.text.split()) + IMAGE_TOKENS * len(request.images)
    said = sum(len((one["message"]["content"] or "").split()) for one in choices)
    usage = {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
    name = f"chatcmpl-{request.content}"
    return {"id": name, "object": "chat.completion", "created": 0, "model": request.model, "choices": choices, "usage": usage}


def _choice(number: int, reply: str | Reply, request: ChatRequest) -> dict[str, Any]:
    said = reply if isinstance(reply, Reply) else Reply(reply)
    text, reason, limit = said.text, said.finish_reason, request.max_tokens
    if text is not None and limit is not None and len(text.split()) > limit:
        text, reason = " ".join(text.split()[:limit]), "length"
    message = {"role": "assistant", "content": text, "refusal": said.refusal, **said.message}
    logprobs = None
    if request.body.get("logprobs"):
        options = dict(said.first_token or {(text or "").partition(" ")[0]: 0.0})
        ranked = sorted(options.items(), key=lambda one: -one[1])
        listed = [{"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in ranked]
        logprobs = {"content": [{**listed[0], "top_logprobs": listed[: request.body.get("top_logprobs") or 0]}]}
    return {"index": number, "message": message, "logprobs": logprobs, "finish_reason": reason}


def default_picture(request: ChatRequest) -> bytes:
    """Return a PNG of 4 x 4 coloured fields, a function of the request's content, in the size asked for (default 64 x 64)."""
    width, _, height = str(request.body.get("size") or "64x64").partition("x")
    if not (width.isdigit() and height.isdigit() and 0 < int(width) <= 1024 and 0 < int(height) <= 1024):
        raise BadRequest("size must be WIDTHxHEIGHT, each from 1 to 1024")
    fields = Image.frombytes("RGB", (4, 4), random.Random(f"{request.content} {request.choice}").randbytes(48))
    file = io.BytesIO()
    fields.resize((int(width), int(height)), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def pictures(request: ChatRequest, picture: Callable[[ChatRequest], bytes]) -> dict[str, Any]:
    """Return the JSON of a correct answer with pictures."""
    made = [picture(replace(request, choice=number)) for number in range(request.body.get("n") or 1)]
    return {"created": 0, "data": [{"b64_json": base64.b64encode(one).decode()} for one in made]}

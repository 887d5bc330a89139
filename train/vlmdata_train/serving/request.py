"""Reads the body of a request for a chat completion, and checks it. Nothing in a body is trusted."""

from __future__ import annotations

import base64
import json
import re
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlmdata.images.budget import MAX_COST, decoding_cost
from vlmdata.images.decode import decode
from vlmdata.images.facts import ImageError
from vlmdata.untrusted import one_line, shown
from vlmdata_train.model.decoding import Decoding
from vlmdata_train.serving.refused import Refused

MAX_TOKENS = 256  # of an answer, if the request states no number; the default of `chat` too
MAX_STOPS = 4  # as in OpenAI's API
MAX_ALTERNATIVES = 20  # of a token, as in OpenAI's API
ROLES = ("system", "user", "assistant")
READ = ("messages", "model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop",
        "logprobs", "top_logprobs")  # fmt: skip
IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "stream_options")
# parameters that are not supported, and their values that change nothing
NEUTRAL: dict[str, Any] = {
    "stream": False, "n": 1, "frequency_penalty": 0, "presence_penalty": 0, "logit_bias": {},
    "response_format": {"type": "text"}, "tools": [], "tool_choice": "none", "modalities": ["text"],
}  # fmt: skip
HINTS = {
    "stream": "answers are not streamed, so `stream` must be false",
    "n": "`n` must be 1, because a request has one answer",
}
_DATA_URL = re.compile(r"data:[^,;]*(;[^,;]*)*?;base64,", re.IGNORECASE)

Part = str | bytes  # a text, or an encoded image that can be decoded


@dataclass(frozen=True)
class Message:
    """One message of a conversation. Its role is one of ROLES."""

    role: str
    parts: list[Part]


@dataclass(frozen=True)
class Question:
    """A request for a chat completion whose values are all valid."""

    messages: list[Message]
    decoding: Decoding
    max_tokens: int
    stop: tuple[str, ...]
    alternatives: int | None = None  # of each token, which are sent with their probabilities; None: no probabilities


def read_question(body: bytes, model: str) -> Question:
    """Return the request, in a body of JSON, to the model with this name.

    Raises Refused if a value cannot be used, and RecursionError if the JSON is nested too deeply.
    Each image is decoded once, because a batch shows a grey image in place of one that cannot be decoded.
    """
    request = _json(body)
    _check_names(request, model)
    temperature, top_p = _number(request, "temperature"), _number(request, "top_p")
    if top_p is None or (temperature == 0 and 0 < top_p <= 1):  # the most likely token is among the tokens of any top_p
        top_p = 1.0
    try:
        decoding = Decoding(temperature, top_p=top_p, seed=_seed(request))
    except ValueError as error:
        raise Refused(str(error), code="invalid_value") from None
    return Question(_messages(request.get("messages")), decoding, _max_tokens(request), _stops(request), _alternatives(request))


def _json(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except ValueError as error:
        raise Refused(f"the body is not JSON: {one_line(error)[:200]}", code="invalid_json") from None
    if not isinstance(request, dict):
        raise Refused("the body must be a JSON object", code="invalid_json")
    return request


def _check_names(request: Mapping[str, Any], model: str) -> None:
    """Raise Refused for another model, and for a parameter that would change the answer but is not supported."""
    asked = request.get("model")
    if asked not in (None, "", model):
        raise Refused(
            f"there is no model {shown(asked)}. This server has the model '{model}'", status=404, code="model_not_found"
        )
    for name, value in request.items():
        if name in READ or name in IGNORED or value is None:
            continue
        neutral = NEUTRAL.get(name)
        if name in NEUTRAL and value == neutral and isinstance(value, bool) == isinstance(neutral, bool):
            continue
        raise Refused(HINTS.get(name, f"the parameter {shown(name)} is not supported"), code="unsupported_parameter")


def _number(request: Mapping[str, Any], name: str) -> float | None:
    value = request.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"`{name}` must be a number, not {shown(value)}", code="invalid_type")
    return float(max(min(value, sys.float_info.max), -sys.float_info.max)) if isinstance(value, int) else value


def _whole(request: Mapping[str, Any], name: str) -> int | None:
    value = request.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise Refused(f"`{name}` must be an integer, not {shown(value)}", code="invalid_type")
    return value


def _seed(request: Mapping[str, Any]) -> int:
    """Return the seed of the request, or a random one."""
    seed = _whole(request, "seed")
    return secrets.randbits(63) if seed is None else seed


def _max_tokens(request: Mapping[str, Any]) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        if (value := _whole(request, name)) is not None:
            if value < 1:
                raise Refused(f"`{name}` must be 1 or more, not {shown(value)}", code="invalid_value")
            return value
    return MAX_TOKENS


def _stops(request: Mapping[str, Any]) -> tuple[str, ...]:
    value = request.get("stop")
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(stop, str) and stop for stop in stops):
        raise Refused(
            f"`stop` must be a string or a list of at most {MAX_STOPS} strings that are not empty", code="invalid_value"
        )
    return tuple(stops)


def _alternatives(request: Mapping[str, Any]) -> int | None:
    is_wanted, count = request.get("logprobs"), _whole(request, "top_logprobs")
    if not isinstance(is_wanted, bool | None):
        raise Refused(f"`logprobs` must be true or false, not {shown(is_wanted)}", code="invalid_type")
    if count is not None and not 0 <= count <= MAX_ALTERNATIVES:
        raise Refused(f"`top_logprobs` must be from 0 to {MAX_ALTERNATIVES}, not {shown(count)}", code="invalid_value")
    if count and not is_wanted:
        raise Refused("`top_logprobs` needs `logprobs`, which must be true", code="invalid_value")
    return (count or 0) if is_wanted else None


def _messages(value: Any) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise Refused("`messages` must be a list with at least one message", code="invalid_type")
    messages, left = [], float(MAX_COST)
    for number, message in enumerate(value):
        where = f"messages[{number}]"
        if not isinstance(message, dict):
            raise Refused(f"{where} must be an object, not {shown(message)}", code="invalid_type")
        if message.get("role") not in ROLES:
            raise Refused(
                f"{where}.role must be one of {', '.join(ROLES)}, not {shown(message.get('role'))}", code="invalid_value"
            )
        others = [name for name, held in message.items() if name not in ("role", "content") and held not in (None, [])]
        if others:
            raise Refused(f"{where} has the key {shown(others[0])}, which is not supported", code="unsupported_parameter")
        parts, left = _parts(message.get("content"), f"{where}.content", left)
        messages.append(Message(message["role"], parts))
    return messages


def _parts(content: Any, where: str, left: float) -> tuple[list[Part], float]:
    """Return the parts of a message, and how many units of cost are left for the images of the messages after it."""
    if isinstance(content, str):
        return [content], left
    if not isinstance(content, list):
        raise Refused(f"{where} must be a string or a list of parts, not {shown(content)}", code="invalid_type")
    parts: list[Part] = []
    for number, part in enumerate(content):
        here = f"{where}[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            parts.append(part["text"])
        elif kind == "image_url":
            image, left = _image(part.get("image_url"), here, left)
            parts.append(image)
        else:
            raise Refused(f"{here} must be a part of the type text or image_url, not {shown(part)}", code="invalid_type")
    return parts, left


def _image(value: Any, where: str, left: float) -> tuple[bytes, float]:
    url = value.get("url") if isinstance(value, dict) else None
    if not isinstance(url, str):
        raise Refused(f'{where}.image_url must be an object {{"url": "data:..."}}', code="invalid_type")
    found = _DATA_URL.match(url[:200])
    if not found:
        reason = "must be a data: URL with base64. The server opens no address and no file"
        raise Refused(f"{where}.image_url.url {reason}", code="invalid_image_url")
    try:
        data = base64.b64decode(url[found.end() :].encode("ascii"), validate=True)
    except ValueError:
        raise Refused(f"{where}.image_url.url is not valid base64", code="invalid_image") from None
    try:
        left -= decoding_cost(decode(data, max_cost=left).header)
    except ImageError as error:
        raise Refused(f"{where}: the image cannot be used: {one_line(error)[:300]}", code="invalid_image") from None
    return data, left

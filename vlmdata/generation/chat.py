"""Requests and answers of the OpenAI protocol for chat completions.

Source of the names: the API reference of OpenAI, "Create chat completion".
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlmdata.generator import Prompt, Sampling
from vlmdata.models.first_token import ONE_TOKEN, TOP

TYPES = ((b"\x89PNG", "png"), (b"RIFF", "webp"))  # first bytes of an image: its media type; others are JPEGs
OPTIONAL = frozenset({"temperature", "top_p", "seed"})  # fields that `extra_body` may leave out, by null
# names that it must not replace
OWN = frozenset({"messages", "model", "n", "stream", "max_tokens", "max_completion_tokens", "logprobs"})
MOST_TOKENS = 100_000_000  # of one request; a server that counts more is wrong
FINISHES = {"length": "length", "content_filter": "filter"}  # all other reasons mean that the model ended the answer


class Malformed(Exception):
    """A body that is not an answer of the protocol."""


@dataclass(frozen=True)
class Completion:
    """An answer as the server sent it.

    `usage` holds the tokens of the prompt and of the answer, or None if it is missing. `first_tokens` holds the alternatives of
    the first token with their probabilities, or None if the server sent no logprobs.
    """

    text: str
    finish: str
    usage: tuple[int, int] | None
    model: str
    fingerprint: str
    first_tokens: list[tuple[str, float]] | None = None


def request(prompt: Prompt, sampling: Sampling, model: str, max_tokens_name: str, extra: Mapping[str, Any]) -> bytes:
    """Return the body of a request. The images come before the text.

    A prompt with choices asks for one token and the probabilities of its alternatives.
    """
    if prompt.choices:
        sampling = ONE_TOKEN
        extra = {"logprobs": True, "top_logprobs": TOP, **extra}
    else:
        extra = {name: value for name, value in extra.items() if name != "top_logprobs"}
    images = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in prompt.images]
    content = [*images, {"type": "text", "text": prompt.text}] if images else prompt.text
    messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
    body = {
        "model": model,
        "messages": [*messages, {"role": "user", "content": content}],
        max_tokens_name: sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": prompt.seed,
        **extra,
    }
    kept = {name: value for name, value in body.items() if value is not None or name not in OPTIONAL}
    return json.dumps(kept).encode()


def _data_url(image: bytes) -> str:
    kind = next((kind for start, kind in TYPES if image.startswith(start)), "jpeg")
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def completion(data: bytes, *, reads_tokens: bool = False) -> Completion:
    """Return the first choice of an answer. Raises Malformed, with what is wrong, for every other body.

    `first_tokens` is read only if `reads_tokens` is true.
    """
    body = _parsed(data)
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise Malformed(error_words(data)[0] if body.get("error") else "the answer has no choices")
    reason = choice.get("finish_reason")
    if not isinstance(reason, str | None):
        raise Malformed("finish_reason is not a text")
    text, refusal = _text(message.get("content"))
    if isinstance(message.get("refusal"), str):
        refusal = message["refusal"] or refusal
    usage = _usage(body.get("usage"))
    model, fingerprint = (_name(body.get(name)) for name in ("model", "system_fingerprint"))
    if refusal:
        return Completion(_clean(refusal), "refusal", usage, model, fingerprint)
    finish = FINISHES.get(reason or "", "stop")
    if text is None and finish == "stop":
        raise Malformed("the content is null")
    tokens = _first_tokens(choice.get("logprobs")) if reads_tokens else None
    return Completion(_clean(text or ""), finish, usage, model, fingerprint, tokens)


def error_words(data: bytes) -> tuple[str, str]:
    """Return the message and the code of an error. A body of another form is the message."""
    try:
        body = _parsed(data)
    except Malformed:
        return data[:1000].decode("utf-8", "replace"), ""
    error = body.get("error", body)
    if not isinstance(error, dict):
        return str(error), ""
    message = error.get("message") or error.get("detail") or ""
    return message if isinstance(message, str) else json.dumps(message), str(error.get("code") or "")


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed("the answer is not JSON") from None
    if not isinstance(body, dict):
        raise Malformed("the answer is not a JSON object")
    return body


def _text(content: Any) -> tuple[str | None, str]:
    """Return the text of a message's content and the refusal in it. Some servers send a list of parts."""
    if not isinstance(content, list):
        if not isinstance(content, str | None):
            raise Malformed("the content is not a text")
        return content, ""
    found: dict[str, list[str]] = {"text": [], "refusal": []}
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise Malformed("a part of the content is not an object with a type")
        if kind in found:
            if not isinstance(part.get(kind), str):
                raise Malformed(f"a part of the content has no {kind}")
            found[kind].append(part[kind])
    return "".join(found["text"]), "".join(found["refusal"])


def _first_tokens(logprobs: Any) -> list[tuple[str, float]] | None:
    """Return the alternatives of the first token, each with its probability, or None if there are none."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list) or not content:
        return None
    first = content[0] if isinstance(content[0], dict) else {}
    listed = first.get("top_logprobs")
    others = [_alternative(one) for one in listed] if isinstance(listed, list) else []
    own = _alternative(first)
    found = others if own[0] in (token for token, _ in others) else [own, *others]
    if sum(probability for _, probability in found) > 1.01:
        raise Malformed("the probabilities of the first token add up to more than 1")
    return found


def _alternative(one: Any) -> tuple[str, float]:
    token, value = (one.get("token"), one.get("logprob")) if isinstance(one, dict) else (None, None)
    if not isinstance(token, str) or not isinstance(value, int | float) or isinstance(value, bool):
        raise Malformed("logprobs does not hold tokens with numbers")
    if not value <= 1e-3:  # rounding may give a little more than 0; NaN is not allowed
        raise Malformed("logprobs holds a number that is no logarithm of a probability")
    return token, math.exp(max(value, -1e3))


def _usage(usage: Any) -> tuple[int, int] | None:
    if usage is None:
        return None
    found = usage if isinstance(usage, dict) else {}
    return _tokens(found.get("prompt_tokens")), _tokens(found.get("completion_tokens"))


def _tokens(count: Any) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MOST_TOKENS:
        raise Malformed("usage does not hold two numbers of tokens")
    return count


def _name(value: Any) -> str:
    return _clean(value) if isinstance(value, str) else ""


def _clean(text: str) -> str:
    """Return the text with "?" in place of lone surrogates, which UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode()

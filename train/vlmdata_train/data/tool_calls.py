"""Convert tool calls to the form that chat templates accept.

This is OpenAI's form, which transformers documents, with variants for some models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_SHORT = re.compile("[A-Za-z0-9]{9}")


def read_call(text: str) -> dict[str, Any]:
    """Return the tool call in a JSON text: an object with `name` and `arguments`. Raises ValueError for any other text."""
    try:
        call = json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise ValueError("the tool call has no name")
    return call


def shown_call(call: Mapping[str, Any], *, as_text: bool = False) -> dict[str, Any]:
    """Return a tool call in OpenAI's form. With `as_text`, its arguments are a JSON string instead of an object."""
    named = {"id": call["id"]} if call.get("id") is not None else {}
    arguments = call.get("arguments", {})
    if as_text and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {**named, "type": "function", "function": {"name": call["name"], "arguments": arguments}}


def with_short_ids(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with an id of nine letters and digits for each tool call and for the tool message that answers it.

    An id that already has this form is kept. A tool message that names no known call gets the id of the next call in order.
    """
    known: dict[str, str] = {}
    order: list[str] = []
    answered = 0
    shown = []
    for message in map(dict, messages):
        calls = []
        for call in message.get("tool_calls") or []:
            original = str(call.get("id", ""))
            order.append(original if _SHORT.fullmatch(original) else f"c{len(order):08d}")
            known[original] = order[-1]
            calls.append({**call, "id": order[-1]})
        if calls:
            message["tool_calls"] = calls
        if message["role"] == "tool" and answered < len(order):
            original = str(message.get("tool_call_id", ""))
            message["tool_call_id"] = known[original] if original and original in known else order[answered]
            answered += 1
        shown.append(message)
    return shown

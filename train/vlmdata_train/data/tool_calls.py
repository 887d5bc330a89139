"""Tool calls in the form that chat templates accept: OpenAI's, as transformers documents it, with variants for some models."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_SHORT = re.compile("[A-Za-z0-9]{9}")


def read_call(text: str) -> dict[str, Any]:
    """Read a tool call, its name and arguments, from JSON. Raises ValueError if it is none."""
    try:
        call = json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise ValueError("a tool call without a name")
    return call


def shown_call(call: Mapping[str, Any], *, as_text: bool = False) -> dict[str, Any]:
    """Return a tool call in OpenAI's form. Its arguments are an object, or JSON text if `as_text`."""
    named = {"id": call["id"]} if call.get("id") is not None else {}
    arguments = call.get("arguments", {})
    if as_text and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {**named, "type": "function", "function": {"name": call["name"], "arguments": arguments}}


def with_short_ids(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give each tool call an id of nine letters and digits, and each tool's answer the id of its call.

    An id that already has this form stays. An answer that names no call answers the next one in order.
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

"""Convert tool calls and tool schemas from the forms of published datasets to one form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vlmdata.readers.strings import clean

OFFERS = ("tools", "functions")  # fields of a record that hold its tools: OpenAI's current and earlier name


class Unfit(ValueError):
    """The error for a conversation that cannot be used. The message is the reason for the ledger."""


def calls_of(value: Any, *, nulls: bool = True) -> list[str]:
    """Return each call as JSON text with the fields `name` and `arguments` (an object). If the call has an id, add `id`.

    `value` is a call, a list of calls, or JSON text of either. A call has OpenAI's form {"id", "type", "function": {...}}, or
    is an object with a name and arguments. The arguments may also be JSON text. If `nulls` is False, nulls in the arguments
    are removed, because Parquet adds the fields of all other rows as nulls. Raises Unfit for other values.
    """
    found = _parsed(value, "bad_tool_call")
    return [_call(one, nulls) for one in (found if isinstance(found, list) else [found])]


def _call(call: Any, nulls: bool) -> str:
    if not isinstance(call, Mapping) or call.get("type") not in (None, "function"):
        raise Unfit("bad_tool_call")
    inner = call["function"] if isinstance(call.get("function"), Mapping) else call
    name = inner.get("name")
    arguments = next((inner[one] for one in ("arguments", "parameters") if inner.get(one) is not None), None)
    arguments = {} if arguments is None or arguments == "" else _parsed(arguments, "bad_tool_call")
    identity = call.get("id")
    is_named = isinstance(name, str) and name.strip() and isinstance(identity, str | None)
    if not is_named or not isinstance(arguments, Mapping):
        raise Unfit("bad_tool_call")
    made = {"name": name, "arguments": arguments if nulls else _without_nulls(arguments)}
    return json_text({**made, "id": identity} if identity else made, "bad_tool_call")


def tools_of(record: Mapping[str, Any], *, nulls: bool = True) -> tuple[str | None, str | None]:
    """Return the tools of a record as JSON text of a list of schemas, and the name of the field that holds the tools.

    The field holds a list, one schema, or JSON text of either. Items of a list may also be JSON text. Raises Unfit for other
    values. If the field holds no tool, the JSON text is None. If there is no such field, the name is None too. If `nulls` is
    False, nulls in the schemas are removed.
    """
    name = next((one for one in OFFERS if record.get(one)), None)
    if name is None:
        return None, None
    found = _parsed(record[name], "bad_tools") if _is_not_blank(record[name]) else None
    tools = [_parsed(one, "bad_tools") for one in (found if isinstance(found, list) else [found] if found else [])]
    if not all(isinstance(one, Mapping) and _is_schema(one) for one in tools):
        raise Unfit("bad_tools")
    return (json_text(tools if nulls else _without_nulls(tools), "bad_tools") if tools else None), name


def checked_tools(given: Any) -> list[Any] | None:
    """Return the list of tools in the JSON of a sample from vlmdata, or None if it is missing or empty.

    Raises Unfit for another shape.
    """
    if given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(one, Mapping) and _is_schema(one) for one in given):
        raise Unfit("bad_tools")
    return given or None


def _is_not_blank(value: Any) -> bool:
    return not isinstance(value, str) or bool(value.strip())


def _is_schema(tool: Mapping[str, Any]) -> bool:
    """Say whether a tool is a function with a name, bare or in OpenAI's wrapper."""
    inner = tool["function"] if isinstance(tool.get("function"), Mapping) else tool
    return isinstance(inner.get("name"), str)


def _parsed(value: Any, reason: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise Unfit(reason) from None


def json_text(value: Any, reason: str) -> str:
    """Return a value as JSON text.

    Raises Unfit with `reason` for bytes, NaN and other values that JSON lacks, and with `bad_encoding` for an unpaired
    surrogate.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise Unfit(reason) from None
    if clean(text) != text:
        raise Unfit("bad_encoding")
    return text


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value

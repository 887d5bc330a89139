"""Conversations of a dataset as the records of chat formats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vlmdata.exporting.exporter import Sample, Unsuitable
from vlmdata.fields import FIELDS, renamed
from vlmdata.readers.dialogue import UNREAD, laid_out, read_dialogue
from vlmdata.readers.place_images import PLACEHOLDER
from vlmdata.readers.tool_calls import OFFERS, Unfit

Grouped = list[tuple[str, dict[str, Any], list[tuple[str, str | None]]]]

# Fields of a chat record that its readers take as a part of the conversation.
OF_CHATS = frozenset(("messages", "conversations", "image", "images", "system", *OFFERS, *UNREAD))


def conversation_of(sample: Sample, prompt: str) -> dict[str, Any]:
    """Return the JSON of a conversation. A caption pair becomes one: the image and `prompt`, then the caption.

    A column of the source that a reader would take as a part of the conversation, such as `system`, is called `column_system`.
    Raises Unsuitable for a caption pair with a blank caption.
    """
    own = renamed({name: value for name, value in sample.facts.items() if name not in FIELDS}, OF_CHATS)
    if sample.kind != "captions":
        return {**{name: value for name, value in sample.facts.items() if name in FIELDS}, **own}
    text = sample.members["txt"].decode()
    if not text.strip():
        raise Unsuitable("it has no caption")
    metadata = [{"file": next(iter(sample.images))}, None, None]
    return {**own, "roles": ["user", "user", "assistant"], "texts": [None, prompt, text], "metadata": metadata}


def image_paths(sample: Sample) -> dict[str, str]:
    """Return the path of each image member in an export with image files: `images/ab/abcd….0.jpg`."""
    return {name: f"images/{sample.key[:2]}/{sample.key}.{name}" for name in sample.images}


def record_of(facts: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    """Return a sample as a record: `messages`, `images`, `tools` and the source's other columns.

    A sample without images has no `images`, and a sample without tools has no `tools`. `facts` is the sample's JSON. `paths`
    maps the names of the sample's image members to paths of files. Raises Unsuitable if the format cannot hold the sample.
    """
    shown = [paths[place["file"]] for place in facts["metadata"] if place]
    record: dict[str, Any] = {"messages": [_message(*one) for one in grouped(facts)]}
    record |= {"images": shown} if shown else {}
    record |= {"tools": facts["tools"]} if facts.get("tools") else {}
    return record | {name: value for name, value in facts.items() if name not in FIELDS and name not in record}


def grouped(facts: Mapping[str, Any]) -> Grouped:
    """Return (role, facts, parts) for each message. A part is (kind, text), such as ("text", "Hi") or ("image", None)."""
    found: Grouped = []
    turns = facts.get("turns") or [None] * len(facts["roles"])
    for role, text, turn in zip(facts["roles"], facts["texts"], turns, strict=True):
        own = dict(turn or {})
        kind = own.pop("kind", "image" if text is None else "text")
        if own.pop("begins", False) or not found or found[-1][0] != role:
            found.append((role, own, []))
        found[-1][2].append((kind, text))
    return found


def _message(role: str, own: Mapping[str, Any], positions: Sequence[tuple[str, str | None]]) -> dict[str, Any]:
    calls = [_call(text) for kind, text in positions if kind == "tool_call"]
    if calls and any(kind != "tool_call" for kind, _ in positions[-len(calls) :]):
        raise Unsuitable("a message continues after its tool call, and tool calls must be at the end")
    content = list(positions[: len(positions) - len(calls)])
    message: dict[str, Any] = {"role": role}
    if content and content[0][0] == "reasoning":
        message["reasoning_content"] = content.pop(0)[1]
    parts = [{"type": "image"} if kind == "image" else {"type": "text", "text": text} for kind, text in content]
    parts = [
        {"type": "thinking", "thinking": text} if kind == "reasoning" else p
        for p, (kind, text) in zip(parts, content, strict=True)
    ]
    is_plain = len(content) == 1 and content[0][0] == "text" and PLACEHOLDER not in (content[0][1] or "")
    message["content"] = content[0][1] if is_plain else (parts or None)
    message |= {"tool_calls": calls} if calls else {}
    message |= {name: own[name] for name in ("name", "tool_call_id") if name in own}
    return message if own.get("train", True) else {**message, "weight": 0}


def _call(text: str | None) -> dict[str, Any]:
    try:
        call = json.loads(text or "")
        function = {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Unsuitable("a tool call is not JSON with 'name' and 'arguments'. Did a step change it?") from None
    identity = {"id": call["id"]} if "id" in call else {}
    return {**identity, "type": "function", "function": function}


def shown_images(facts: Mapping[str, Any]) -> list[str]:
    """Return the names of the image members that a conversation shows, in order."""
    return [place["file"] for place in facts["metadata"] if place]


def with_placeholders(
    facts: Mapping[str, Any], paths: Mapping[str, str], *, role: str, content: str, roles: Mapping[str, str], after: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a conversation as (turns, paths of its images), with `<image>` in the texts, as LLaVA and others write it.

    `role` and `content` are the names of a turn's fields, and `roles` has the format's names for roles. `after` is the text
    between an image and the text after it. Tool calls are a turn of the role `function_call`. Raises Unsuitable for a
    conversation that the source would read back as another one. White space beside an image does not count.
    """
    turns = [_turn(role, content, roles, after, *one) for one in grouped(facts)]
    images = [paths[name] for name in shown_images(facts)]
    record: dict[str, Any] = {"turns": turns, "images": images}
    try:
        found = read_dialogue(record, ["turns"], ["images"], lambda where: {"file": where})
    except Unfit as reason:
        raise Unsuitable(f"a reader of this format would refuse it: {reason}") from None
    positions, speakers, said = laid_out(found.messages)
    back = {"roles": speakers, "texts": [part if isinstance(part, str) else None for part in positions], "turns": said}
    if _plain(grouped(back)) != _plain(grouped(facts)):
        raise Unsuitable("a reader of this format would read other texts, such as `<image>` in a text as an image")
    return turns, images


def _turn(
    role: str, content: str, roles: Mapping[str, str], after: str, speaker: str, own: Mapping[str, Any], parts: Sequence[Any]
) -> dict[str, Any]:
    parts, turn = list(parts), {}
    if parts[0][0] == "reasoning":
        turn["reasoning_content"] = parts.pop(0)[1]
    turn |= {name: own[name] for name in ("name", "tool_call_id") if name in own}
    turn |= {} if own.get("train", True) else {"loss": False}
    kinds = {kind for kind, _ in parts}
    if kinds == {"tool_call"}:
        calls = [json.loads(text or "") for _, text in parts]
        value = json.dumps(calls if len(calls) > 1 else calls[0], ensure_ascii=False)
        return {role: "function_call", content: value, **turn}
    if not kinds <= {"text", "image"}:
        raise Unsuitable("a message has reasoning or a tool call beside a text, which this format cannot hold")
    value = ""
    for number, (kind, text) in enumerate(parts):
        is_after_image = number > 0 and parts[number - 1][0] == "image"
        value += PLACEHOLDER if kind == "image" else f"{after if is_after_image else ''}{text}"
    return {role: roles.get(speaker, speaker), content: value, **turn}


def _plain(messages: Grouped) -> Any:
    """Return messages in a form that can be compared: without white space beside images, and calls as JSON values."""
    found = []
    for role, own, parts in messages:
        kept = []
        for number, (kind, text) in enumerate(parts):
            beside = [one[0] for one in (*parts[max(number - 1, 0) : number], *parts[number + 1 : number + 2])]
            text = text.strip() if text is not None and kind == "text" and "image" in beside else text
            if text != "" or len(parts) == 1 or kind != "text":
                kept.append((kind, json.loads(text or "") if kind == "tool_call" else text))
        found.append((role, dict(own), kept))
    return found

"""Export conversations as chat messages in OpenAI's format, which the source `messages` reads back without loss."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmdata.exporting.draft import Draft, ShardRecord
from vlmdata.exporting.exporter import Exporter, Sample, Shard, Unsuitable
from vlmdata.fields import FIELDS

LIST = "messages.jsonl"


@dataclass(frozen=True, kw_only=True)
class Messages(Exporter):
    """Write all samples to messages.jsonl, one line each, and write their images to the folder `images` next to that file."""

    holds = ("conversations",)

    def write_shard(self, shard: Shard, draft: Draft) -> dict[str, Any]:
        def line_of(sample: Sample) -> str:
            names = {name: f"images/{sample.key[:2]}/{sample.key}.{name}" for name in sample.images}
            record = record_of(sample.facts, names)
            for name, path in names.items():
                (draft.files / path).parent.mkdir(parents=True, exist_ok=True)
                (draft.files / path).write_bytes(sample.members[name])
            return json.dumps(record, ensure_ascii=False) + "\n"

        with draft.part(shard.number).open("w", encoding="utf-8") as part:
            part.writelines(shard.each(line_of))
        return {}

    def finish(self, draft: Draft, records: Iterable[ShardRecord]) -> None:
        draft.join(LIST, sum(1 for _ in records))


def record_of(facts: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    """Return a sample as a record: `messages`, `images`, `tools` and the source's other columns.

    A sample without images has no `images`, and a sample without tools has no `tools`. `facts` is the sample's JSON. `paths`
    maps the names of the sample's image members to paths of files. Raises Unsuitable if the format cannot hold the sample.
    """
    shown = [paths[place["file"]] for place in facts["metadata"] if place]
    record: dict[str, Any] = {"messages": [_message(*one) for one in _grouped(facts)]}
    record |= {"images": shown} if shown else {}
    record |= {"tools": facts["tools"]} if facts.get("tools") else {}
    return record | {name: value for name, value in facts.items() if name not in FIELDS and name not in record}


def _grouped(facts: Mapping[str, Any]) -> list[tuple[str, dict[str, Any], list[tuple[str, str | None]]]]:
    """Return (role, facts, parts) for each message. A part is (kind, text), such as ("text", "Hi") or ("image", None)."""
    grouped: list[tuple[str, dict[str, Any], list[tuple[str, str | None]]]] = []
    turns = facts.get("turns") or [None] * len(facts["roles"])
    for role, text, turn in zip(facts["roles"], facts["texts"], turns, strict=True):
        own = dict(turn or {})
        kind = own.pop("kind", "image" if text is None else "text")
        if own.pop("begins", False) or not grouped or grouped[-1][0] != role:
            grouped.append((role, own, []))
        grouped[-1][2].append((kind, text))
    return grouped


def _message(role: str, own: Mapping[str, Any], positions: Sequence[tuple[str, str | None]]) -> dict[str, Any]:
    calls = [_call(text) for kind, text in positions if kind == "tool_call"]
    if calls and any(kind != "tool_call" for kind, _ in positions[-len(calls) :]):
        raise Unsuitable("a message continues after its tool call, and in the format 'messages' tool calls are at the end")
    content = list(positions[: len(positions) - len(calls)])
    message: dict[str, Any] = {"role": role}
    if content and content[0][0] == "reasoning":
        message["reasoning_content"] = content.pop(0)[1]
    parts = [{"type": "image"} if kind == "image" else {"type": "text", "text": text} for kind, text in content]
    parts = [
        {"type": "thinking", "thinking": text} if kind == "reasoning" else p
        for p, (kind, text) in zip(parts, content, strict=True)
    ]
    is_plain = len(content) == 1 and content[0][0] == "text"
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

"""Conversations as Parquet with the columns `messages` and `images`, as TRL and others read them.

A message has `role` and `content`, a list of parts with `type` and `text`. Fields that only some conversations have, such as
`tool_calls`, are in the files only if a conversation of the dataset has them, because templates of models test whether a
message has such a field, and take a null for one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from vlmdata.exporting.conversations import conversation_of, record_of, shown_images
from vlmdata.exporting.draft import Draft, ShardRecord
from vlmdata.exporting.exporter import Sample, Shard
from vlmdata.exporting.image_columns import IMAGE, TEXT, image_cell, list_of, parquet_name, schema_of, write_parquet

PART = {"type": TEXT, "text": TEXT}
CALL = {"id": TEXT, "type": TEXT, "function": {"name": TEXT, "arguments": TEXT}}
OPTIONAL: dict[str, Any] = {  # fields of a message
    "reasoning_content": TEXT,
    "tool_calls": list_of(CALL),
    "name": TEXT,
    "tool_call_id": TEXT,
    "weight": {"dtype": "int64", "_type": "Value"},
}
COLUMNS = {  # what each column holds, for the card
    "messages": "the conversation: `role` and `content`, a list of parts with `type` and `text`",
    "images": "the images of the parts with the type `image`, in order",
    "tools": "JSON text: the functions that the model can call; only if a conversation has some",
    "json": "JSON text: addresses, sizes and hashes of the images, scores, and the source's other columns",
}


class Wider(Exception):
    """Raised for a row with fields that the schema of its file lacks."""

    def __init__(self, fields: set[str]) -> None:
        super().__init__(fields)
        self.fields = fields


def features(fields: Iterable[str]) -> dict[str, Any]:
    """Return the columns for `schema_of`. `fields` names optional fields of messages, and "tools" for the column of tools."""
    fields = set(fields)
    message = {"role": TEXT, "content": list_of(PART), **{name: kind for name, kind in OPTIONAL.items() if name in fields}}
    tools = {"tools": TEXT} if "tools" in fields else {}
    return {"messages": list_of(message), "images": list_of(IMAGE), **tools, "json": TEXT}


def write_shard(shard: Shard, draft: Draft, prompt: str) -> dict[str, Any]:
    """Write the Parquet file of a shard, and return the names of its optional fields.

    If a row has a field that no row before it had, the file is begun again with this field.
    """
    (draft.files / "data").mkdir(exist_ok=True)
    path, fields = draft.files / parquet_name(shard.number, shard.count), set[str]()
    while True:
        shard.left_out.clear()
        try:
            rows = _checked(shard.each(lambda sample: row_of(sample, prompt)), fields)
            write_parquet(path, rows, schema_of(features(fields)))
        except Wider as more:
            fields |= more.fields
        else:
            return {"fields": sorted(fields), "file": str(path.relative_to(draft.files))}


def finish(draft: Draft, records: Iterable[ShardRecord]) -> None:
    """Give all files the same columns. A file that has them already is not touched."""
    fields: set[str] = set()
    files = []
    for record in records:
        fields |= set(record.notes["fields"])
        files.append(record.notes["file"])
    schema = schema_of(features(fields))
    for name in files:
        path = draft.files / name
        if not pq.read_schema(path).equals(schema):
            new = draft.part(0).with_suffix(".wider")
            write_parquet(new, _rows(path), schema)
            os.replace(new, path)


def row_of(sample: Sample, prompt: str) -> dict[str, Any]:
    """Return a conversation as a row. Fields that it does not have are missing."""
    facts = conversation_of(sample, prompt)
    record = record_of(facts, {name: name for name in sample.images})
    tools = {"tools": json.dumps(facts["tools"], ensure_ascii=False)} if facts.get("tools") else {}
    images = [image_cell(sample, name) for name in shown_images(facts)]
    messages = [{**message, "content": _parts(message["content"])} for message in record["messages"]]
    return {"messages": messages, "images": images, **tools, "json": sample.members["json"].decode()}


def _parts(content: Any) -> list[dict[str, Any]] | None:
    if content is None:
        return None
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [{"type": part["type"], "text": part.get("thinking", part.get("text"))} for part in parts]


def _checked(rows: Iterable[dict[str, Any]], fields: set[str]) -> Iterator[dict[str, Any]]:
    for row in rows:
        more = _fields(row) - fields
        if more:
            raise Wider(more)
        yield row


def _fields(row: Mapping[str, Any]) -> set[str]:
    return {name for message in row["messages"] for name in message if name in OPTIONAL} | ({"tools"} & row.keys())


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group).to_pylist()

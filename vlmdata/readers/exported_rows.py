"""Read rows that `vlmdata export` wrote to Parquet or Arrow, as samples in memory or as columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from vlmdata.fields import FIELDS
from vlmdata.loader.index.grouping import SampleMembers
from vlmdata.loader.index.tar import Member, Read
from vlmdata.readers.sample_facts import is_own_sample, with_origin
from vlmdata.readers.tar_samples import BadSample

CAPTIONS = frozenset(("key", "image", "caption", "json"))
DOCUMENTS = frozenset(("key", "url", "images", "texts", "json"))
CHATS = frozenset(("messages", "images", "tools", "json"))


def are_exported(columns: Iterable[str]) -> bool:
    """Return whether a dataset with these columns was exported by vlmdata. A dataset with other columns beside them was not."""
    return set(columns) in (CAPTIONS, DOCUMENTS)


def sample_in(row: Mapping[str, Any]) -> tuple[SampleMembers, Read]:
    """Return the sample that an exported row holds, and a function that reads its members.

    The columns count where they differ from the JSON, because other programs may have changed them. Raises BadSample if the
    column `json` does not hold a sample's JSON.
    """
    try:
        facts = json.loads(row["json"])
        found = _document(row, facts) if "texts" in row else _caption(row, facts)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise BadSample("its column `json` does not hold the JSON that vlmdata writes") from None
    return in_memory(row["key"], found)


def chat_columns(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the source's columns of a row that `vlmdata export --to messages` wrote to Parquet, or None for any other row."""
    if not record.keys() <= CHATS or not isinstance(record.get("json"), str):
        return None
    try:
        facts = json.loads(record["json"])
    except (ValueError, RecursionError):
        return None
    key = facts.get("key") if isinstance(facts, dict) else None
    if not isinstance(key, str) or not is_own_sample(facts, key):
        return None
    return with_origin({name: value for name, value in facts.items() if name not in FIELDS}, facts, key, source_key=key)


def in_memory(key: str, found: Mapping[str, bytes]) -> tuple[SampleMembers, Read]:
    """Return the sample with these members, by name, and a function that reads them."""
    members, start = [], 0
    for name, data in found.items():
        members.append((name, Member(name, start, start, len(data), start + len(data))))
        start += len(data)
    whole = b"".join(found.values())
    return SampleMembers(key, members), lambda offset, size: whole[offset : offset + size]


def _caption(row: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, bytes]:
    image = (row["image"] or {}).get("bytes")
    found = {} if image is None else {"jpg": image}  # the format is seen from the bytes
    return {**found, "json": _written(facts, row), "txt": (row["caption"] or "").encode()}


def _document(row: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, bytes]:
    found = {
        place["file"].lower(): image["bytes"]
        for place, image in zip(facts["metadata"], row["images"], strict=True)
        if place is not None and image and image["bytes"] is not None
    }
    return {**found, "json": _written({**facts, "texts": row["texts"], "url": row["url"]}, row)}


def _written(facts: Mapping[str, Any], row: Mapping[str, Any]) -> bytes:
    if facts["key"] != row["key"]:
        raise ValueError
    return json.dumps(facts).encode()

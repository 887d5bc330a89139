"""Turn conversations into rows. Each image is at the position of its placeholder, and each position has a role."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from vlmdata.readers.dialogue import laid_out
from vlmdata.readers.place_images import Message
from vlmdata.readers.plain_rows import Bad, bad_records, document, reject, tables, with_place


def conversation(messages: Sequence[Message], **fields: Any) -> dict[str, Any]:
    """Return messages as a row. An empty message becomes one empty text.

    If an image cannot be used, the whole row is dropped with the image's reason, because questions about the image cannot be
    answered without it.
    """
    positions, roles, said = laid_out(messages)
    turns = None if said is None else [one and json.dumps(one, ensure_ascii=False, sort_keys=True) for one in said]
    row = document(positions, roles=roles, turns=turns, **fields)
    return reject(row, next((image["reason"] for image in row["images"] if image and image.get("reason")), None))


def record_tables(
    some: Iterable[tuple[list[tuple[int, dict[str, Any]]], list[Bad]]],
    name: str,
    row_of: Callable[[Any], dict[str, Any]],
    joined: bool,
) -> Iterator[pa.Table]:
    """Yield tables with the rows of each batch in `some`: the good records, then the bad records.

    If `joined`, conversations about one image are joined, and the order is reversed: all bad records, then all good records.
    """
    every: list[dict[str, Any]] = []
    for good, bad in some:
        rows = [with_place(row_of(record), f"{name}, record {number}") for number, record in good]
        if joined:
            every += rows
        else:
            yield from tables(rows)
        if bad:
            yield bad_records(name, bad)
    yield from tables(join(every))


def join(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Append all conversations about an image to the row of the first one, so that the image is in one row only.

    A conversation is joined only if it has exactly one image, and this image is in its first turn. A conversation with a system
    turn, or with a value in the column `tools` or `turns`, is not joined.
    """
    joined: list[dict[str, Any]] = []
    first: dict[str | bytes, dict[str, Any]] = {}
    ids: dict[str | bytes, list[str]] = {}
    for row in rows:
        name = _only_image(row)
        if name is None or name not in first:
            joined.append(row)
        if name is None:
            continue
        ids.setdefault(name, []).append(row["id"])
        if name not in first:
            first[name] = row
            continue
        one = first[name]
        again = [(t, role) for t, role in zip(row["texts"], row["roles"], strict=True) if t is not None]
        if again[0][1] != "user":  # the question was only the image
            again.insert(0, ({"text": ""}, "user"))
        begins = one["roles"][-1] == again[0][1]  # the last answer is missing: two questions follow each other
        if begins or one["turns"]:
            before = one["turns"] or [None] * len(one["texts"])
            one["turns"] = [*before, json.dumps({"begins": True}) if begins else None, *[None] * (len(again) - 1)]
        one["texts"] += [text for text, _ in again]
        one["images"] += [None] * len(again)
        one["roles"] += [role for _, role in again]
    for name, row in first.items():
        row["id"] = "\n".join(ids[name])  # the key covers all joined conversations
    return joined


def _only_image(row: Mapping[str, Any]) -> str | bytes | None:
    """Return the address, path or bytes of a conversation's image, or None if the conversation cannot be joined."""
    if row.get("drop") or row["turns"] or row["tools"] or "system" in row["roles"] or row["roles"][0] != "user":
        return None
    shown = [number for number, image in enumerate(row["images"]) if image is not None]
    if len(shown) != 1 or any(role != "user" for role in row["roles"][: shown[0]]):
        return None
    image = row["images"][shown[0]]
    return image.get("url") or image.get("blob") or image.get("data")

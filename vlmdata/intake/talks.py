"""Conversations as rows: images stand where their placeholders were, and every position knows whose turn it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from vlmdata.intake.rows import Bad, bad_records, document, placed, reject, tables

PLACEHOLDER = "<image>"
ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "system": "system",
}
Turn = tuple[str, list[str | Mapping[str, Any]]]  # role; texts and, as mappings, images


class Unfit(ValueError):
    """A conversation that cannot be used; the message is the reason for the ledger."""


def place_images(turns: Sequence[tuple[str, str]], images: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """Put images in place of the placeholders, in order. Raises Unfit unless there are as many of the one as of the other.

    Where no turn has a placeholder a single image stands before the first user's text, as LLaVA's own reader puts it.
    """
    marks = sum(text.count(PLACEHOLDER) for _, text in turns)
    if marks == 0 and len(images) == 1:
        first = next((number for number, (role, _) in enumerate(turns) if role == "user"), None)
        if first is None:
            raise Unfit("no_user_turn")
        turns = [(r, f"{PLACEHOLDER}{t}" if n == first else t) for n, (r, t) in enumerate(turns)]
        marks = 1
    if marks != len(images):
        raise Unfit("more_placeholders_than_images" if marks > len(images) else "more_images_than_placeholders")
    left = iter(images)
    placed: list[Turn] = []
    for role, text in turns:
        first_text, *others = text.split(PLACEHOLDER)
        parts: list[str | Mapping[str, Any]] = [first_text]
        for other in others:
            parts += [next(left), other]
        placed.append((role, parts))
    return placed


def conversation(turns: Sequence[Turn], **fields: Any) -> dict[str, Any]:
    """Return turns as a row. White space around texts goes; a turn of nothing keeps one empty text.

    The row is dropped with the reason of the first image that cannot be used: a question without its image is none.
    """
    positions: list[str | Mapping[str, Any]] = []
    roles: list[str] = []
    for role, parts in turns:
        kept = [part.strip() if isinstance(part, str) else part for part in parts]
        kept = [part for part in kept if part != ""] or [""]
        positions += kept
        roles += [role] * len(kept)
    row = document(positions, roles=roles, **fields)
    return reject(row, next((image["reason"] for image in row["images"] if image and image.get("reason")), None))


def in_tables(
    some: Iterable[tuple[list[tuple[int, dict[str, Any]]], list[Bad]]],
    name: str,
    row_of: Callable[[Any], dict[str, Any]],
    joined: bool,
) -> Iterator[pa.Table]:
    """Give the rows of a file's records, and of those that cannot be read, as both are met; what is to be joined at the end."""
    every: list[dict[str, Any]] = []
    for good, bad in some:
        rows = [placed(row_of(record), f"{name}, record {number}") for number, record in good]
        if joined:
            every += rows
        else:
            yield from tables(rows)
        if bad:
            yield bad_records(name, bad)
    yield from tables(join(every))


def join(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the conversations of one image into the row of the first of them, one after another; the image is shown once.

    Only those join that show one image, in their first turn, and have no system's turn.
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
        if again[0][1] != "user":  # the picture alone was the question
            again.insert(0, ({"text": ""}, "user"))
        one["texts"] += [text for text, _ in again]
        one["images"] += [None] * len(again)
        one["roles"] += [role for _, role in again]
    for name, row in first.items():
        row["id"] = "\n".join(ids[name])  # the key is of all that was said
    return joined


def _only_image(row: Mapping[str, Any]) -> str | bytes | None:
    """Return what names the image of a conversation that may join others."""
    if row.get("drop") or "system" in row["roles"] or row["roles"][0] != "user":
        return None
    shown = [number for number, image in enumerate(row["images"]) if image is not None]
    if len(shown) != 1 or any(role != "user" for role in row["roles"][: shown[0]]):
        return None
    image = row["images"][shown[0]]
    return image.get("url") or image.get("blob") or image.get("data")


def role_of(name: object) -> str:
    """Return user, assistant or system for what a data set calls them. Raises Unfit."""
    role = ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise Unfit("unknown_role")
    return role


def check_turns(turns: Sequence[tuple[str, Any]]) -> None:
    """Raise Unfit for a conversation in which nobody asks or nobody answers."""
    roles = [role for role, _ in turns]
    if not roles:
        raise Unfit("no_turns")
    if "user" not in roles:
        raise Unfit("no_user_turn")
    if "assistant" not in roles:
        raise Unfit("no_assistant_turn")

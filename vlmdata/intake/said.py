"""One record of a conversation, in any published form, as a row: from and value, role and content, images in or beside it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from vlmdata.intake import lists, records
from vlmdata.intake.find import File
from vlmdata.intake.formats import format_within
from vlmdata.intake.lists import Format, Layout, check_columns, column_names, first_columns, open_parquet
from vlmdata.intake.nested import holds_bytes, plain_rows
from vlmdata.intake.opened import UNREADABLE, opened, seekable
from vlmdata.intake.pairs import json_object
from vlmdata.intake.pictures import image_named, keep_addresses
from vlmdata.intake.rows import Bad, reject
from vlmdata.intake.strings import clean
from vlmdata.intake.talks import PLACEHOLDER, Turn, Unfit, check_turns, conversation, place_images, role_of
from vlmdata.step import RecipeError

FORMATS: tuple[Format, ...] = ("json", "jsonl", "parquet")
BATCH = 5000  # records at a time
ENDINGS = [ending for ending in lists.ENDINGS if ending.startswith((".json", ".ndjson", ".parquet"))]


def said_row(record: Mapping[str, Any], turns: Sequence[str], images: Sequence[str], folder: str) -> dict[str, Any]:
    """Return a record as a row, rejected with the reason where it is no conversation to learn from.

    `turns` and `images` are the fields that may hold them: the first that holds something counts.
    """
    used = {*turns, *images}
    identity = clean(json_object(record))
    try:
        said = _turns(_first(record, turns), folder)
        check_turns(said)
        placed = _placed(said, [image_named(where, folder) for where in _images(_first(record, images))])
    except Unfit as error:
        return reject({"id": identity, "extra": _extra(record, used)}, str(error))
    shown = [part for _, parts in placed for part in parts if isinstance(part, dict)]
    return conversation(placed, id=identity, extra=_extra(record, used | keep_addresses(shown, record)))


def said_records(path: str) -> Iterator[tuple[list[tuple[int, dict[str, Any]]], list[Bad]]]:
    """Give the records of a file, counted from 1, with those that cannot be read, some at a time.

    Raises RecipeError for another format.
    """
    kind = format_within(path, FORMATS)
    if kind == "parquet":
        yield from _parquet(path)
        return
    with opened(path) as file:
        numbered = enumerate(records.items(file, kind, "utf-8"), 1)
        while some := list(itertools.islice(numbered, BATCH)):
            good = [(number, one) for number, one in some if not isinstance(one, Bad)]
            yield good, [one for _, one in some if isinstance(one, Bad)]


def check_said(files: Sequence[File], turns: Sequence[str]) -> None:
    """Raise RecipeError for one of the first 20 files that is of another format, or has none of the fields of turns."""
    for path, _ in files[:20]:
        names = column_names(path, Layout(format=format_within(path, FORMATS)))
        if names and not set(turns) & set(names):
            check_columns(path, names, turns[:1])


def said_columns(files: Sequence[File], used: Collection[str]) -> list[str]:
    """Return the fields of the first file that has a record, without those used."""
    return first_columns(files, Layout(format=format_within(files[0].path, FORMATS)), used) if files else []


def _parquet(path: str) -> Iterator[tuple[list[tuple[int, dict[str, Any]]], list[Bad]]]:
    with seekable(path) as file:
        parquet = open_parquet(file, path)
        first = 1
        try:
            for batch in parquet.iter_batches(batch_size=200) if parquet else ():
                rows = list(enumerate(plain_rows(batch), first))
                bad = [
                    Bad("bad_encoding", clean(json_object(record)), f"row {number} holds a text that does not decode", None)
                    for number, (record, undecoded) in rows
                    if undecoded
                ]
                first += len(rows)
                yield [(number, record) for number, (record, undecoded) in rows if not undecoded], bad
        except UNREADABLE as error:
            raise RecipeError(f"{path}: cannot be read as Parquet: {' '.join(str(error).split())}") from None


def _extra(record: Mapping[str, Any], used: set[str]) -> str | None:
    extra = {name: value for name, value in record.items() if name not in used and not holds_bytes(value)}
    return clean(json_object(extra)) if extra else None


def _first(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Return what stands in the first of these fields that holds anything; JSON in a text is what it says."""
    value = next((record[name] for name in names if record.get(name)), None)
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _images(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [one for one in value if not _is_nothing(one)]
    return [] if _is_nothing(value) else [value]


def _is_nothing(value: Any) -> bool:
    """Say whether a value names no image: null, an empty text, or a struct without any field, as Parquet has them."""
    return not any(value.values()) if isinstance(value, Mapping) else value is None or value == ""


def _turns(said: Any, folder: str) -> list[Turn]:
    """Return the turns; an image part without an image is the placeholder's text. Raises Unfit."""
    if isinstance(said, Mapping):  # a struct of lists, as `datasets` once wrote a list of structs
        lists = [value for value in said.values() if isinstance(value, list)]
        if len(lists) != len(said) or len({len(one) for one in lists}) != 1:
            raise Unfit("no_turns")
        said = [dict(zip(said, values, strict=True)) for values in zip(*lists, strict=True)]
    if not isinstance(said, list) or not all(isinstance(turn, Mapping) for turn in said):
        raise Unfit("no_turns")
    turns: list[Turn] = []
    for turn in (one for given in said for one in _question_and_answer(given)):
        content = next((turn[name] for name in ("content", "value") if turn.get(name) is not None), None)
        parts = [content] if isinstance(content, str) else content
        if not isinstance(parts, list):
            raise Unfit("no_text")
        role = role_of(turn["role"] if turn.get("role") is not None else turn.get("from"))
        turns.append((role, [_part(part, folder) for part in parts]))
    return turns


def _question_and_answer(turn: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a turn, or the two that {"user": ..., "assistant": ...} holds."""
    if turn.get("role") is not None or turn.get("from") is not None or not {"user", "assistant"} <= turn.keys():
        return [turn]
    return [{"role": role, "content": turn[role]} for role in ("user", "assistant")]


def _part(part: object, folder: str) -> str | dict[str, Any]:
    if isinstance(part, str):
        return _whole(part)
    if not isinstance(part, Mapping):
        raise Unfit("unknown_part")
    kind = part.get("type") or ("image" if part.get("image") else "text")
    if kind == "text" and isinstance(part.get("text"), str):
        return _whole(part["text"])
    if kind not in ("image", "image_url"):
        raise Unfit("unknown_part")
    source = part.get("source")  # Anthropic's {"type": "base64", "data": ...} or {"type": "url", "url": ...}
    part = {**source, "base64": source.get("data"), **part} if isinstance(source, Mapping) else part
    named = (part.get(name) for name in ("image", "image_url", "url", "path", "base64"))
    where = next((one for one in named if not _is_nothing(one)), None)
    if isinstance(where, str) and where == part.get("base64") and not where.startswith("data:"):
        where = f"data:;base64,{where}"
    return PLACEHOLDER if where is None else image_named(where, folder)


def _whole(text: str) -> str:
    """Return a text. Raises Unfit for half a surrogate pair in it."""
    if clean(text) != text:
        raise Unfit("bad_encoding")
    return text


def _placed(turns: list[Turn], images: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """Put the record's own images in place of placeholders; images in parts stay where they are."""
    if any(not isinstance(part, str) for _, parts in turns for part in parts):
        if images or any(PLACEHOLDER in part for _, parts in turns for part in parts if isinstance(part, str)):
            raise Unfit("images_both_in_parts_and_beside")
        return turns
    return place_images([(role, "\n".join(str(part) for part in parts)) for role, parts in turns], images)

"""Conversations as chat messages: `role` and `content`, a text with placeholders or a list of text and image parts."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.intake import records
from vlmdata.intake.find import File, find
from vlmdata.intake.lists import ENDINGS, Layout, check_columns, column_names, format_of
from vlmdata.intake.opened import UNREADABLE, opened, seekable
from vlmdata.intake.pairs import json_object
from vlmdata.intake.pictures import image_named
from vlmdata.intake.rows import reject
from vlmdata.intake.strings import clean
from vlmdata.intake.talks import PLACEHOLDER, Turn, Unfit, check_turns, conversation, in_tables, place_images, role_of
from vlmdata.step import RecipeError, Source


@dataclass(frozen=True, kw_only=True)
class Messages(Source):
    """Rows with images, texts and roles aligned by position, from JSON, JSON lines or Parquet.

    An image part is {"type": "image", "image": ...} (or `url`, `path`), OpenAI's {"type": "image_url", ...}, or, as in
    TRL's data, {"type": "image"} alone, which stands for the next of the record's `images`. Images are addresses, data:
    addresses, bytes (in Parquet) or files within the folder. What does not fit together is dropped with the reason.
    """

    gives: ClassVar = "conversations"

    path: str | list[str]
    messages: str = "messages"  # field of the turns
    images: str = "images"  # field of the images that placeholders and empty image parts stand for
    folder: str = ""  # of image files; by default the list's own
    joined: bool = False  # conversations of one image in one row, as LLaVA-1.5's own mixture does; reads the list into memory

    def check(self) -> None:
        for path, _ in self.files()[:20]:
            check_columns(path, column_names(path, Layout()), [self.messages])
        if self.folder:
            find(self.folder, ("",))

    def files(self) -> list[File]:
        return find(self.path, [ending for ending in ENDINGS if ending.startswith((".json", ".ndjson", ".parquet"))])

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        path = piece["path"]
        folder = self.folder or os.path.dirname(path)
        kind = format_of(path, Layout())
        yield from in_tables(_records(path, kind), lambda record: self._row(record, folder), self.joined)

    def _row(self, record: Mapping[str, Any], folder: str) -> dict[str, Any]:
        extra = {name: value for name, value in record.items() if name not in (self.messages, self.images)}
        carried = clean(json_object(extra)) if extra else None
        identity = clean(json_object(record))
        try:
            given = record.get(self.images) or []
            images = [image_named(where, folder) for where in (given if isinstance(given, list) else [given])]
            turns = _turns(record.get(self.messages), folder)
            check_turns(turns)
            placed = _placed(turns, images)
        except Unfit as error:
            return reject({"id": identity, "extra": carried}, str(error))
        return conversation(placed, id=identity, extra=carried)


def _turns(said: object, folder: str) -> list[Turn]:
    """Return the turns with None's place taken: an image part without an image is the placeholder's text."""
    if not isinstance(said, list) or not all(isinstance(turn, dict) for turn in said):
        raise Unfit("no_turns")
    turns: list[Turn] = []
    for turn in said:
        content = turn.get("content")
        parts = [content] if isinstance(content, str) else content
        if not isinstance(parts, list):
            raise Unfit("no_text")
        turns.append((role_of(turn.get("role")), [_part(part, folder) for part in parts]))
    return turns


def _part(part: object, folder: str) -> str | Mapping[str, Any]:
    if isinstance(part, str):
        return clean(part)
    if not isinstance(part, dict):
        raise Unfit("unknown_part")
    kind = part.get("type") or ("image" if part.get("image") else "text")
    if kind == "text" and isinstance(part.get("text"), str):
        return clean(part["text"])
    if kind not in ("image", "image_url"):
        raise Unfit("unknown_part")
    where = next((part[name] for name in ("image", "image_url", "url", "path", "base64") if part.get(name)), None)
    if isinstance(where, str) and where == part.get("base64") and not where.startswith("data:"):
        where = f"data:;base64,{where}"
    if where is None:
        return PLACEHOLDER
    return image_named(where.get("url") if kind == "image_url" and isinstance(where, dict) else where, folder)


def _placed(turns: list[Turn], images: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """Put the record's own images in place of placeholders; images in parts stay where they are."""
    if any(not isinstance(part, str) for _, parts in turns for part in parts):
        if images or any(PLACEHOLDER in part for _, parts in turns for part in parts if isinstance(part, str)):
            raise Unfit("images_both_in_parts_and_beside")
        return turns
    return place_images([(role, "\n".join(str(part) for part in parts)) for role, parts in turns], images)


def _records(path: str, kind: str) -> Iterator[tuple[list[Any], list[tuple[str, str]]]]:
    """Give records with those that cannot be read, some at a time."""
    if kind == "parquet":
        for batch in _parquet(path):
            yield batch, []
        return
    with opened(path) as file:
        yield from records.batches(file, kind, "utf-8", 5000)


def _parquet(path: str) -> Iterator[list[dict[str, Any]]]:
    with seekable(path) as file:
        try:
            for batch in pq.ParquetFile(file, pre_buffer=False).iter_batches(batch_size=200):
                yield batch.to_pylist()
        except UNREADABLE as error:
            raise RecipeError(f"{path}: cannot be read as Parquet: {' '.join(str(error).split())}") from None

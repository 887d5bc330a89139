"""Conversations in LLaVA's form: `image` and `conversations` of `from` and `value`, with <image> where the image stands."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from vlmdata.intake import records
from vlmdata.intake.find import File, find
from vlmdata.intake.lists import Layout, format_of
from vlmdata.intake.opened import opened
from vlmdata.intake.pairs import json_object
from vlmdata.intake.pictures import image_named
from vlmdata.intake.rows import reject
from vlmdata.intake.strings import clean
from vlmdata.intake.talks import Unfit, check_turns, conversation, in_tables, place_images, role_of
from vlmdata.step import Source

USED = {"image", "images", "conversations"}


@dataclass(frozen=True, kw_only=True)
class LlavaJson(Source):
    """Rows with images, texts and roles aligned by position, from JSON or JSON lines as LLaVA, Qwen-VL and InternVL use.

    A conversation whose placeholders do not fit its images, or without a question or an answer, is dropped with the
    reason; one without images stays, as text. `joined` keeps conversations of one image in one row, as LLaVA-1.5's own
    mixture does; it reads the whole list into memory.
    """

    gives: ClassVar = "conversations"

    path: str | list[str]
    images: str = ""  # folder of images named in the list; by default the list's own
    joined: bool = False  # conversations of one image in one row

    def check(self) -> None:
        self.files()
        if self.images:
            find(self.images, ("",))

    def files(self) -> list[File]:
        return find(self.path, (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".json.zst", ".jsonl.zst"))

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        path = piece["path"]
        folder = self.images or os.path.dirname(path)
        kind = format_of(path, Layout())
        with opened(path) as file:
            some = records.batches(file, kind, "utf-8", 5000)
            yield from in_tables(some, lambda record: _row(record, folder), self.joined)


def _row(record: Mapping[str, Any], folder: str) -> dict[str, Any]:
    extra = {name: value for name, value in record.items() if name not in USED}
    carried = clean(json_object(extra)) if extra else None
    identity = clean(json_object(record))
    try:
        turns = _turns(record)
        check_turns(turns)
        placed = place_images(turns, [image_named(where, folder) for where in _images(record)])
    except Unfit as error:
        return reject({"id": identity, "extra": carried}, str(error))
    return conversation(placed, id=identity, extra=carried)


def _turns(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    said = record.get("conversations")
    if not isinstance(said, list) or not all(isinstance(turn, dict) for turn in said):
        raise Unfit("no_turns")
    if not all(isinstance(turn.get("value"), str) for turn in said):
        raise Unfit("no_text")
    return [(role_of(turn.get("from")), clean(turn["value"])) for turn in said]


def _images(record: Mapping[str, Any]) -> list[Any]:
    value = record.get("image", record.get("images"))
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]

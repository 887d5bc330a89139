"""Conversations in LLaVA's form: `image` and `conversations`, with turns of `from` and `value`. <image> marks an image."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.readers.find_files import File, find
from vlmdata.readers.lists import named_pieces
from vlmdata.readers.read_conversation import ENDINGS, check_conversations, conversation_columns, conversation_tables
from vlmdata.step import Source

TURNS = ("conversations", "messages")
IMAGES = ("image", "images")


@dataclass(frozen=True, kw_only=True)
class LlavaJson(Source):
    """Yield one row for each conversation in JSON, JSON lines or Parquet in the form of LLaVA, Qwen-VL and others.

    Images, texts and roles are aligned by position. A conversation with more or fewer placeholders than images, or without a
    question or an answer, is dropped with the reason. A conversation without images stays as text. The turns may also be
    in `messages`, with `role` and `content`, as a list or as JSON text. Images may be bytes or files.
    """

    id: ClassVar = "vlmdata.sources.llava_json"
    example: ClassVar = "source: {type: llava_json, path: llava_v1_5_mix665k.json, images: images}"
    gives: ClassVar = "conversations"
    images_in: ClassVar = "images"

    path: Annotated[str | list[str], Doc("JSON, JSON lines or Parquet files, or folders or globs of them.")]
    images: Annotated[str, Doc("Folder of the images that the list names. Empty: the list's folder.")] = ""
    joined: Annotated[
        bool,
        Doc("Whether to join all conversations of an image into one row, as LLaVA-1.5 does. The list is read into memory."),
    ] = False

    def check(self) -> None:
        check_conversations(self.files(), TURNS)
        if self.images:
            find(self.images, ("",), parameter="source.images")

    def files(self) -> list[File]:
        return find(self.path, ENDINGS)

    def carries(self) -> Sequence[str]:
        return conversation_columns(self.files(), {*TURNS, *IMAGES})

    def pieces(self) -> list[dict[str, Any]]:
        return named_pieces(self.files())

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        path = piece["path"]
        folder = self.images or os.path.dirname(path)
        yield from conversation_tables(path, piece["name"], TURNS, IMAGES, folder, self.joined)

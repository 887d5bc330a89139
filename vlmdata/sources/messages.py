"""Conversations as chat messages: `content` is text with placeholders, or a list of text and image parts."""

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


@dataclass(frozen=True, kw_only=True)
class Messages(Source):
    """Yield one row for each conversation in JSON, JSON lines or Parquet. Images, texts and roles are aligned by position.

    A turn has `role` and `content`, or `from` and `value`. The turns may be given as JSON text. An image part is
    {"type": "image", "image": ...} (or with `url` or `path`) or OpenAI's {"type": "image_url", ...}. A part that is only
    {"type": "image"}, as in TRL's data, takes the next of the record's `images`. Images are addresses, data: URLs, bytes (in
    Parquet) or files in `folder`. A conversation whose placeholders and images do not match is dropped with the reason.
    """

    id: ClassVar = "vlmdata.sources.messages"
    example: ClassVar = "source: {type: messages, path: chats.jsonl, folder: images}"
    gives: ClassVar = "conversations"
    images_in: ClassVar = "folder"

    path: Annotated[str | list[str], Doc("JSON, JSON lines or Parquet files, or folders or globs of them.")]
    messages: Annotated[str, Doc("Field of the turns. A record without it uses `conversations`.")] = "messages"
    images: Annotated[
        str, Doc("Field of the images for placeholders and empty image parts. A record without it uses `image`.")
    ] = "images"
    folder: Annotated[str, Doc("Folder of image files. Empty: the list's folder.")] = ""
    joined: Annotated[
        bool,
        Doc("Whether to join all conversations of an image into one row, as LLaVA-1.5 does. The list is read into memory."),
    ] = False

    def check(self) -> None:
        check_conversations(self.files(), self._turns())
        if self.folder:
            find(self.folder, ("",), parameter="source.folder")

    def files(self) -> list[File]:
        return find(self.path, ENDINGS)

    def carries(self) -> Sequence[str]:
        return conversation_columns(self.files(), {*self._turns(), self.images, "image"})

    def pieces(self) -> list[dict[str, Any]]:
        return named_pieces(self.files())

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        path = piece["path"]
        folder = self.folder or os.path.dirname(path)
        yield from conversation_tables(path, piece["name"], self._turns(), [self.images, "image"], folder, self.joined)

    def _turns(self) -> list[str]:
        return [self.messages, "conversations"]

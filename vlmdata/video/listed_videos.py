"""Reads lists of the addresses of videos, with captions and other columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vlmdata.readers import lists
from vlmdata.readers.captions import caption_column
from vlmdata.readers.find_files import File
from vlmdata.readers.lists import Chunk, ListFormat
from vlmdata.readers.plain_rows import Bad, bad_record, place
from vlmdata.readers.source_images import web_address
from vlmdata.readers.strings import clean
from vlmdata.video.rows import About, dropped
from vlmdata.video.settings import VideoError


@dataclass(frozen=True)
class ListedVideos:
    """One list: its path, its name in places, the column of addresses and those of captions."""

    path: str
    name: str
    layout: ListFormat
    url: str
    captions: tuple[str, ...]

    def count(self) -> int:
        """Return the number of records, including those that cannot be read."""
        found = self._chunks(carries=False)
        return sum(len(chunk.bad_encoding) + len(chunk.bad_records) for chunk in found)

    def rows(self, start: int, end: int) -> Iterator[About | dict[str, Any]]:
        """Yield the videos `start` to `end` (not included) of the list, or the dropped row of a record without an address."""
        at = 0
        for chunk, where in lists.with_places(self.name, self._chunks(carries=True)):
            size = len(chunk.bad_encoding) + len(chunk.bad_records)
            if at < end and at + size > start:
                found = [*self._of(chunk, where), *map(self._bad, chunk.bad_records)]
                yield from found[max(0, start - at) : end - at]
            at += size
            if at >= end:
                return

    def _chunks(self, *, carries: bool) -> Iterator[Chunk]:
        is_text = lists.format_of(self.path, self.layout) == "txt"
        wanted = [lists.LINE] if is_text else [self.url, *self.captions]
        return lists.chunks(File(self.path, 0), self.layout, wanted, "all" if carries and not is_text else {})

    def _of(self, chunk: Chunk, where: Any) -> Iterator[About | dict[str, Any]]:
        column = next(chunk.columns[name] for name in (lists.LINE, self.url) if name in chunk.columns)
        urls = column if isinstance(column, list) else column.to_pylist()
        texts, others, wrong = caption_column(
            [chunk.columns[name] for name in self.captions] or [[None] * len(urls)], self.layout.encoding
        )
        alternatives = others.to_pylist() if others is not None else [None] * len(urls)
        extra = chunk.extra.to_pylist() if chunk.extra is not None else [None] * len(urls)
        for number, (url, text) in enumerate(zip(urls, texts.to_pylist(), strict=True)):
            address = web_address(url)
            facts = json.loads(extra[number] or "{}")
            captions = [text, *(alternatives[number] or [])]
            about = About(f"{self.name}\n{address or url}", where(number), address, captions, facts)
            if wrong[number] or chunk.bad_encoding[number]:
                yield dropped(about, VideoError("bad_encoding", "a value of the row is not in the encoding of the list"))
            elif address is None:
                named = clean(str(url))[:300]
                is_blank = not isinstance(url, str | bytes) or not url.strip()
                why = "the row has no address" if is_blank else f"{named!r} is no http(s) address"
                yield dropped(about, VideoError("no_address" if is_blank else "bad_url", why))
            else:
                yield about

    def _bad(self, bad: Bad) -> dict[str, Any]:
        where = place(self.name, line=bad.line)
        return bad_record(self.name, bad.problem, line=bad.line, reason=bad.reason, id=f"{bad.reason}\n{where}\n{bad.text}")

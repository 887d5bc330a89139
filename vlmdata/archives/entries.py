"""Reads records with the FastWARC library, past frames that FastWARC takes for the end of a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from fastwarc.warc import ArchiveIterator

from vlmdata.archives.compressed_frames import (
    GZIP,
    LZ4,
    PrependedDictionary,
    after_empty,
    dictionary_frame,
    frame_end,
    head_of,
    read_at,
)


def entries(file: BinaryIO, start: int) -> Iterator[tuple[int, Any]]:
    """Yield FastWARC's records from the offset `start` on, each with its offset in the file.

    FastWARC stops at an empty gzip member or LZ4 frame; this continues after it. Raises OSError if no record follows and the
    file has not ended.
    """
    frame = dictionary_frame(file) if start else b""
    may_end_early = head_of(file).startswith((GZIP, LZ4))
    while True:
        file.seek(start)
        source: Any = PrependedDictionary(frame, file) if frame else file
        offsets: list[int] = []  # the last two: the second record of a frame may have an offset where no frame begins
        for entry in ArchiveIterator(source, parse_http=False, auto_decode="none"):
            offset = entry.stream_pos + (start - len(frame) if frame else 0)
            if offset not in offsets:
                offsets = [*offsets[-1:], offset]
            yield offset, entry
        if not may_end_early:
            return
        ended = frame_end(file, _last_frame(file, offsets) if offsets else start)
        if ended is None and offsets:
            return  # the last frame is cut off
        after = after_empty(file, ended or start)
        if not read_at(file, after, 1):
            return
        if after == start:
            raise OSError(f"no record at byte {start}")
        start = after


def _last_frame(file: BinaryIO, offsets: list[int]) -> int:
    return offsets[-1] if read_at(file, offsets[-1], 4).startswith((GZIP, LZ4)) else offsets[0]

"""Reads records with the FastWARC library, and continues where FastWARC mistakes an empty frame for the end of the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

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
    """Yield (offset in the file, FastWARC record) for each record at or after `start`.

    FastWARC stops at an empty gzip member or LZ4 frame, but this function continues with the next frame. Raises OSError if
    bytes remain in which no record begins.
    """
    from fastwarc.warc import ArchiveIterator  # imported here, because only the extra `pages` installs it

    frame = dictionary_frame(file) if start else b""
    may_end_early = head_of(file).startswith((GZIP, LZ4))
    while True:
        file.seek(start)
        source: Any = PrependedDictionary(frame, file) if frame else file
        offsets: list[int] = []  # last two offsets; a frame's second record may have an offset where no frame begins
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
            raise OSError(f"no record begins at byte {start}")
        start = after


def _last_frame(file: BinaryIO, offsets: list[int]) -> int:
    return offsets[-1] if read_at(file, offsets[-1], 4).startswith((GZIP, LZ4)) else offsets[0]

"""Records as the FastWARC library reads them, one after the other, past what it takes for the end of a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from fastwarc.warc import ArchiveIterator

from vlmdata.archives.compressed_frames import GZIP, LZ4, Primed, after_empty, dictionary_frame, frame_end, head_of, read_at


def entries(file: BinaryIO, place: int) -> Iterator[tuple[int, Any]]:
    """Yield FastWARC's records from an offset on, each with its offset in the file.

    FastWARC ends at a gzip member or LZ4 frame that holds nothing: reading goes on after it. Raises OSError where no record
    follows, though the file has not ended.
    """
    frame = dictionary_frame(file) if place else b""
    may_end_early = head_of(file).startswith((GZIP, LZ4))
    while True:
        file.seek(place)
        source: Any = Primed(frame, file) if frame else file
        offsets: list[int] = []  # of the last two: a second record in one frame may have one where no frame begins
        for entry in ArchiveIterator(source, parse_http=False, auto_decode="none"):
            offset = entry.stream_pos + (place - len(frame) if frame else 0)
            if offset not in offsets:
                offsets = [*offsets[-1:], offset]
            yield offset, entry
        if not may_end_early:
            return
        ended = frame_end(file, _last_frame(file, offsets) if offsets else place)
        if ended is None and offsets:
            return  # the last frame is cut off
        after = after_empty(file, ended or place)
        if not read_at(file, after, 1):
            return
        if after == place:
            raise OSError(f"no record at byte {place}")
        place = after


def _last_frame(file: BinaryIO, offsets: list[int]) -> int:
    return offsets[-1] if read_at(file, offsets[-1], 4).startswith((GZIP, LZ4)) else offsets[0]

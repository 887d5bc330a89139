"""Where the next record of a damaged or divided WARC begins."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

_WINDOW = 1 << 20
_HEAD = 2048  # bytes of most records' headers
_LONG_HEAD = 65_536  # of all but hostile ones
_OVERLAP = 64
_START = re.compile(rb"WARC/\d\.\d+\r?\n")
_LENGTH = re.compile(rb"\nContent-Length:\s*(\d{1,15})\s*\r?\n", re.IGNORECASE)
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")
_FRAME = re.compile(rb"\x28\xb5\x2f\xfd|\x04\x22\x4d\x18")  # Zstandard, LZ4


def next_record(file: BinaryIO, place: int) -> int | None:
    """Return the first offset from `place` on where a record begins, plain or as a compressed member of its own."""
    file.seek(0)
    head = file.read(4)
    mark = _MEMBER if head[:2] == b"\x1f\x8b" else _FRAME if _FRAME.match(head) else _START
    while True:
        file.seek(place)
        window = file.read(_WINDOW)
        for match in mark.finditer(window):
            if mark is not _MEMBER or _holds_record(file, place + match.start()):
                return place + match.start()
        if len(window) < _WINDOW:
            return None
        place += _WINDOW - _OVERLAP


def record_starts(file: BinaryIO, every: int) -> Iterator[int]:
    """Yield 0 and then the start of the first record past each multiple of `every`, of a plain WARC, by its stated lengths.

    Where a record's header makes no sense the search goes on at the next mark of a record.
    """
    place = cut = 0
    while head := _head(file, place):
        if place >= cut:
            yield place
            cut = place - place % every + every
        end = _HEAD_END.search(head)
        length = _LENGTH.search(head, 0, end.end()) if end and _START.match(head) else None
        if end and length:
            place += end.end() + int(length[1])
            file.seek(place)
            after = file.read(8)
            place += len(after) - len(after.lstrip(b"\r\n"))
        else:
            found = next_record(file, place + 1)
            if found is None:
                return
            place = found


def _head(file: BinaryIO, place: int) -> bytes:
    """Return what begins at an offset, as far as a record's header goes."""
    file.seek(place)
    head = file.read(_HEAD)
    return head if _HEAD_END.search(head) else head + file.read(_LONG_HEAD)


def _holds_record(file: BinaryIO, offset: int) -> bool:
    """Say whether a gzip member at this offset unpacks to the start of a record: the mark also occurs by chance."""
    file.seek(offset)
    try:
        return zlib.decompressobj(31).decompress(file.read(4096), 16).startswith(b"WARC/")
    except zlib.error:
        return False

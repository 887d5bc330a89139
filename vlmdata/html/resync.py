"""Where the next record of a damaged or divided WARC begins."""

from __future__ import annotations

import re
import zlib
from typing import BinaryIO

_WINDOW = 1 << 20
_OVERLAP = 64
_START = re.compile(rb"WARC/\d\.\d+\r?\n")
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


def _holds_record(file: BinaryIO, offset: int) -> bool:
    """Say whether a gzip member at this offset unpacks to the start of a record: the mark also occurs by chance."""
    file.seek(offset)
    try:
        return zlib.decompressobj(31).decompress(file.read(4096), 16).startswith(b"WARC/")
    except zlib.error:
        return False

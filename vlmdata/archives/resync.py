"""Where records begin: past damage, and where an archive is cut for several workers."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from vlmdata.archives.compressed_frames import (
    GZIP,
    LZ4,
    dictionary_of,
    frame_end,
    head_of,
    holds_record,
    is_packed,
    read_at,
    unpacked,
)
from vlmdata.archives.digest import record_fits
from vlmdata.archives.odd_header import header_at

_WINDOW = 1 << 20
_HEAD = 2048  # bytes of most records' headers
_LONG_HEAD = 30_000  # of the longest that are believed without asking the reader of records, which takes 32 KiB
_OVERLAP = 64
_START = re.compile(rb"WARC/\d\.\d+\r?\n", re.IGNORECASE)
_GZIP = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")
_LZ4 = re.compile(rb"\x04\x22\x4d\x18")
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd")
_STORED = {_GZIP: 65_535, _ZSTD: 128 << 10, _LZ4: 4 << 20}  # most bytes that lie in one block as they were before packing
_HEADER = re.compile(rb"WARC/1\.[01]\r\n(?:[A-Za-z][A-Za-z0-9-]*:[^\r\n]*\r\n)+\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length:", re.IGNORECASE)
_DIGITS = re.compile(rb"\r\ncontent-length: ?(\d{1,15})\r\n", re.IGNORECASE)


def next_record(file: BinaryIO, place: int) -> int | None:
    """Return the first offset from `place` on where a record seems to begin, plain or as a compressed frame of its own."""
    return next(_candidates(file, place), None)


def sure_record(file: BinaryIO, place: int) -> int | None:
    """Return the first offset from `place` on where a frame of the archive itself begins, and in it a record.

    A page may be an archive, whose frames then lie in ours as they are, for what is packed already is stored; but never for
    longer than one block can be. So frames must follow each other without a gap for longer than that, or to the end.
    """
    longest = _STORED[_mark(file)]
    for found in _candidates(file, place):
        end: int | None = found
        while end is not None and end - found <= longest:
            if not read_at(file, end, 1):
                return found
            end = frame_end(file, end)
        if end is not None:
            return found
    return None


def record_starts(file: BinaryIO, every: int, sound: Callable[[int], Iterator[int]]) -> Iterator[int]:
    """Yield 0 and then the start of the first record past each multiple of `every`, of a plain WARC, by its stated lengths.

    A header is believed only where it is beyond doubt and the next record follows; else `sound` is asked: it reads on from a
    place as the reader of records does, and yields where the sound ones begin.
    """
    place: int | None = 0
    cut = 0
    is_sound = True
    while place is not None and read_at(file, place, 1):
        end = _stated_end(file, place)
        if place >= cut and (is_sound or end is not None):
            yield place
            cut = place - place % every + every
        follows = read_at(file, end, 11) if end is not None else b""
        if end is not None and follows == b"\r\n\r\n":
            return
        is_sound = end is None or not follows.startswith(b"\r\n\r\nWARC/1.")
        if is_sound:
            at = place
            place = next((found for found in sound(at) if found > at), None)
        else:
            place = (end or 0) + 4


def proved_end(file: BinaryIO, place: int, max_bytes: int) -> int | None:
    """Return where the record or the frame at an offset ends, where it proves that it ends there.

    A frame of gzip does by its sum, others by the record in them; a record by its digest, or by the empty lines that follow it.
    """
    if is_packed(file):
        ended = frame_end(file, place)
        if ended is None or _mark(file) is _GZIP:
            return ended
        record = unpacked(read_at(file, place, ended - place), dictionary_of(file), 2 * max_bytes)
        return ended if proved_end(io.BytesIO(record), 0, max_bytes) == len(record) else None
    end, header = _stated_end(file, place), header_at(file, place)
    if end is None or header is None:
        return None
    is_revisit = header.fields.get("warc-type", "").lower() == "revisit"
    if "warc-block-digest" in header.fields and not is_revisit and header.length <= max_bytes:
        return end + 4 if record_fits(header.fields, read_at(file, end - header.length, header.length), max_bytes) else None
    return end + 4 if read_at(file, end, 4) == b"\r\n\r\n" else None


def _candidates(file: BinaryIO, place: int) -> Iterator[int]:
    """Yield the offsets from `place` on where a record seems to begin."""
    mark = _mark(file)
    dictionary = dictionary_of(file) if mark is _ZSTD else None
    while True:
        window = read_at(file, place, _WINDOW)
        for match in mark.finditer(window):
            if mark is _START or holds_record(file, place + match.start(), dictionary):
                yield place + match.start()
        if len(window) < _WINDOW:
            return
        place += _WINDOW - _OVERLAP


def _mark(file: BinaryIO) -> re.Pattern[bytes]:
    """Return what the records of a file begin with."""
    if not is_packed(file):
        return _START
    head = head_of(file)
    return _GZIP if head.startswith(GZIP) else _LZ4 if head.startswith(LZ4) else _ZSTD


def _stated_end(file: BinaryIO, place: int) -> int | None:
    """Return where the content of a plain record ends as its header states, where that is beyond doubt."""
    header = _header(file, place)
    length = _DIGITS.search(header)
    if length is None or len(_LENGTH.findall(header)) != 1:
        return None
    return place + len(header) + int(length[1])


def _header(file: BinaryIO, place: int) -> bytes:
    """Return the header of a plain record with the empty line after it, or nothing where something is odd about it."""
    head = read_at(file, place, _HEAD)
    found = _HEADER.match(head) or _HEADER.match(head + read_at(file, place + len(head), _LONG_HEAD))
    return found[0] if found else b""

"""Finds where records begin: after damage, and at the boundaries between the pieces of an archive."""

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
_HEAD = 2048  # bytes that hold most headers
_LONG_HEAD = 30_000  # bytes of the longest header that is parsed here; the record reader's limit is 32 KiB
_OVERLAP = 64
_START = re.compile(rb"WARC/\d\.\d+\r?\n", re.IGNORECASE)
_GZIP = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")
_LZ4 = re.compile(rb"\x04\x22\x4d\x18")
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd")
_STORED = {_GZIP: 65_535, _ZSTD: 128 << 10, _LZ4: 4 << 20}  # maximum bytes that one block stores uncompressed
_HEADER = re.compile(rb"WARC/1\.[01]\r\n(?:[A-Za-z][A-Za-z0-9-]*:[^\r\n]*\r\n)+\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length:", re.IGNORECASE)
_DIGITS = re.compile(rb"\r\ncontent-length: ?(\d{1,15})\r\n", re.IGNORECASE)


def next_record(file: BinaryIO, offset: int) -> int | None:
    """Return the first offset at or after `offset` where a record or a frame with a record seems to begin, or None."""
    return next(_candidates(file, offset), None)


def certain_record(file: BinaryIO, offset: int) -> int | None:
    """Return the first offset at or after `offset` where a frame of the archive itself begins and holds a record, or None.

    The content of a record may be another compressed archive. Compression may store a block of such content unchanged, so
    frames of the inner archive may appear in the file. Therefore a frame counts only if it begins a sequence of frames,
    without gaps, that is longer than one block or reaches the end of the file.
    """
    longest = _STORED[_mark(file)]
    for found in _candidates(file, offset):
        end: int | None = found
        while end is not None and end - found <= longest:
            if not read_at(file, end, 1):
                return found
            end = frame_end(file, end)
        if end is not None:
            return found
    return None


def record_starts(file: BinaryIO, every: int, sound: Callable[[int], Iterator[int]]) -> Iterator[int]:
    """Yield 0, then the offset of the first record at or after each multiple of `every` in a plain WARC.

    A record's header states where the next record begins. If a header is irregular, or if no record begins at the stated
    offset, the next record is searched for with `sound`. From an offset, `sound` yields the offsets of the records at or
    after it that the record reader can read.
    """
    offset: int | None = 0
    cut = 0
    is_sound = True
    while offset is not None and read_at(file, offset, 1):
        end = _stated_end(file, offset)
        if offset >= cut and (is_sound or end is not None):
            yield offset
            cut = offset - offset % every + every
        follows = read_at(file, end, 11) if end is not None else b""
        if end is not None and follows == b"\r\n\r\n":
            return
        is_sound = end is None or not follows.startswith(b"\r\n\r\nWARC/1.")
        if is_sound:
            at = offset
            offset = next((found for found in sound(at) if found > at), None)
        else:
            offset = (end or 0) + 4


def proved_end(file: BinaryIO, offset: int, max_bytes: int) -> int | None:
    """Return where the record or frame at an offset ends, or None if the end cannot be verified.

    A gzip frame is verified by its checksum, and any other frame by the record inside it. A plain record is verified by its
    digest. If it has no digest that can be checked, it is verified by the empty lines after it.
    """
    if is_packed(file):
        ended = frame_end(file, offset)
        if ended is None or _mark(file) is _GZIP:
            return ended
        record = unpacked(read_at(file, offset, ended - offset), dictionary_of(file), 2 * max_bytes)
        return ended if proved_end(io.BytesIO(record), 0, max_bytes) == len(record) else None
    end, header = _stated_end(file, offset), header_at(file, offset)
    if end is None or header is None:
        return None
    is_revisit = header.fields.get("warc-type", "").lower() == "revisit"
    if "warc-block-digest" in header.fields and not is_revisit and header.length <= max_bytes:
        return end + 4 if record_fits(header.fields, read_at(file, end - header.length, header.length), max_bytes) else None
    return end + 4 if read_at(file, end, 4) == b"\r\n\r\n" else None


def _candidates(file: BinaryIO, offset: int) -> Iterator[int]:
    """Yield each offset at or after `offset` where a record seems to begin."""
    mark = _mark(file)
    dictionary = dictionary_of(file) if mark is _ZSTD else None
    while True:
        window = read_at(file, offset, _WINDOW)
        for match in mark.finditer(window):
            if mark is _START or holds_record(file, offset + match.start(), dictionary):
                yield offset + match.start()
        if len(window) < _WINDOW:
            return
        offset += _WINDOW - _OVERLAP


def _mark(file: BinaryIO) -> re.Pattern[bytes]:
    """Return the pattern that matches the beginning of a record, or of a frame if the file is compressed."""
    if not is_packed(file):
        return _START
    head = head_of(file)
    return _GZIP if head.startswith(GZIP) else _LZ4 if head.startswith(LZ4) else _ZSTD


def _stated_end(file: BinaryIO, offset: int) -> int | None:
    """Return where the content of a plain record ends according to its header, or None if the header is irregular."""
    header = _header(file, offset)
    length = _DIGITS.search(header)
    if length is None or len(_LENGTH.findall(header)) != 1:
        return None
    return offset + len(header) + int(length[1])


def _header(file: BinaryIO, offset: int) -> bytes:
    """Return the header of a plain record with the empty line after it, or no bytes if the header is irregular."""
    head = read_at(file, offset, _HEAD)
    found = _HEADER.match(head) or _HEADER.match(head + read_at(file, offset + len(head), _LONG_HEAD))
    return found[0] if found else b""

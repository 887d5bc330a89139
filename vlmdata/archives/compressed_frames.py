"""Compressed frames as they lie in a file: where a gzip member, an LZ4 frame or a Zstandard frame ends, what it begins with.

Sources: RFC 1952, LZ4 Frame Format Description 1.6.4, RFC 8878, IIPC's proposal on Zstandard in WARC (its dictionary stands in
a skippable frame at the start, itself compressed or not).
"""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

from fastwarc.stream_io import Lz4Reader, ZstdReader

GZIP, ZSTD, LZ4 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"
DICTIONARY = b"\x5d\x2a\x4d\x18"
_MAX_DICTIONARY = 32 << 20  # bytes
_CHUNK = 1 << 16
_SMALL = 256  # bytes: most empty frames have less


def read_at(file: BinaryIO, place: int, size: int) -> bytes:
    """Return the bytes at an offset, none past the end; where a stream breaks off is its end."""
    try:
        file.seek(place)
        return file.read(size)
    except ConnectionError:
        raise
    except OSError:
        return b""


def head_of(file: BinaryIO) -> bytes:
    """Return the first four bytes of a file, none where it breaks off at once."""
    return read_at(file, 0, 4)


def is_packed(file: BinaryIO) -> bool:
    """Say whether a file is compressed."""
    return head_of(file).startswith((GZIP, ZSTD, LZ4, DICTIONARY))


def frame_end(file: BinaryIO, place: int) -> int | None:
    """Return where the frame at an offset ends, None where none begins or it is not whole. Of gzip its sum is checked."""
    try:
        file.seek(place)
        head = file.read(18)
        if head.startswith(GZIP):
            return _gzip_end(file, place)
        if head.startswith(LZ4):
            return _lz4_end(file, place, head)
        if head.startswith(ZSTD):
            return _zstd_end(file, place, head)
        if len(head) > 8 and head[:4] in (DICTIONARY, *(bytes((0x50 + n, 0x2A, 0x4D, 0x18)) for n in range(16))):
            return place + 8 + _number(head, 4, 4)
    except ConnectionError:
        raise
    except (IndexError, OSError, zlib.error):
        pass
    return None


def holds_record(file: BinaryIO, place: int, dictionary: bytes | None = None) -> bool:
    """Say whether the frame at an offset unpacks to the start of a record: marks of frames also occur by chance."""
    return begins_record(frame_head(file, place, dictionary))


def frame_head(file: BinaryIO, place: int, dictionary: bytes | None = None) -> bytes:
    """Return the first five bytes that the frame at an offset unpacks to, none where no frame begins."""
    try:
        file.seek(place)
        head = file.read(4096)
        if head.startswith(GZIP):
            return zlib.decompressobj(31).decompress(head, 5)
        file.seek(place)
        if head.startswith(LZ4):
            return Lz4Reader(file).read(5)
        return ZstdReader(file, dictionary=dictionary).read(5) if head.startswith(ZSTD) else b""
    except ConnectionError:
        raise
    except (OSError, ValueError, zlib.error):
        return b""


def begins_record(data: bytes) -> bool:
    """Say whether data begins as a record of WARC does, in whatever spelling."""
    return data[:5].upper() == b"WARC/"


def unpacked(frame: bytes, dictionary: bytes | None, max_bytes: int) -> bytes:
    """Return what a frame holds, as far as it can be unpacked, and no more than `max_bytes` and one byte."""
    if frame.startswith(GZIP):
        try:
            return zlib.decompressobj(31).decompress(frame, max_bytes + 1)
        except zlib.error:
            return b""
    stream = io.BytesIO(frame)
    found = b""
    try:
        reader = Lz4Reader(stream) if frame.startswith(LZ4) else ZstdReader(stream, dictionary=dictionary)
        while len(found) <= max_bytes and (data := reader.read(min(1 << 20, max_bytes + 1 - len(found)))):
            found += data
    except (OSError, ValueError):
        pass
    return found


def after_empty(file: BinaryIO, place: int) -> int:
    """Return the first offset from `place` on where no frame of gzip or LZ4 begins that holds nothing, or blank lines."""
    while (end := _blank_end(file, place)) is not None:
        place = end
    return place


def dictionary_frame(file: BinaryIO) -> bytes:
    """Return the frame that a Zstandard archive's dictionary stands in, empty where there is none."""
    head = head_of(file)
    size = _number(file.read(4), 0, 4) if head == DICTIONARY else 0
    return head + size.to_bytes(4, "little") + file.read(size) if 0 < size <= _MAX_DICTIONARY else b""


def dictionary_of(file: BinaryIO) -> bytes | None:
    """Return a Zstandard archive's dictionary, unpacked."""
    body = dictionary_frame(file)[8:]
    if not body.startswith(ZSTD):
        return body or None
    try:
        return ZstdReader(io.BytesIO(body)).read(_MAX_DICTIONARY)
    except (OSError, ValueError):
        return None


def _blank_end(file: BinaryIO, place: int) -> int | None:
    """Return where the frame at an offset ends, null where none begins or it holds more than blank lines."""
    head = read_at(file, place, 4)
    try:
        if head.startswith(GZIP):
            return _gzip_end(file, place, blank=True)
        end = frame_end(file, place) if head == LZ4 else None
        if end is None or end - place > _SMALL:
            return None
        return None if Lz4Reader(io.BytesIO(read_at(file, place, end - place))).read(_CHUNK).strip() else end
    except ConnectionError:
        raise
    except (OSError, zlib.error):
        return None


def _gzip_end(file: BinaryIO, place: int, *, blank: bool = False) -> int | None:
    """Return where a gzip member ends; of a `blank` one only, if asked so. Raises zlib.error for damage."""
    file.seek(place)
    unpacker = zlib.decompressobj(31)
    while chunk := file.read(_SMALL if blank else _CHUNK):
        place += len(chunk)
        while chunk and not unpacker.eof:
            found = unpacker.decompress(chunk, 1 << 20)
            if blank and found.strip():
                return None
            chunk = unpacker.unconsumed_tail
        if unpacker.eof:
            return place - len(unpacker.unused_data)
    return None


def _lz4_end(file: BinaryIO, place: int, head: bytes) -> int | None:
    flags = head[4]
    place += 7 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0)
    while True:
        size = _number(_at(file, place, 4), 0, 4)
        place += 4
        if size == 0:
            place += 4 if flags & 4 else 0
            return place if flags & 4 == 0 or _at(file, place - 4, 4) else None
        place += (size & 0x7FFFFFFF) + (4 if flags & 16 else 0)


def _zstd_end(file: BinaryIO, place: int, head: bytes) -> int | None:
    descriptor = head[4]
    single = descriptor >> 5 & 1
    sizes = (single, 2, 4, 8)
    place += 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + sizes[descriptor >> 6]
    while True:
        block = _number(_at(file, place, 3), 0, 3)
        kind, size = block >> 1 & 3, block >> 3
        if kind == 3:
            return None
        place += 3 + (1 if kind == 1 else size)
        if block & 1:
            break
    checked = descriptor & 4
    _at(file, place + (3 if checked else -1), 1)
    return place + (4 if checked else 0)


def _at(file: BinaryIO, place: int, size: int) -> bytes:
    """Return the bytes at an offset. Raises IndexError past the end."""
    file.seek(place)
    found = file.read(size)
    if len(found) < size:
        raise IndexError
    return found


def _number(data: bytes, place: int, size: int) -> int:
    return int.from_bytes(data[place : place + size], "little")


class Primed:
    """A file from where it stands on, with a dictionary's frame before it, for a reader that learns dictionaries as it goes."""

    def __init__(self, frame: bytes, file: BinaryIO):
        self.frame, self.file = frame, file
        self.place = 0

    def tell(self) -> int:
        return self.place

    def read(self, size: int) -> bytes:
        data = self.frame[self.place : self.place + size] if self.place < len(self.frame) else self.file.read(size)
        self.place += len(data)
        return data

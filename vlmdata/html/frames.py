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


def head_of(file: BinaryIO) -> bytes:
    """Return the first four bytes of a file, none where it breaks off at once."""
    file.seek(0)
    try:
        return file.read(4)
    except ConnectionError:
        raise
    except OSError:
        return b""


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
    try:
        file.seek(place)
        head = file.read(4096)
        if head.startswith(GZIP):
            return zlib.decompressobj(31).decompress(head, 16).startswith(b"WARC/")
        file.seek(place)
        if head.startswith(LZ4):
            return Lz4Reader(file).read(5) == b"WARC/"
        return head.startswith(ZSTD) and ZstdReader(file, dictionary=dictionary).read(5) == b"WARC/"
    except ConnectionError:
        raise
    except (OSError, ValueError, zlib.error):
        return False


def unpacked(frame: bytes, dictionary: bytes | None, max_bytes: int) -> bytes:
    """Return what an LZ4 or Zstandard frame holds, nothing where it cannot be unpacked or holds more than `max_bytes`."""
    stream = io.BytesIO(frame)
    found = b""
    try:
        reader = Lz4Reader(stream) if frame.startswith(LZ4) else ZstdReader(stream, dictionary=dictionary)
        while (data := reader.read(1 << 20)) and len(found) <= max_bytes:
            found += data
    except (OSError, ValueError):
        return b""
    return found if len(found) <= max_bytes else b""


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


def _gzip_end(file: BinaryIO, place: int) -> int | None:
    file.seek(place)
    unpacker = zlib.decompressobj(31)
    while chunk := file.read(_CHUNK):
        place += len(chunk)
        while chunk and not unpacker.eof:
            unpacker.decompress(chunk, 1 << 20)
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

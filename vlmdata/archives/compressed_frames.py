"""Finds the end and the first bytes of a compressed frame in a file: a gzip member, an LZ4 frame or a Zstandard frame.

Sources: RFC 1952, LZ4 Frame Format Description 1.6.4, RFC 8878, and IIPC's proposal on Zstandard in WARC. In the proposal, a
skippable frame at the start of the file holds the dictionary, which may be compressed.
"""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

from vlmdata.archives.codecs import lz4_reader, zstd_reader

GZIP, ZSTD, LZ4 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"
DICTIONARY = b"\x5d\x2a\x4d\x18"
_MAX_DICTIONARY = 32 << 20  # bytes
_CHUNK = 1 << 16
_SMALL = 256  # bytes to read first, because most empty frames are smaller


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Return `size` bytes at an offset, or fewer at the end of the file. Return no bytes if a damaged stream cannot be read."""
    try:
        file.seek(offset)
        return file.read(size)
    except ConnectionError:
        raise
    except OSError:
        return b""


def head_of(file: BinaryIO) -> bytes:
    """Return the first four bytes of a file, or no bytes if the file cannot be read."""
    return read_at(file, 0, 4)


def is_packed(file: BinaryIO) -> bool:
    """Return whether a file begins with a compressed frame."""
    return head_of(file).startswith((GZIP, ZSTD, LZ4, DICTIONARY))


def frame_end(file: BinaryIO, offset: int) -> int | None:
    """Return the offset at which the frame at `offset` ends, or None if there is no complete frame.

    The checksum of a gzip member is verified. The checksums of other frames are not.
    """
    try:
        file.seek(offset)
        head = file.read(18)
        if head.startswith(GZIP):
            return _gzip_end(file, offset)
        if head.startswith(LZ4):
            return _lz4_end(file, offset, head)
        if head.startswith(ZSTD):
            return _zstd_end(file, offset, head)
        if len(head) > 8 and head[:4] in (DICTIONARY, *(bytes((0x50 + n, 0x2A, 0x4D, 0x18)) for n in range(16))):
            return offset + 8 + _number(head, 4, 4)
    except ConnectionError:
        raise
    except (IndexError, OSError, zlib.error):
        pass
    return None


def holds_record(file: BinaryIO, offset: int, dictionary: bytes | None = None) -> bool:
    """Return whether the frame at an offset unpacks to the start of a record. False for other data that looks like a frame."""
    return begins_record(frame_head(file, offset, dictionary))


def frame_head(file: BinaryIO, offset: int, dictionary: bytes | None = None) -> bytes:
    """Return the first five bytes that the frame at an offset unpacks to, or no bytes if no frame begins there."""
    try:
        file.seek(offset)
        head = file.read(4096)
        if head.startswith(GZIP):
            return zlib.decompressobj(31).decompress(head, 5)
        file.seek(offset)
        if head.startswith(LZ4):
            return lz4_reader(file).read(5)
        return zstd_reader(file, dictionary=dictionary).read(5) if head.startswith(ZSTD) else b""
    except ConnectionError:
        raise
    except (OSError, ValueError, zlib.error):
        return b""


def begins_record(data: bytes) -> bool:
    """Return whether data begins with `WARC/`, the start of a WARC record. Case is ignored."""
    return data[:5].upper() == b"WARC/"


def unpacked(frame: bytes, dictionary: bytes | None, max_bytes: int) -> bytes:
    """Return the first `max_bytes` + 1 bytes of a frame's content, or fewer if the content is shorter.

    If the frame is cut off, return the content before the cut. If the frame is damaged, return the content before the damage,
    or no bytes if the frame is a gzip member.
    """
    if frame.startswith(GZIP):
        try:
            return zlib.decompressobj(31).decompress(frame, max_bytes + 1)
        except zlib.error:
            return b""
    stream = io.BytesIO(frame)
    found = b""
    try:
        reader = lz4_reader(stream) if frame.startswith(LZ4) else zstd_reader(stream, dictionary=dictionary)
        while len(found) <= max_bytes and (data := reader.read(min(1 << 20, max_bytes + 1 - len(found)))):
            found += data
    except (OSError, ValueError):
        pass
    return found


def after_empty(file: BinaryIO, offset: int) -> int:
    """Skip the gzip and LZ4 frames at `offset` that hold nothing or only blank lines. Return the offset after them."""
    while (end := _blank_end(file, offset)) is not None:
        offset = end
    return offset


def dictionary_frame(file: BinaryIO) -> bytes:
    """Return the frame that holds the dictionary of a Zstandard archive, or no bytes if there is none."""
    head = head_of(file)
    size = _number(file.read(4), 0, 4) if head == DICTIONARY else 0
    return head + size.to_bytes(4, "little") + file.read(size) if 0 < size <= _MAX_DICTIONARY else b""


def dictionary_of(file: BinaryIO) -> bytes | None:
    """Return the unpacked dictionary of a Zstandard archive, or None if the dictionary is missing or damaged."""
    body = dictionary_frame(file)[8:]
    if not body.startswith(ZSTD):
        return body or None
    try:
        return zstd_reader(io.BytesIO(body)).read(_MAX_DICTIONARY)
    except (OSError, ValueError):
        return None


def _blank_end(file: BinaryIO, offset: int) -> int | None:
    """Return where the frame at an offset ends if it holds nothing but blank lines.

    Return None if it holds anything else, or if no frame begins there.
    """
    head = read_at(file, offset, 4)
    try:
        if head.startswith(GZIP):
            return _gzip_end(file, offset, blank=True)
        end = frame_end(file, offset) if head == LZ4 else None
        if end is None or end - offset > _SMALL:
            return None
        return None if lz4_reader(io.BytesIO(read_at(file, offset, end - offset))).read(_CHUNK).strip() else end
    except ConnectionError:
        raise
    except (OSError, zlib.error):
        return None


def _gzip_end(file: BinaryIO, offset: int, *, blank: bool = False) -> int | None:
    """Return where the gzip member at an offset ends, or None if it is cut off. Raises zlib.error for damage.

    With `blank`, also return None if the member holds more than blank lines.
    """
    file.seek(offset)
    unpacker = zlib.decompressobj(31)
    while chunk := file.read(_SMALL if blank else _CHUNK):
        offset += len(chunk)
        while chunk and not unpacker.eof:
            found = unpacker.decompress(chunk, 1 << 20)
            if blank and found.strip():
                return None
            chunk = unpacker.unconsumed_tail
        if unpacker.eof:
            return offset - len(unpacker.unused_data)
    return None


def _lz4_end(file: BinaryIO, offset: int, head: bytes) -> int | None:
    flags = head[4]
    offset += 7 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0)
    while True:
        size = _number(_at(file, offset, 4), 0, 4)
        offset += 4
        if size == 0:
            offset += 4 if flags & 4 else 0
            return offset if flags & 4 == 0 or _at(file, offset - 4, 4) else None
        offset += (size & 0x7FFFFFFF) + (4 if flags & 16 else 0)


def _zstd_end(file: BinaryIO, offset: int, head: bytes) -> int | None:
    descriptor = head[4]
    single = descriptor >> 5 & 1
    sizes = (single, 2, 4, 8)
    offset += 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + sizes[descriptor >> 6]
    while True:
        block = _number(_at(file, offset, 3), 0, 3)
        kind, size = block >> 1 & 3, block >> 3
        if kind == 3:
            return None
        offset += 3 + (1 if kind == 1 else size)
        if block & 1:
            break
    checked = descriptor & 4
    _at(file, offset + (3 if checked else -1), 1)
    return offset + (4 if checked else 0)


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Return `size` bytes at an offset. Raises IndexError if the file holds fewer bytes there."""
    file.seek(offset)
    found = file.read(size)
    if len(found) < size:
        raise IndexError
    return found


def _number(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "little")


class PrependedDictionary:
    """A file-like object that first reads the bytes `frame`, a dictionary, and then reads `file` from its current offset.

    FastWARC expects the dictionary at the start of its input.
    """

    def __init__(self, frame: bytes, file: BinaryIO):
        self.frame, self.file = frame, file
        self.offset = 0

    def tell(self) -> int:
        """Return the offset in the joined stream."""
        return self.offset

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, or no bytes at the end."""
        data = self.frame[self.offset : self.offset + size] if self.offset < len(self.frame) else self.file.read(size)
        self.offset += len(data)
        return data

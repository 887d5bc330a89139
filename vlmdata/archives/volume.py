"""Opens a volume of records (a file, or a member of a WACZ) as a file in which each record has an offset."""

from __future__ import annotations

import functools
import gzip
import os
import zipfile
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

from vlmdata.archives.arc import is_arc
from vlmdata.archives.codecs import lz4_reader, zstd_reader
from vlmdata.archives.compressed_frames import (
    GZIP,
    LZ4,
    after_empty,
    dictionary_of,
    frame_end,
    head_of,
    holds_record,
    is_packed,
    read_at,
)
from vlmdata.archives.entries import entries
from vlmdata.archives.remote_archives import open_archive
from vlmdata.archives.resync import next_record
from vlmdata.archives.sequential import sequential
from vlmdata.readers.find_files import is_remote

ZIP = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class Volume:
    """A stream of records: a file, or a member of a WACZ."""

    path: str
    member: str | None = None

    def open(self) -> Any:
        """Open the volume as a file in which each record has an offset.

        The file holds the stored bytes if the volume is plain or each record is a compressed frame. Otherwise it holds the
        unpacked bytes. Use it in a `with` block. After the block, an unpacked stream stays open, and the next call continues it
        instead of unpacking the volume from its start.
        """
        identity = self.identity()
        if _has_record_offsets(self, identity):
            return self._open_stored()
        return sequential((*identity, "unpacked"), self._open_unpacked)

    def size(self) -> int:
        """Return the size of the file in bytes. For a member of a zip, return its uncompressed size."""
        with open_archive(self.path) as file:
            if self.member is None:
                return file.seek(0, os.SEEK_END)
            return zipfile.ZipFile(file).getinfo(self.member).file_size

    def _open_stored(self) -> Any:
        if self.member is None:
            return open_archive(self.path)
        file = open_archive(self.path)
        info = zipfile.ZipFile(file).getinfo(self.member)
        if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1 and info.header_offset >= 0:
            file.seek(info.header_offset)
            head = file.read(30)
            if head.startswith(ZIP):
                skipped = 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
                return FileRange(file, info.header_offset + skipped, info.file_size)
        file.close()
        return sequential(self.identity(), self._open_member)

    def _open_member(self) -> Any:
        return zipfile.ZipFile(open_archive(self.path)).open(self.member or "")

    def _open_unpacked(self) -> Any:
        stored = self._open_stored()
        head = head_of(stored)
        stored.seek(0)
        if head.startswith(GZIP):
            return gzip.GzipFile(fileobj=stored)
        return _Read1(lz4_reader(stored) if head == LZ4 else zstd_reader(stored))

    def identity(self) -> tuple[Any, ...]:
        """Return a cache key: (path, member, (size, modification time in ns)), or (path, member, None) for a remote path."""
        about = None if is_remote(self.path) else os.stat(self.path)
        return self.path, self.member, about and (about.st_size, about.st_mtime_ns)


class FileRange:
    """A file-like object that reads a byte range of another file."""

    def __init__(self, file: BinaryIO, start: int, size: int):
        self.file, self.start, self.size = file, start, size
        self.offset = 0

    def __enter__(self) -> FileRange:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def seek(self, offset: int) -> int:
        """Set the offset within the range, and return it."""
        self.offset = offset
        return offset

    def tell(self) -> int:
        """Return the offset within the range."""
        return self.offset

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, or no bytes at the end of the range."""
        self.file.seek(self.start + self.offset)
        data = self.file.read(max(0, min(size, self.size - self.offset)))
        self.offset += len(data)
        return data

    def close(self) -> None:
        """Close the underlying file."""
        self.file.close()


class _Read1:
    """Gives a FastWARC reader the method `read1`, which calls its `read` and skips empty frames.

    The reader's `read` behaves like `read1` of Python's files: it may return fewer bytes than requested.
    """

    def __init__(self, reader: Any):
        self.reader = reader
        self.close = reader.close

    def read1(self, size: int) -> bytes:
        while True:
            before = self.reader.inner_tell()
            data = self.reader.read(size)
            if data or self.reader.inner_tell() == before:
                return data


@functools.lru_cache(maxsize=1000)
def _has_record_offsets(volume: Volume, identity: tuple[Any, ...]) -> bool:
    """Return whether each record can be read at its own offset in the file as it is stored.

    This is true if the volume is plain, or if its first three records are compressed frames. It is false for a compressed ARC
    and for a file whose records form one compressed stream.
    """
    with volume._open_stored() as file:
        if not is_packed(file):
            return True
        if is_arc(file):
            return False
        try:
            offsets = [offset for offset, _ in islice(entries(file, 0), 3)]
        except ConnectionError:
            raise
        except (OSError, ValueError):
            return next_record(file, 1) is not None
        if len(offsets) == 1 and (end := frame_end(file, offsets[0])) and not read_at(file, after_empty(file, end), 1):
            return False  # one frame holds everything, and a record with a false length may hide further records in it
        dictionary = dictionary_of(file)
        return len(set(offsets)) == len(offsets) and all(holds_record(file, offset, dictionary) for offset in offsets[1:])

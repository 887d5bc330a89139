"""What holds records: a file, or a member of a WACZ, as a file in which each record has a place."""

from __future__ import annotations

import functools
import gzip
import os
import zipfile
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

from fastwarc.stream_io import Lz4Reader, WarcReader, ZstdReader

from vlmdata.archives.arc import is_arc
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
    """One stream of records: a file, or a member of a WACZ."""

    path: str
    member: str | None = None

    def open(self) -> Any:
        """Open for reading: as it lies where each record is a frame or nothing is packed, else unpacked from its start.

        Use it in a `with`: a later piece of an unpacked stream then goes on where this one ended.
        """
        identity = self.identity()
        if _is_reached(self, identity):
            return self._lying()
        return sequential((*identity, "unpacked"), self._unpacked)

    def size(self) -> int:
        """Return the bytes of the file, or of the member without the packing of the zip."""
        with open_archive(self.path) as file:
            if self.member is None:
                return file.seek(0, os.SEEK_END)
            return zipfile.ZipFile(file).getinfo(self.member).file_size

    def _lying(self) -> Any:
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
        return sequential(self.identity(), self._member)

    def _member(self) -> Any:
        return zipfile.ZipFile(open_archive(self.path)).open(self.member or "")

    def _unpacked(self) -> Any:
        lying = self._lying()
        head = head_of(lying)
        lying.seek(0)
        if head.startswith(GZIP):
            return gzip.GzipFile(fileobj=lying)
        return _Onwards(Lz4Reader(lying) if head == LZ4 else ZstdReader(lying))

    def identity(self) -> tuple[Any, ...]:
        """Tell this volume from what lay at its path before."""
        about = None if is_remote(self.path) else os.stat(self.path)
        return self.path, self.member, about and (about.st_size, about.st_mtime_ns)


class FileRange:
    """A stretch of a file as a file."""

    def __init__(self, file: BinaryIO, start: int, size: int):
        self.file, self.start, self.size = file, start, size
        self.place = 0

    def __enter__(self) -> FileRange:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def seek(self, offset: int) -> int:
        self.place = offset
        return offset

    def tell(self) -> int:
        return self.place

    def read(self, size: int) -> bytes:
        self.file.seek(self.start + self.place)
        data = self.file.read(max(0, min(size, self.size - self.place)))
        self.place += len(data)
        return data

    def close(self) -> None:
        self.file.close()


class _Onwards:
    """A reader of FastWARC's, whose `read` does what Python's call `read1`, past frames that hold nothing."""

    def __init__(self, reader: WarcReader):
        self.reader = reader
        self.close = reader.close

    def read1(self, size: int) -> bytes:
        while True:
            before = self.reader.inner_tell()
            data = self.reader.read(size)
            if data or self.reader.inner_tell() == before:
                return data


@functools.lru_cache(maxsize=1000)
def _is_reached(volume: Volume, identity: tuple[Any, ...]) -> bool:
    """Say whether records can be read where they lie: nothing is packed, or each of the first three is a frame of its own.

    They are not in a packed ARC, nor in one stream over all records.
    """
    with volume._lying() as file:
        if not is_packed(file):
            return True
        if is_arc(file):
            return False
        try:
            places = [offset for offset, _ in islice(entries(file, 0), 3)]
        except ConnectionError:
            raise
        except (OSError, ValueError):
            return next_record(file, 1) is not None
        if len(places) == 1 and (end := frame_end(file, places[0])) and not read_at(file, after_empty(file, end), 1):
            return False  # one frame: a record whose length lies may hide others in it
        dictionary = dictionary_of(file)
        return len(set(places)) == len(places) and all(holds_record(file, place, dictionary) for place in places[1:])

"""Write shards of MosaicML Streaming's format MDS: a header with the offsets of the samples, then the samples.

A file holds uint32 values in little endian: the number of samples, and the offset where each sample begins, and the end of the
last one. Then come the columns as JSON, and the samples. A sample has the sizes of its columns as uint32, then their bytes.
index.json describes each file. Source: the files that mosaicml-streaming 0.13.0 writes, and
https://docs.mosaicml.com/projects/streaming/en/latest/preparing_datasets/dataset_format.html.
"""

from __future__ import annotations

import hashlib
import json
import struct
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import xxhash

from vlmdata.exporting.exporter import Unsuitable

LARGEST = 2**32 - 1  # largest offset in a file
HASHES: Mapping[str, Callable[[], Any]] = {
    "md5": hashlib.md5,
    "sha1": hashlib.sha1,
    "sha256": hashlib.sha256,
    "xxh64": xxhash.xxh64,
    "xxh128": xxhash.xxh128,
}
_BLOCK = 1 << 20  # bytes that are copied at once
_ZSTD_HEADER = 6  # bytes of a frame's header without the size of its content


class Form(NamedTuple):
    """What all files of an export have in common. Every column has a variable size."""

    columns: Mapping[str, str]  # encoding by name, sorted by name
    size_limit: int  # bytes of a file before compression
    compression: str | None = None  # "zstd" or None
    hashes: Sequence[str] = ()  # names in HASHES, sorted

    def described(self) -> dict[str, Any]:
        """Return the description of the columns, which is in each file and in index.json."""
        return {
            "column_encodings": list(self.columns.values()),
            "column_names": list(self.columns),
            "column_sizes": [None] * len(self.columns),
            "compression": self.compression,
            "format": "mds",
            "hashes": list(self.hashes),
            "size_limit": self.size_limit,
            "version": 2,
        }


class MdsFiles:
    """The MDS files of one shard. A file ends before the sample that would make it larger than the limit.

    The limit holds for all files except those with a single sample. Samples are collected in the file `body` until a file is
    complete, because their offsets come first. So the memory does not grow with the limit.
    """

    def __init__(self, folder: Path, body: Path, prefix: str, form: Form, *, largest: int = LARGEST) -> None:
        self.entries: list[dict[str, Any]] = []  # of index.json
        self._folder, self._prefix, self._form, self._largest = folder, prefix, form, largest
        self._config = json.dumps(form.described(), sort_keys=True).encode()
        self._body = body.open("w+b")
        self._sizes = array("Q")
        self._bytes = len(self._config) + 8  # of the file with the samples so far

    def __enter__(self) -> MdsFiles:
        return self

    def __exit__(self, *error: object) -> None:
        self._body.close()

    def add(self, cells: Mapping[str, bytes]) -> None:
        """Add a sample, with the encoded value of each column. Raises Unsuitable for a sample that no file can hold."""
        values = [cells[name] for name in self._form.columns]
        size = 4 * len(values) + sum(map(len, values))
        if len(self._config) + 8 + 4 + size > self._largest:
            raise Unsuitable(f"it has {size} bytes, and an MDS file holds at most {self._largest}")
        if self._sizes and self._bytes + 4 + size > min(self._form.size_limit, self._largest):
            self.flush()
        self._body.write(struct.pack(f"<{len(values)}I", *map(len, values)))
        self._body.writelines(values)
        self._sizes.append(size)
        self._bytes += 4 + size

    def flush(self) -> None:
        """Write the collected samples, if there are any, to the next file."""
        if not self._sizes:
            return
        name = f"{self._prefix}.{len(self.entries):05d}.mds"
        raw = _Hashed(self._form.hashes)
        zipped = None
        if self._form.compression is None:
            with (self._folder / name).open("wb") as file:
                raw.copy(self._content(), file)
        else:
            zipped = _Hashed(self._form.hashes)
            with (self._folder / f"{name}.zstd").open("wb") as file:
                sized = _SizedFrame(lambda data: zipped.write(data, file), self._bytes)
                with pa.CompressedOutputStream(pa.PythonFile(sized, "w"), "zstd") as stream:
                    raw.copy(self._content(), stream)
        assert raw.bytes == self._bytes, "the header's size is wrong"
        self.entries.append(
            {
                **self._form.described(),
                "raw_data": raw.described(name),
                "samples": len(self._sizes),
                "zip_data": zipped and zipped.described(f"{name}.zstd"),
            }
        )
        self._body.seek(0)
        self._body.truncate()
        del self._sizes[:]
        self._bytes = len(self._config) + 8

    def _content(self) -> Iterator[bytes]:
        """Yield the bytes of the next file."""
        offset = 4 + 4 * (len(self._sizes) + 1) + len(self._config)
        offsets = [offset]
        for size in self._sizes:
            offset += size
            offsets.append(offset)
        yield struct.pack(f"<{len(offsets) + 1}I", len(self._sizes), *offsets)
        yield self._config
        self._body.seek(0)
        while block := self._body.read(_BLOCK):
            yield block


class _Hashed:
    """Counts and hashes the bytes of a file while they are written."""

    def __init__(self, names: Sequence[str]) -> None:
        self.bytes = 0
        self._hashes = {name: HASHES[name]() for name in names}

    def write(self, data: bytes, file: Any) -> None:
        self.bytes += len(data)
        for one in self._hashes.values():
            one.update(data)
        file.write(data)

    def copy(self, blocks: Iterator[bytes], file: Any) -> None:
        for block in blocks:
            self.write(block, file)

    def described(self, name: str) -> dict[str, Any]:
        hashes = {name: one.hexdigest() for name, one in self._hashes.items()}
        return {"basename": name, "bytes": self.bytes, "hashes": hashes}


class _SizedFrame:
    """A file for one Zstandard frame, which adds the size of the content to the frame's header.

    Arrow's streams leave the size out, and Streaming reads only frames that state it. The header is the magic number, a byte of
    flags and the window: flags 00xxxxxx become 11xxxxxx, and the size follows the window (RFC 8878, section 3.1.1.1).
    """

    closed = False

    def __init__(self, write: Callable[[bytes], None], size: int) -> None:
        self._write, self._size, self._head = write, size, b""

    def write(self, data: Any) -> int:
        data = bytes(data)
        if self._size >= 0:
            self._head += data
            if len(self._head) < _ZSTD_HEADER:
                return len(data)
            flags = self._head[4]
            assert flags & 0b11100011 == 0, "the frame states a size or a dictionary"
            head = self._head[:4] + bytes([flags | 0b11000000]) + self._head[5:_ZSTD_HEADER] + struct.pack("<Q", self._size)
            self._write(head + self._head[_ZSTD_HEADER:])
            self._size, self._head = -1, b""
        else:
            self._write(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: every write is passed on at once."""

    def close(self) -> None:
        """Do nothing: the file below is closed by its owner."""


def list_cell(images: Sequence[bytes]) -> bytes:
    """Return the value of a column of the encoding list[jpeg]: four zero bytes, the number of images, sizes, and bytes.

    Streaming opens each image with Pillow by its content, so images of any format may be in the list.
    """
    return struct.pack(f"<{len(images) + 2}I", 0, len(images), *map(len, images)) + b"".join(images)


def write_index(file: IO[str], entries: Iterator[dict[str, Any]]) -> None:
    """Write index.json from the entries of all files, one at a time."""
    file.write('{"shards": [')
    for number, entry in enumerate(entries):
        file.write((",\n" if number else "\n") + json.dumps(entry, sort_keys=True))
    file.write('\n], "version": 2}\n')

"""Open one MDS shard, check its hashes, and locate the columns of its samples without reading the whole file."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import itertools
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from vlmdata.loader.index.tar import Member, Read
from vlmdata.readers.find_files import is_remote
from vlmdata.readers.open_file import UNREADABLE, Damage, raw_file
from vlmdata.readers.strings import clean
from vlmdata.readers.tar_samples import BadSample
from vlmdata.untrusted import one_line

Columns = Sequence[tuple[str, str, int | None]]  # name, encoding, size in bytes or None if it varies
_BLOCK = 1 << 20  # bytes that are read at once
_OFFSETS = 1 << 14  # offsets that are read at once
_STREAMS = {"br": "brotli", "zstd": "zstd"}  # Arrow's names


class Opened(NamedTuple):
    """An open shard. Offsets refer to the decompressed file."""

    read: Read
    length: int
    blob: str | None  # the path, if rows can refer to bytes in the file
    problem: str | None  # why only the first part of a compressed file could be read


def open_shard(shard: Mapping[str, Any], stack: ExitStack) -> Opened:
    """Open a shard that `shards_in` described. Raises one of UNREADABLE, which includes Damage for a wrong hash."""
    path = shard["path"]
    file = stack.enter_context(raw_file(path))
    if shard["compression"] is not None:
        _check(file, shard["packed_hashes"])
        file, problem = _unpacked(file, shard["compression"], shard["bytes"], stack)
        if problem is None:
            _check(file, shard["hashes"])
        return Opened(_reader(file), file.seek(0, os.SEEK_END), None, problem)
    _check(file, shard["hashes"])
    length = file.seek(0, os.SEEK_END)
    return Opened(_reader(file, is_local=not is_remote(path)), length, path if path == clean(path) else None, None)


def samples(read: Read, length: int, columns: Columns, stated: int) -> Iterator[tuple[int, int, dict[str, Member] | BadSample]]:
    """Yield (number, offset, columns) of each sample, or the error that says why the sample cannot be read.

    A column is a Member with the name of the column. Raises Damage if the header does not fit the file, or the number of
    samples that the index states. No byte belongs to two samples.
    """
    head = read(0, 4)
    count = int.from_bytes(head, "little")
    start = 4 + 4 * (count + 1)
    if len(head) < 4 or start > length:
        raise Damage(f"the header does not fit the file's {length} bytes")
    if count != stated:
        raise Damage(f"the file holds {count} samples, and the index states {stated}")
    for first in range(0, count, _OFFSETS):
        wanted = min(_OFFSETS, count - first) + 1
        offsets = np.frombuffer(read(4 + 4 * first, 4 * wanted), "<u4").tolist()
        for number, (begin, end) in enumerate(itertools.pairwise(offsets), first):
            if not start <= begin < end <= length:
                where = f"its bytes {begin} to {end} are not a part of the file after the samples before it"
                yield number, begin, BadSample(f"{where}. The file has {length} bytes")
                continue
            start = end
            yield number, begin, _columns(read, begin, end, columns)


def _columns(read: Read, begin: int, end: int, columns: Columns) -> dict[str, Member] | BadSample:
    """Return the columns of a sample: the sizes of those that vary come first, then the bytes of all."""
    varying = sum(size is None for _, _, size in columns)
    offset = begin + 4 * varying
    if offset > end:
        return BadSample(f"it has {end - begin} bytes, too few for the sizes of its columns")
    sizes = iter(struct.unpack(f"<{varying}I", read(begin, 4 * varying)))
    found = {}
    for name, _, fixed in columns:
        size = next(sizes) if fixed is None else fixed
        found[name] = Member(name, begin, offset, size, offset + size)
        offset += size
    if offset != end:
        return BadSample(f"its columns take {offset - begin} bytes, and the sample has {end - begin}")
    return found


def _reader(file: Any, *, is_local: bool = True) -> Read:
    if is_local:
        number = file.fileno()
        return lambda offset, size: os.pread(number, size, offset)

    def read(offset: int, size: int) -> bytes:
        file.seek(offset)
        return file.read(size)

    return read


def _check(file: IO[bytes], hashes: Mapping[str, str]) -> None:
    """Read the file if hashes are stated, and raise Damage if one is wrong or cannot be computed."""
    running = {name: _hash(name) for name in hashes}
    file.seek(0)
    while running and (block := file.read(_BLOCK)):
        for one in running.values():
            one.update(block)
    wrong = [name for name, one in running.items() if one.hexdigest() != hashes[name]]
    if wrong:
        raise Damage(f"the {', '.join(wrong)} of the file is not the one in the index. Copy the file again")
    file.seek(0)


def _hash(name: str) -> Any:
    if name in xxhash.algorithms_available:
        return getattr(xxhash, name)()
    if name in hashlib.algorithms_available and not name.startswith("shake_"):  # these need a length
        with contextlib.suppress(ValueError):  # an algorithm that OpenSSL refuses
            return hashlib.new(name)
    raise Damage(f"the index states a hash {name!r:.40}, which cannot be computed here")


def _unpacked(file: Any, kind: str, limit: int, stack: ExitStack) -> tuple[IO[bytes], str | None]:
    """Return a decompressed copy of a file, and the error that cut it short, or None.

    Raises Damage if the copy has more than `limit` bytes, so that a small file cannot fill the disk.
    """
    copy = stack.enter_context(tempfile.TemporaryFile(prefix="vlmdata-"))  # noqa: SIM115  the caller's stack closes it
    written = 0
    stream: Any = bz2.BZ2File(file) if kind == "bz2" else gzip.GzipFile(fileobj=file) if kind == "gz" else _arrow(file, kind)
    while True:
        try:
            block = stream.read(_BLOCK)
        except UNREADABLE as error:
            return copy, f"it cannot be decompressed: {one_line(error)}"
        if not block:
            return copy, None
        written += len(block)
        if written > limit:
            raise Damage(f"it decompresses to more than the {limit} bytes that the index states")
        copy.write(block)
        copy.flush()


def _arrow(file: IO[bytes], kind: str) -> Any:
    return pa.CompressedInputStream(pa.PythonFile(file, "r"), _STREAMS[kind])

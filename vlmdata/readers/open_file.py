"""A file of a source opened for reading: by path or address, decompressed by what its first bytes say."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

import fsspec
import pyarrow as pa

from vlmdata.readers.find_files import is_remote
from vlmdata.step import RecipeError
from vlmdata.untrusted import one_line

COMPRESSED = (".gz", ".zst", ".bz2", ".xz")  # endings; what a file is, its first bytes say
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}


class Damage(ValueError):
    """A file that is not what it should be; whoever opened it adds its name."""


UNREADABLE = (Damage, OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowInvalid, UnicodeDecodeError)


@contextlib.contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Open a file as a stream of plain bytes. While it is read, damage becomes a RecipeError that names the file."""
    with contextlib.ExitStack() as stack:
        try:
            raw = stack.enter_context(raw_file(path))
            yield stack.enter_context(_plain(raw))
        except UNREADABLE as error:
            raise RecipeError(f"{path}: cannot be read: {one_line(error)}") from None


def raw_file(path: str) -> Any:
    """Open a file as it lies, compressed or not, for reading and seeking."""
    if is_remote(path):
        fs, inside = fsspec.url_to_fs(path)  # options given to fsspec.open would go to the store, which does not know them
        file = fs.open(inside, "rb", cache_type="readahead", block_size=4 << 20)
        file.fs = fs  # an archive's file system closes the archive when nobody holds it any more
        return file
    return open(path, "rb", buffering=1 << 20)


def compression(head: bytes) -> str | None:
    """Return how a file is compressed, from its first six bytes, or None."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


def _plain(raw: IO[bytes]) -> Any:
    kind = compression(raw.read(6))
    raw.seek(0)
    if kind == "zstd":
        return pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")
    if kind == "gzip":
        return gzip.open(raw)
    if kind == "bz2":
        return bz2.open(raw)
    if kind == "xz":
        return lzma.open(raw)
    return raw


@contextlib.contextmanager
def seekable(path: str) -> Iterator[IO[bytes]]:
    """Open a file for reading at any place; a compressed one is first unpacked to a temporary file."""
    with contextlib.ExitStack() as stack:
        try:
            raw = stack.enter_context(raw_file(path))
            kind = compression(raw.read(6))
            raw.seek(0)
            if kind is not None:
                copy = stack.enter_context(tempfile.TemporaryFile(prefix="vlmdata-"))
                shutil.copyfileobj(stack.enter_context(_plain(raw)), copy, 1 << 20)
                copy.seek(0)
                raw = copy
        except UNREADABLE as error:
            raise RecipeError(f"{path}: cannot be read: {one_line(error)}") from None
        yield raw


def bare_name(path: str) -> str:
    """Return a path in lower case without the ending of its compression."""
    name = path.lower()
    base, ending = os.path.splitext(name)
    return base if ending in COMPRESSED else name

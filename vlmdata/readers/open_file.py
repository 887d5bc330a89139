"""Open a source's file by path or address, decompressed according to its first bytes."""

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

import pyarrow as pa

from vlmdata.readers.find_files import is_remote
from vlmdata.step import RecipeError
from vlmdata.untrusted import one_line

COMPRESSED = (".gz", ".zst", ".bz2", ".xz")  # file endings; the first bytes decide how to decompress
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}


class Damage(ValueError):
    """The error for a file that is damaged or has the wrong format. The caller that opened the file adds its name."""


UNREADABLE = (Damage, OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowInvalid, UnicodeDecodeError)


@contextlib.contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Open a file as a stream of decompressed bytes. An error while reading becomes a RecipeError that names the file."""
    with contextlib.ExitStack() as stack:
        try:
            raw = stack.enter_context(raw_file(path))
            yield stack.enter_context(_plain(raw))
        except UNREADABLE as error:
            raise RecipeError(f"{path} cannot be read: {one_line(error)}") from None


def raw_file(path: str) -> Any:
    """Open a file for reading and seeking, without decompression."""
    if is_remote(path):
        import fsspec

        fs, inside = fsspec.url_to_fs(path)  # fsspec.open would pass these options to the store, which rejects them
        file = fs.open(inside, "rb", cache_type="readahead", block_size=4 << 20)
        file.fs = fs  # keep a reference: if an archive's file system is garbage-collected, it closes the archive
        return file
    return open(path, "rb", buffering=1 << 20)


def compression(head: bytes) -> str | None:
    """Return the compression that a file's first six bytes show, or None if the file is not compressed."""
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
    """Open a file for random access. A compressed file is first decompressed to a temporary file."""
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
            raise RecipeError(f"{path} cannot be read: {one_line(error)}") from None
        yield raw


def bare_name(path: str) -> str:
    """Return a path in lower case without its compression ending."""
    name = path.lower()
    base, ending = os.path.splitext(name)
    return base if ending in COMPRESSED else name

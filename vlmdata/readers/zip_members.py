"""Read single members of a zip archive within limits, without unpacking to disk."""

from __future__ import annotations

import functools
import os
import zipfile

from vlmdata.readers.open_file import Damage, raw_file
from vlmdata.untrusted import errors_as, one_line

RATIO = 1100  # deflate compresses at most 1032 to 1; a higher ratio is a bomb or a false size
SMALL = 1 << 20  # bytes; the ratio of a smaller member does not matter
PIECE = 1 << 20  # bytes per read: in one read zipfile unpacks up to 2 GB before it checks the member's size


class UnusableFile(ValueError):
    """The error for a file that cannot be used. The message says why, and `reason` goes into the ledger."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


def archive(path: str) -> zipfile.ZipFile:
    """Return a zip archive, which stays open for the next calls. Raises Damage if it cannot be read."""
    return _archive(path, os.getpid())


@functools.lru_cache(maxsize=2)
def _archive(path: str, process: int) -> zipfile.ZipFile:
    """Open an archive for one process, because processes that share an open file would move each other's position."""
    with errors_as(lambda error: Damage(f"the zip archive cannot be read: {error}")):
        return zipfile.ZipFile(raw_file(path))


def read_member(path: str, name: str, most: int) -> bytes:
    """Return a member's bytes. Raises Damage if the archive cannot be read.

    Raises UnusableFile if the member cannot be used. Its reason is `too_large`, `encrypted`, `unreadable_file` or `no_file`.
    """
    opened = archive(path)
    try:
        info = opened.getinfo(name)
    except KeyError:
        raise UnusableFile("no_file", "the archive has no such member") from None
    if info.flag_bits & 1:
        raise UnusableFile("encrypted", "the member is encrypted")
    is_bomb = info.file_size > SMALL and info.file_size > RATIO * info.compress_size
    if info.file_size > most or is_bomb:
        sizes = f"{info.file_size:,} bytes, compressed to {info.compress_size:,}"
        raise UnusableFile("too_large", f"the member has {sizes}. This exceeds the limit on size or compression ratio")
    # with other methods, the member states how much memory its decompression takes
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnusableFile("unreadable_file", f"compression method {info.compress_type} of the member is not supported")
    with errors_as(lambda error: UnusableFile("unreadable_file", one_line(error))), opened.open(info) as member:
        return b"".join(iter(lambda: member.read(PIECE), b""))

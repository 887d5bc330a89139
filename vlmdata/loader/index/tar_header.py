"""Compares the headers of a tar with an index."""

from collections.abc import Callable

from vlmdata.loader.index.grouping import key_of
from vlmdata.loader.index.tar import BLOCK, Member, TarDamage, members

Read = Callable[[int, int], bytes]  # (offset, size) -> bytes
SIZE_AT = 124  # offset of the size field in a header
NEAR, FAR = 8 * BLOCK, 256 * BLOCK  # bytes before a member's data that are searched for its headers
EXTRA = b"LKxg"  # types of extended headers, which hold metadata of the next member


def is_member(read: Read, begin: str, name: str, offset: int, size: int) -> bool:
    """Return whether the `size` bytes at `offset` are a member with the name `begin` + `name`. The case of `name` is ignored.

    Most members have one header. If the name or the size does not fit into this header, extended headers before it hold them.
    """
    for reach in (NEAR, FAR):
        start = max(0, offset - reach)
        blocks = read(start, offset - start)
        for at in range(offset - start - BLOCK, -1, -BLOCK):
            is_last = start + at + BLOCK == offset
            if is_last or blocks[at + 156 : at + 157] in EXTRA:
                found = _first(blocks[at:], size)
                if found is None or (found.offset, found.size) != (offset - start - at, size):
                    continue
                if found.name.startswith(begin) and found.name[len(begin) :].lower() == name:
                    return True
    return False


def _first(headers: bytes, size: int) -> Member | None:
    """Return the member that these headers, followed by `size` bytes of data, describe, or None if the headers are invalid."""
    found = next(members(lambda offset, amount: headers[offset : offset + amount], len(headers) + size), None)
    return found if isinstance(found, Member) else None


def has_samples(read: Read, length: int) -> bool:
    """Return whether the bytes after the last indexed sample contain another sample. `length` is the number of these bytes."""
    if length <= 0 or not any(read(0, BLOCK)):
        return False
    for found in members(read, length):
        if isinstance(found, TarDamage):
            return False
        if isinstance(found, Member) and key_of(found.name):
            return True
    return False

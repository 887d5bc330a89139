"""Checks a tar's headers against an index."""

from collections.abc import Callable

from vlmdata.loader.index.grouping import key_of
from vlmdata.loader.index.tar import BLOCK, Member, TarDamage, members

Read = Callable[[int, int], bytes]  # offset, size
SIZE_AT = 124  # offset of the size in a header
NEAR, FAR = 8 * BLOCK, 256 * BLOCK  # bytes before a header that are searched for its long name or pax records
EXTRA = b"LKxg"  # kinds of headers with metadata of the next one


def is_member(read: Read, begin: str, name: str, offset: int, size: int) -> bool:
    """Return whether a member of `size` bytes is at `offset` with the name `begin` + `name`; the case of `name` is ignored.

    Most members have one plain header. Names and sizes that do not fit into it are in preceding headers.
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
    """Return the member with these headers before `size` bytes of data, or None."""
    found = next(members(lambda offset, amount: headers[offset : offset + amount], len(headers) + size), None)
    return found if isinstance(found, Member) else None


def has_samples(read: Read, length: int) -> bool:
    """Return whether the bytes after the last indexed sample contain another sample."""
    if length <= 0 or not any(read(0, BLOCK)):
        return False
    for found in members(read, length):
        if isinstance(found, TarDamage):
            return False
        if isinstance(found, Member) and key_of(found.name):
            return True
    return False

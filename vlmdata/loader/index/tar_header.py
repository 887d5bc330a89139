"""Whether a tar's headers say what an index says of them."""

from collections.abc import Callable

from vlmdata.loader.index.grouping import key_of
from vlmdata.loader.index.tar import BLOCK, Member, TarDamage, members

Read = Callable[[int, int], bytes]  # offset, size
SIZE_AT = 124  # of the size's digits in a header
NEAR, FAR = 8 * BLOCK, 256 * BLOCK  # how far before a header its long name or pax records are looked for
EXTRA = b"LKxg"  # kinds of headers that say something of the next one


def is_member(read: Read, begin: str, name: str, offset: int, size: int) -> bool:
    """Say whether a member of `size` bytes lies at `offset` whose name is `begin`, then `name` in whatever case.

    A plain header suffices for most; for names and sizes that do not fit there, those before it are read too.
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
    """The member whose headers these are, before data of `size` bytes."""
    found = next(members(lambda offset, amount: headers[offset : offset + amount], len(headers) + size), None)
    return found if isinstance(found, Member) else None


def has_samples(read: Read, length: int) -> bool:
    """Say whether what follows the last sample that an index knows holds another one."""
    if length <= 0 or not any(read(0, BLOCK)):
        return False
    for found in members(read, length):
        if isinstance(found, TarDamage):
            return False
        if isinstance(found, Member) and key_of(found.name):
            return True
    return False

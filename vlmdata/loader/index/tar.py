"""Locates the members of a tar from its headers, without reading data.

Supports ustar, GNU long names and base-256 sizes, pax headers (also global ones), old tars without magic, several tars in one
file with any number of zeros between them, and files without the two final zero blocks. Damage is reported, and skipped up to
the next header, which may start at any byte. An extended header is a header that holds metadata of the next member, such as a
long name or pax records.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple
from zlib import adler32

Read = Callable[[int, int], bytes]  # (offset, size) -> bytes, fewer at the end of the file

BLOCK = 512
MAX_EXTRA = 1 << 20  # largest pax header or long name, in bytes; the limit of Go's archive/tar
MAX_NAME = 1 << 12  # longest name of a member, in bytes: PATH_MAX of Linux
_READ = 4096  # one read covers the headers of several small members
_SEARCH = 1 << 20  # largest read of a search; the first reads are smaller, so that many short searches take linear time
_ASCII = bytes(range(128))
_EXTRAS = frozenset([b"L", b"K", b"x", b"X", b"g"])  # types of extended headers; X is Solaris's version of x
_FILES = frozenset([b"0", b"\0", b"7"])
_LINKS = {b"1": False, b"2": True}  # type -> whether the link is symbolic
_WITHOUT_DATA = frozenset([b"1", b"2", b"3", b"4", b"5", b"6", b"V"])
_WANTED = {b"path": b"path", b"GNU.sparse.name": b"path", b"size": b"size", b"linkpath": b"linkpath"}


class Member(NamedTuple):
    """A regular file in a tar: `size` bytes at `offset`.

    A file may have several headers, and `header` is the offset of the first. `end` is the offset after the padding.
    """

    name: str
    header: int
    offset: int
    size: int
    end: int


class Link(NamedTuple):
    """A link in a tar, which is not followed.

    The target of a hard link is a member. The target of a symbolic link is a path relative to the link's folder.
    """

    name: str
    target: str
    is_symbolic: bool
    header: int
    end: int


class TarDamage(NamedTuple):
    """An unreadable stretch of a tar, from byte `offset` to byte `end`, with the reason."""

    offset: int
    end: int
    why: str


def members(read: Read, length: int) -> Iterator[Member | Link | TarDamage]:
    """Yield the regular files, links and damaged stretches of a tar of `length` bytes, in the order of the file.

    Folders, devices and labels are skipped. The function takes linear time and constant memory.
    """
    position = start = 0
    buffer, buffer_start = b"", 0
    extras = _Extras()
    while position < length:
        skip = position - buffer_start
        header = buffer[skip : skip + BLOCK]
        if len(header) < BLOCK:
            buffer, buffer_start = read(position, _READ), position
            header = buffer[:BLOCK]
        event: Member | Link | TarDamage | None
        is_header = _is_header(header)
        if not is_header:
            event, end = _no_header(read, position, length, header, start if extras.is_pending else position)
        elif header[156:157] in _EXTRAS:
            event, end = _extra(read, position, length, header, extras, start)
            if event is None:
                position = end
                continue
        else:
            event, end = _member(read, position, length, header, extras, start)
        if event is not None:
            yield event
        elif not is_header and not extras.is_pending:  # zeros end a tar; its global headers do not apply to the next tar
            extras = _Extras()
        if extras.is_pending:
            extras = extras.following()
        position = start = end
    if extras.is_pending:
        yield TarDamage(start, length, "the file ends after an extended header, before its member")


Found = tuple[Member | Link | TarDamage | None, int]  # (an entry or None, position of the next header)


def _member(read: Read, position: int, length: int, header: bytes, extras: "_Extras", start: int) -> Found:
    """Return the entry for the member whose main header is at `position`, and the position of the next header.

    The entry is None for a member that is neither a file nor a link. `start` is the position of the member's first extended
    header, or `position` if the member has none.
    """
    kind, data = header[156:157], position + BLOCK
    try:
        size = extras.size(header)
    except ValueError as error:
        return _lost(read, start, data, length, str(error))
    if extras.problem is None and kind in _FILES and not extras.is_sparse:
        end = data + size + -size % BLOCK
        try:
            name = extras.name(header)
            if name[-1:] == "/":  # old tars mark a folder in this way
                return None, _end_of_other(read, data, size, length, has_data=False) or data
            if data + size > length:
                raise ValueError(f"member {name!r} has {size} bytes, but the last {data + size - length} are missing")
        except ValueError as error:
            return (TarDamage(start, end, str(error)), end) if end < length else _lost(read, start, data, length, str(error))
        return Member(name, start, data, size, end), end
    if kind == b"S":
        data = _after_sparse_map(read, header, data)
    found = _end_of_other(read, data, size, length, kind not in _WITHOUT_DATA)
    if found is None:
        return _lost(read, start, data, length, f"no header follows a member of type {kind!r} with {size} bytes")
    try:
        return _other(kind, header, extras, start, found), found
    except ValueError as error:
        return TarDamage(start, found, str(error)), found


def _other(kind: bytes, header: bytes, extras: "_Extras", start: int, end: int) -> Link | TarDamage | None:
    """Return the link or the damage for a member that is not a plain file, or None for a member that is skipped.

    Raises ValueError if the name of the member is too long.
    """
    if extras.problem is not None:
        return TarDamage(start, end, extras.problem)
    if kind == b"S" or extras.is_sparse:
        return TarDamage(start, end, f"sparse member {extras.name(header)!r} cannot be read. Write the tar without --sparse")
    if kind == b"M":
        return TarDamage(start, end, f"member {extras.name(header)!r} begins in another volume of the tar")
    if kind in _LINKS:
        return Link(extras.name(header), extras.target(header), _LINKS[kind], start, end)
    return None


def _extra(read: Read, position: int, length: int, header: bytes, extras: "_Extras", start: int) -> Found:
    """Add the metadata in the extended header at `position` to `extras`.

    Return the damage of an invalid header or None, and the position of the next header.
    """
    data = position + BLOCK
    try:
        size = _number(header[124:136])
    except ValueError as error:
        return _lost(read, start, data, length, str(error))
    if data + size > length:
        return _lost(
            read, start, data, length, f"an extended header has {size} bytes, but the last {data + size - length} are missing"
        )
    end = data + size + -size % BLOCK
    try:
        extras.take(header[156:157], size, lambda: read(data, size))
    except ValueError as error:
        return TarDamage(start, end, str(error)), end
    return None, end


def _no_header(read: Read, position: int, length: int, block: bytes, start: int) -> Found:
    """Handle a block that is not a header. Return (damage or None, position of the next header).

    `start` is the position of the first extended header before the block, or `position` if there is none. Zero blocks are
    skipped. They are not damage, but extended headers before them are damage, because the member of these headers is missing.
    """
    end = position if block[:1].strip(b"\0") else _after_zeros(read, position, length)
    if end > position:
        return (TarDamage(start, position, "no member follows an extended header") if start < position else None), end
    if length - position < BLOCK:
        return TarDamage(start, length, f"the file ends inside a header ({length - position} of {BLOCK} bytes)"), length
    return _lost(read, start, position + 1, length, "there is no tar header here (wrong checksum)")


def _lost(read: Read, start: int, search: int, length: int, why: str) -> Found:
    """Return the damage from `start` to the next header, and the position of this header.

    The search for the header begins at `search`. If there is no header, its position is the length of the tar.
    """
    end = _next_header(read, search, length)
    return TarDamage(start, end, why), end


def _next_header(read: Read, position: int, length: int) -> int:
    """Return the start of the next header with ustar's magic and a valid checksum, or the file's length if there is none.

    The header may start at any byte, because a truncated tar may be joined with another tar.
    """
    for chunk_start, chunk in _chunks(read, position, length, BLOCK - 1):
        at = chunk.find(b"ustar", 257)
        while at >= 0:
            if chunk[at + 5 : at + 6] in (b"\0", b" ") and _is_header(chunk[at - 257 : at - 257 + BLOCK]):
                return chunk_start + at - 257
            at = chunk.find(b"ustar", at + 1)
    return length


def _after_zeros(read: Read, position: int, length: int) -> int:
    """Return the start of the first block from `position` on that is not all zeros, or the file's length if there is none.

    A header may begin inside the block, at its first nonzero byte. If the block itself does not begin with a header, return the
    start of that header.
    """
    for chunk_start, chunk in _chunks(read, position, length):
        zeros = len(chunk) - len(chunk.lstrip(b"\0"))
        if zeros < len(chunk):
            block, first = chunk_start + zeros - zeros % BLOCK, chunk_start + zeros
            return first if not _is_header(read(block, BLOCK)) and _is_header(read(first, BLOCK)) else block
    return length


def _chunks(read: Read, position: int, length: int, more: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the bytes from `position` to the end as (start, chunk).

    Each chunk also holds the first `more` bytes of the next chunk.
    """
    size = _READ
    while position < length:
        yield position, read(position, size + more)
        position += size
        size = min(2 * size, _SEARCH)


def _end_of_other(read: Read, data: int, size: int, length: int, has_data: bool) -> int | None:
    """Return the offset at which a member that is not a plain file ends, or None if the offset is unknown.

    Such a member, for example a link, may state a `size` although it has no data. Two offsets are therefore tried: `data`,
    where its data would start, and the offset where data of this size would end. The result is the first of them that is
    followed by a header, by zeros or by the end of the file. With `has_data`, the end of the data is tried first.
    """
    if size == 0:
        return data
    ends = [data + size + -size % BLOCK, data]
    for end in ends if has_data else ends[::-1]:
        block = read(end, BLOCK) if end < length else b""
        if (end == data or data + size <= length) and (not block.strip(b"\0") or _is_header(block)):
            return end
    return None


def _after_sparse_map(read: Read, header: bytes, data: int) -> int:
    """Return the start of an old GNU sparse member's data.

    The header lists the parts of the file that hold data. This list may continue in blocks after the header. Byte 504 of
    such a block is set if another block follows.
    """
    more = header[482:483]
    while more not in (b"\0", b""):
        more = read(data, BLOCK)[504:505]
        data += BLOCK
    return data


def _is_header(block: bytes) -> bool:
    """Return whether a block has a valid checksum, which is the sum of its bytes with the checksum field counted as blanks.

    The sum is computed by Adler-32, whose low half is the sum plus one, modulo 65,521. This takes a twentieth of the time of
    `sum`.
    """
    try:
        stated = int(block[148:156].strip(b" \0"), 8) - 256
    except ValueError:
        return False
    found = adler32(block[156:], adler32(block[:148])) & 0xFFFF
    if len(block) < BLOCK or found == (stated + 1) % 65_521:
        return len(block) == BLOCK
    signed = sum(block[:148]) + sum(block[156:]) - 256 * len(block.translate(None, _ASCII))  # some old tars count signed bytes
    return stated == signed


def _number(field: bytes) -> int:
    """Return the size in a header field: octal digits, or a base-256 number if the first bit is set.

    Raises ValueError if the field is invalid.
    """
    if field[0] & 0x80:
        if field[0] & 0x40:
            raise ValueError("a header states a negative size")
        return int.from_bytes(field[1:], "big") + ((field[0] & 0x3F) << 88)
    text = field.partition(b"\0")[0].strip()
    try:
        if not text.isdigit() and text:
            raise ValueError
        return int(text or b"0", 8)
    except ValueError:
        raise ValueError(f"a header states a size that is not a number: {field!r}") from None


class _Extras:
    """Holds the metadata that extended headers state about the next member. Only the pax records that are needed are kept."""

    def __init__(self, everywhere: dict[bytes, bytes] | None = None):
        self.everywhere = everywhere or {}  # metadata from global headers
        self.own: dict[bytes, bytes] = dict(self.everywhere)
        self.problem: str | None = None
        self.is_pending = False  # true if a parsed header belongs to the next member

    @property
    def is_sparse(self) -> bool:
        return b"sparse" in self.own

    def following(self) -> "_Extras":
        """Return the state after the next member. It holds only the metadata of global headers, which stays valid."""
        return _Extras(self.everywhere)

    def take(self, kind: bytes, size: int, data: Callable[[], bytes]) -> None:
        """Parse an extended header of `size` bytes.

        After an invalid header, the next member counts as damage. An invalid global header raises ValueError.
        """
        self.is_pending = self.is_pending or kind != b"g"
        try:
            if size > MAX_EXTRA:
                raise ValueError(f"an extended header has {size} bytes, more than the limit of {MAX_EXTRA}")
            _read_extra(kind, data(), self.own, self.everywhere)
        except ValueError as error:
            if not self.is_pending:
                raise
            self.problem = self.problem or str(error)

    def size(self, header: bytes) -> int:
        """Return the size of the member with this header. Raises ValueError if the size is not a number."""
        text = self.own.get(b"size") if self.own else None
        if not text:
            return _number(header[124:136])
        if not text.isdigit() or len(text.lstrip(b"0")) > 20:  # int() takes quadratic time
            raise ValueError(f"a pax header states a size that is not a number: {text[:40]!r}")
        return int(text.lstrip(b"0") or b"0")

    def name(self, header: bytes) -> str:
        """Return the name of the member with this header. Raises ValueError if the name is too long."""
        raw = self.own.get(b"path") if self.own else None
        if not raw:
            raw = header[:100].partition(b"\0")[0]
            if header[345] and header[257:263] == b"ustar\0":
                raw = header[345:500].partition(b"\0")[0] + b"/" + raw
        return _text(raw)

    def target(self, header: bytes) -> str:
        """Return the target of the link with this header. Raises ValueError if the target is too long."""
        return _text(self.own.get(b"linkpath") or header[157:257].partition(b"\0")[0])


def _read_extra(kind: bytes, data: bytes, own: dict[bytes, bytes], everywhere: dict[bytes, bytes]) -> None:
    """Add the metadata of an extended header to `own`, which holds the metadata of the next member.

    If the header is global, also add it to `everywhere`, which holds the metadata of all later members. Raises ValueError for
    invalid pax records.
    """
    if kind in (b"L", b"K"):
        own[b"path" if kind == b"L" else b"linkpath"] = data.partition(b"\0")[0]
        return
    for key, value in _records(data):
        if key in _WANTED:
            own[_WANTED[key]] = value
            if kind == b"g":
                everywhere[_WANTED[key]] = value
        elif key.startswith(b"GNU.sparse.") and kind != b"g":
            own[b"sparse"] = value


def _text(raw: bytes) -> str:
    if len(raw) > MAX_NAME:
        raise ValueError(f"the name of a member has {len(raw)} bytes, more than the limit of {MAX_NAME}")
    return raw.decode("utf-8", "backslashreplace")  # Arrow strings cannot hold tarfile's surrogate escapes


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (key, value) for each record `length key=value\\n` of a pax header.

    Raises ValueError if a record has another form.
    """
    position = 0
    while position < len(data) and data[position]:
        blank = data.find(b" ", position, position + 20)
        digits = data[position:blank]
        end = position + int(digits) if blank > 0 and digits.isdigit() else 0
        if not blank < end - 1 < len(data) or data[end - 1] != 10:
            raise ValueError("a record of a pax header does not have the length that it states")
        key, _, value = data[blank + 1 : end - 1].partition(b"=")
        yield key, value
        position = end
